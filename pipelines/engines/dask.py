"""The Dask engine: worker processes on this machine that come and go with the run, or an existing cluster by its scheduler's address."""

from __future__ import annotations

import os
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from gristmill.errors import RunError, UsageError
from gristmill.pipelines.engines.base import TOGETHER, Task, gather, probes, singly, together
from gristmill.pipelines.engines.watch import WAIT, Watch, Workers, quiet
from gristmill.storage.folder import is_alive

CONNECT = 20.0  # seconds to wait for a scheduler that doesn't answer, unless less is asked for
SPARK = ("spark://", "yarn", "k8s://", "local[", "local-cluster[")  # what masters of Spark begin with


class DaskEngine:
    """Runs work items on Dask worker processes. The cluster starts in the background at once, so that planning and starting overlap.

    address: an existing scheduler, such as tcp://host:8786; None starts `workers` processes on loopback, without a dashboard. client: of a
    running cluster; it stays open. wait: seconds after which a stage without workers is given up, and a scheduler that doesn't answer if they are under 20.
    """

    name = "dask"

    def __init__(
        self, workers: int | None = None, address: str | None = None, *, client: Any = None, wait: float = WAIT
    ) -> None:
        if address is not None and not address.startswith("inproc:"):
            _check_address(address)
        self.workers = workers or os.cpu_count() or 1
        self.note: Callable[[str], None] = quiet
        self._own = client is None
        self._wait = wait
        self._address = address
        self._client: Future[Any] = Future()
        _sweep()
        self._folder = tempfile.TemporaryDirectory(prefix=f"{_FOLDER}{os.getpid()}-")
        if client is not None:
            self._client.set_result(client)
            self.workers = len(client.scheduler_info(n_workers=-1)["workers"]) or 1
            return
        starter = ThreadPoolExecutor(1)
        self._client = starter.submit(_connect, address, self.workers, self._folder.name, min(CONNECT, max(wait, 1.0)))
        starter.shutdown(wait=False)

    def map(
        self, function: Callable[[Task], dict[str, Any]], tasks: Sequence[Task], done: Callable[[dict[str, Any]], None]
    ) -> list[dict[str, Any]]:
        """See `Engine.map`. A worker that dies is replaced and its items run again."""
        from distributed import CancelledError, Future
        from distributed.comm import CommClosedError

        if not tasks:
            return []
        client = self._client.result()
        sent: dict[str, range] = {}

        def give_up() -> None:
            client.cancel([Future(key, client) for key in list(sent)])

        try:
            slots = sum(_threads(client)) or self.workers
            with Watch(tasks, slots, self.note, Workers(self._missing, self._advice, self._wait, give_up)) as watch:
                try:
                    return gather(tasks, _outcomes(client, function, tasks, sent, slots, watch), done, watch)
                except CancelledError:
                    watch.check()
                    raise
        except (CancelledError, CommClosedError) as error:
            raise RunError(
                f"lost the Dask scheduler{f' at {self._address}' if self._address else ''}. "
                "What is finished is kept: run the same command again when there is one."
            ) from error

    def _missing(self) -> str | None:
        """What keeps the cluster from working. Workers of our own that were lost for good are started anew: Dask gives up one that isn't back in 15 s."""
        client = self._client.result()
        try:
            there = len(_threads(client))
        except (OSError, TimeoutError, ValueError):
            return f"an answer of the Dask scheduler at {self._where()}"
        if self._own and client.cluster is not None and there < self.workers:
            client.cluster.scale(self.workers)
        return None if there else f"workers of the Dask scheduler at {self._where()} (0 there)"

    def _advice(self) -> str:
        if self._own and self._address is None:
            return "Worker processes end as soon as they have started: is there memory left on this machine?"
        where = self._where()
        return f"Start some with `dask worker {where} --nthreads 1`; if they run, look at what they print: do they reach that address?"

    def _where(self) -> str:
        return self._address or str(self._client.result().scheduler.address)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            client = self._client.result()
            if not self._own:
                return
        except RunError:
            return  # it never started; map has said so, or nothing was asked of it
        else:
            cluster = client.cluster
            try:
                client.close()
                if cluster is not None:
                    cluster.close()
            except (TimeoutError, OSError) as slow:  # the work is done, and worker processes end with this one
                self.note(f"Dask's workers took too long to stop ({type(slow).__name__}); they end with this process")
        finally:
            self._folder.cleanup()


def _outcomes(
    client: Any,
    function: Callable[[Task], dict[str, Any]],
    tasks: Sequence[Task],
    sent: dict[str, range],
    slots: int,
    watch: Watch,
) -> Iterator[tuple[int, Any]]:
    """(number of the task, its outcome) as they come. sent: is given the numbers of tasks that haven't come, by Dask's key.

    The first ones show how long a task takes; of short ones several are sent together, for each that is sent costs some milliseconds.
    """
    import cloudpickle
    from distributed import as_completed

    run = unpacking()
    waiting = as_completed([], loop=client.loop)

    def send(groups: Sequence[range]) -> None:  # submission order keeps the start of the input first
        packed = [cloudpickle.dumps((function, [tasks[number] for number in group])) for group in groups]
        futures = client.map(run, packed, pure=False)
        sent.update((future.key, group) for future, group in zip(futures, groups, strict=True))
        waiting.update(
            futures
        )  # nothing else refers to them: Dask keeps what is referred to, and would make it again when a worker dies

    first = probes(len(tasks), slots)
    send(singly(range(first)))
    took: list[float] = []
    for future in waiting:
        error = future.exception()
        group = sent.pop(future.key)
        if error is None:
            outcomes, seconds = future.result()
        else:  # of several one has killed workers: which, shows by itself
            outcomes, seconds = [error] if len(group) == 1 else [], TOGETHER
        took.append(seconds)
        if isinstance(outcomes, str):
            why = f"{outcomes}. Workers need this package, and what it needs, as they are on the driver"
            outcomes = [RunError(why)] * len(group)
        left = group[len(outcomes) :]
        if left:
            watch.again(left)
            send(singly(left))
        if first < len(tasks) and len(took) >= slots:
            groups = together(range(first, len(tasks)), slots, statistics.median(took))
            watch.group(groups)
            send(groups)
            first = len(tasks)
        yield from zip(group, outcomes, strict=False)


def unpacking() -> Callable[[bytes], Any]:
    """A function for the workers that does packed (function, tasks): see `begun`; or says as text why the worker can't.

    It goes to them by value: a worker that can't import what comes to it, the package for one, would end without a word to the run.
    """

    def run(packed: bytes) -> Any:
        import pickle
        import socket
        import sys

        try:
            function, tasks = pickle.loads(packed)  # noqa: S301  the driver's
            from gristmill.pipelines.engines.base import begun
        except ImportError as error:
            return f"{error} in {sys.executable} of the worker on {socket.gethostname()}", 0.0
        return begun(function, tasks)

    return run


def _threads(client: Any) -> list[int]:
    """How many threads each worker has.

    Raises:
        CommClosedError: the scheduler is gone.
    """
    from distributed.comm import CommClosedError

    found = client.scheduler_info(n_workers=-1)
    if "workers" not in found:
        raise CommClosedError
    return [worker["nthreads"] for worker in found["workers"].values()]


_FOLDER = "gristmill-dask-"  # of workers' own files, in the system's folder of temporary files


def _sweep() -> None:
    """Removes the folders of workers' files that killed runs have left."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_FOLDER}*-*"):
        pid = folder.name.removeprefix(_FOLDER).partition("-")[0]
        if pid.isdecimal() and not is_alive(int(pid)):
            shutil.rmtree(folder, ignore_errors=True)


def _check_address(address: str) -> None:
    from distributed.comm import get_address_host_port

    if address.startswith(SPARK):
        raise UsageError(f"--address {address} is a Spark master: add --engine spark")
    try:
        get_address_host_port(address)
    except ValueError as error:
        raise UsageError(
            f"--address {address}: {error}; write where the scheduler is, such as tcp://host:8786"
        ) from None


_seen: set[str] = set()  # variables that the process which workers are forked from may have


def _forked() -> dict[str, str]:
    """The setting with which workers are forked from one process that has imported and loaded everything, where that is safe.

    It stays for later runs, and workers are given the environment of theirs over its own: so a variable that has gone meanwhile would come back.
    """
    if sys.platform != "linux" or not _seen <= os.environ.keys():
        return {}
    _seen.update(os.environ)
    import dask
    from distributed.utils import get_mp_context

    forked = {"distributed.worker.multiprocessing-method": "forkserver"}
    with dask.config.set(forked):
        get_mp_context().set_forkserver_preload(["gristmill.pipelines.engines.preload"])  # in place of Dask's own list
    return forked


def _connect(address: str | None, workers: int, folder: str, patience: float) -> Any:
    """A client of the scheduler at the address, or of worker processes started here."""
    import dask
    import distributed

    try:
        if address:
            return distributed.Client(address, timeout=patience, set_as_default=False)
        quick = {"distributed.admin.low-level-log-length": 0, "distributed.worker.use-file-locking": False}
        with dask.config.set({**quick, **_forked()}):
            cluster = distributed.LocalCluster(
                n_workers=workers,
                threads_per_worker=1,
                processes=True,
                host="127.0.0.1",
                dashboard_address=None,
                scheduler_kwargs={
                    "dashboard_address": "127.0.0.1:0"
                },  # of its small HTTP server: any free port, also beside another run
                memory_limit=0,  # work items bound their own memory; Dask's limit would kill a worker for a page cache peak
                local_directory=folder,
                silence_logs=50,
                env=dict(os.environ),  # that of now, not of when the first run of this process began
            )
            return distributed.Client(cluster, set_as_default=False)
    except (OSError, TimeoutError, RuntimeError) as error:
        where = f"the Dask scheduler at {address}" if address else "Dask workers on this machine"
        hint = (
            "Check --address, or run without it to use this machine."
            if address
            else (
                "Worker processes import the script that started them: in a script, make the call under `if __name__ == '__main__':`."
            )
        )
        raise RunError(f"can't reach {where}: {error}. {hint}") from error
