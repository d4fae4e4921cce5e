"""The Spark engine: local threads of this machine, a cluster by its master's address, or a session that is running already."""

from __future__ import annotations

import contextlib
import gc
import os
import pickle
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import uuid
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from types import TracebackType
from typing import Any, Self

from gristmill.errors import MissingDependencyError, RunError, UsageError, WorkItemError
from gristmill.pipelines.engines.base import TRIES, Task, begun, probes, raise_failed, singly, together
from gristmill.pipelines.engines.watch import WAIT, Watch, Workers, quiet

POLL_SECONDS = 0.2
LOOKED_THROUGH = 20_000  # objects that a worker's garbage collection may look through before they are set aside
PROBE_SECONDS = 10.0  # for a master to accept a connection
_NAMED = re.compile(
    r"(?!org\.apache\.spark\.api\.python)[\w.]*(Error|Exception): ."
)  # the line of a trace that says what happened
_LOST = re.compile(
    r"most recent failure: Lost task \S+ in stage \S+ \(TID \d+\) \((.*?)\): (.*)"
)  # where it happened, and why, if no Python was reached


class SparkEngine:
    """Runs work items as the tasks of Spark jobs, one a partition, with Spark's own scheduling and retries. Spark starts in the background.

    address: a master's URL (spark://host:7077, yarn, k8s://..., local-cluster[...]); None is this machine with `workers` threads. conf: settings of
    Spark, over the defaults here. session: a running session, which stays open. wait: seconds after which a stage without executors is given up.
    Workers need this package, and the storage that the paths name.

    Raises:
        MissingDependencyError: pyspark, or a Java that it runs on, is not there.
    """

    name = "spark"

    def __init__(
        self,
        workers: int | None = None,
        address: str | None = None,
        *,
        conf: Mapping[str, str] | None = None,
        session: Any = None,
        wait: float = WAIT,
    ) -> None:
        self.workers = workers or os.cpu_count() or 1
        self.note: Callable[[str], None] = quiet
        self._wait = wait
        self._context: Future[Any] = Future()
        if session is None:
            check_java()
        running = _running(address, conf) if session is None else _context_of(session)
        self._own = running is None
        if running is not None:
            self._context.set_result(running)
            self.workers = int(running.defaultParallelism)
            return
        if address is not None:
            _check_address(address)
        starter = ThreadPoolExecutor(1)
        self._context = starter.submit(_start, address, self.workers, dict(conf or {}))
        starter.shutdown(wait=False)

    def map(
        self, function: Callable[[Task], dict[str, Any]], tasks: Sequence[Task], done: Callable[[dict[str, Any]], None]
    ) -> list[dict[str, Any]]:
        """See `Engine.map`. An executor that is lost is replaced and its items run again."""
        import cloudpickle

        if not tasks:
            return []
        context = self._context.result()
        arrived = context.accumulator([], _arrivals())
        name = f"gristmill-{uuid.uuid4().hex}"
        workers = Workers(lambda: self._missing(context), lambda: _advice(context), self._wait)
        with ThreadPoolExecutor(2) as pool, Watch(tasks, _slots(context), self.note, workers) as watch:

            def send(groups: Sequence[range]) -> Future[None]:
                packed = [
                    (group, cloudpickle.dumps((function, [tasks[number] for number in group]))) for group in groups
                ]
                return pool.submit(_run, context, name, packed, arrived, own=self._own)

            try:
                outcomes, error = _followed(context, send, len(tasks), arrived, done, watch)
            except BaseException:
                context.cancelJobGroup(name)
                raise
            finally:
                arrived.value.clear()  # PySpark keeps an accumulator as long as the process
        if error is not None or len(outcomes) < len(tasks):
            raise _lost(error or RunError("Spark lost their results"), tasks, set(outcomes)) from error
        failed = [number for number in sorted(outcomes) if isinstance(outcomes[number], BaseException)]
        raise_failed([(tasks[number], outcomes[number]) for number in failed])
        return [outcomes[number] for number in range(len(tasks))]

    def _missing(self, context: Any) -> str | None:
        """The executors that a cluster has not given; the driver is listed among them."""
        if context.master.startswith("local[") or context.master == "local":
            return None
        try:
            there = context._jsc.sc().getExecutorMemoryStatus().size() > 1  # noqa: SLF001  the one way
        except Exception:  # noqa: BLE001  the JVM is gone: the job says so
            return None
        return None if there else f"executors of {context.master} (0 of {self.workers} cores)"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._own:
            return
        try:
            context = self._context.result()
        except RunError:
            return  # it never started; map has said so, or nothing was asked of it
        context.stop()


def _run(context: Any, name: str, packed: list[tuple[range, bytes]], arrived: Any, *, own: bool) -> None:
    """One job, each of its tasks a group of items. Outcomes go to the accumulator, which Spark adds to once for each task, when it ends."""
    context.setJobGroup(name, "gristmill", interruptOnCancel=True)

    def run(sent: tuple[range, bytes]) -> None:
        import cloudpickle

        numbers, content = sent
        outcomes, seconds = begun(*cloudpickle.loads(content))
        arrived.add([(numbers, [cloudpickle.dumps(outcome) for outcome in outcomes], seconds)])
        if own:
            _set_aside()

    context.parallelize(packed, len(packed)).foreach(run)


def _set_aside() -> None:
    """Takes what is alive out of the worker's garbage collection, if it is much: PySpark collects after every task, which takes .1 s with all modules loaded."""
    if len(gc.get_objects()) > LOOKED_THROUGH:
        gc.collect()
        gc.freeze()


def _slots(context: Any) -> int:
    """How many tasks the executors that are there do at a time."""
    return int(context.defaultParallelism)


def _followed(
    context: Any,
    send: Callable[[Sequence[range]], Future[None]],
    count: int,
    arrived: Any,
    done: Callable[[dict[str, Any]], None],
    watch: Watch,
) -> tuple[dict[int, Any], BaseException | None]:
    """(the outcomes by number, why Spark gave up if it did); `done` is called with each result as it arrives.

    The first items show how long one takes; of short ones a task does several, for a task of Spark's takes 50 ms beside its work. These are a second
    job. What that leaves, since it takes longer after all or ends workers, is a third, each item by itself.
    """
    outcomes: dict[int, Any] = {}
    took: list[float] = []
    probed = first = probes(count, _slots(context))
    jobs = [send(singly(range(first)))]
    while True:
        over = not wait(jobs, POLL_SECONDS).not_done
        watch.check()
        for numbers, contents, seconds in arrived.value[len(took) :]:
            took.append(seconds)
            for number, content in zip(numbers, contents, strict=False):
                outcome = outcomes[number] = _unpacked(content)
                watch.done(number)
                if not isinstance(outcome, BaseException):
                    done(outcome)
        alone = (*jobs[:1], *jobs[2:])
        error = next((job.exception() for job in alone if job.done() and job.exception() is not None), None)
        if first < count and len(took) >= probed // 2 and error is None:
            groups = together(range(first, count), _slots(context), statistics.median(took))
            watch.group(groups)
            jobs.append(send(groups))
            first = count
        elif over:
            left = [number for number in range(probed, count) if number not in outcomes]
            if len(jobs) != 2 or not left:
                return outcomes, error
            watch.again(left)
            jobs.append(send(singly(left)))


def _unpacked(content: bytes) -> Any:
    try:
        return pickle.loads(content)  # noqa: S301  the worker's
    except Exception as error:  # noqa: BLE001  an item's error that can't be made again; in Spark's hands it would take the other outcomes along
        return error


def _advice(context: Any) -> str:
    conf = context.getConf()
    memory, driver = conf.get("spark.executor.memory", "1g"), conf.get("spark.driver.host")
    return (
        f"Has the cluster workers with a free core and {memory} of free memory (spark.executor.memory), or do other applications hold them? "
        f"Do executors start and reach this machine as '{driver}' (spark.driver.host)? Their logs are in the workers' folders."
    )


def _arrivals() -> Any:
    from pyspark.accumulators import AccumulatorParam

    class Arrivals(AccumulatorParam):  # type: ignore[misc]
        """A list of (numbers of items, their pickled outcomes, seconds of one), as tasks end."""

        def zero(self, value: list[Any]) -> list[Any]:
            return []

        def addInPlace(self, value1: list[Any], value2: list[Any]) -> list[Any]:  # noqa: N802  Spark's name
            value1.extend(value2)
            return value1

    return Arrivals()


def _lost(error: BaseException, tasks: Sequence[Task], finished: set[int]) -> WorkItemError:
    """The error for a job that Spark gave up."""
    missing = [task for number, task in enumerate(tasks) if number not in finished]
    named = (
        f"{missing[0]} and {len(missing) - 1} more items"
        if len(missing) > 1
        else str(missing[0] if missing else "a job")
    )
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    said = [line for line in lines if _NAMED.match(line)] or [f"{m[2]} ({m[1]})" for m in map(_LOST.search, lines) if m]
    reason = (said or lines[:1])[-1]
    return WorkItemError(
        f"Spark gave up before {named} could finish: {reason}. What is finished is kept: mend the cause and run the same command again."
    )


def _context_of(session: Any) -> Any:
    try:
        return session.sparkContext
    except Exception as error:
        raise UsageError(
            "the Spark session has no SparkContext (Spark Connect); gristmill needs a classic session: give its master with --address spark://..."
        ) from error


def _running(address: str | None, conf: Mapping[str, str] | None) -> Any:
    """The SparkContext that this process has already, as a notebook has, or None; Spark allows one a process.

    Raises:
        UsageError: there is one, and another was asked for.
    """
    from pyspark import SparkContext

    running = SparkContext._active_spark_context  # noqa: SLF001  the one way
    if running is not None and (address is not None or conf):
        raise UsageError(
            f"a Spark session of this process is running on {running.master}, and Spark allows one a process: stop it first, or leave out address and conf"
        )
    return running


def _start(address: str | None, workers: int, conf: dict[str, str]) -> Any:
    """Spark on the master, or on this machine: its SparkContext, for a session with all of SQL would take twice as long to start."""
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", message="PySpark does not yet fully support pandas"
        )  # rows reach Spark as Arrow alone
        from pyspark import SparkConf, SparkContext
        from pyspark.testing import utils  # noqa: F401  which a SparkContext imports, with the same warning

    local = address is None or address.startswith("local")
    settings = {
        "spark.app.name": "gristmill",
        "spark.master": address or f"local[{workers},{TRIES + 1}]",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.task.maxFailures": str(TRIES + 1),
        **(_HERE if local else {"spark.cores.max": str(workers)}),
        **conf,
    }
    try:
        with _errors_only(settings):
            context = SparkContext(conf=SparkConf().setAll(list(settings.items())))
    except Exception as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        where = f"the Spark master at {address}" if address else "Spark on this machine"
        raise RunError(
            f"can't start {where}: {reason}. Check --address and --conf, or run without them to use this machine."
        ) from error
    if "PYSPARK_PYTHON" not in os.environ:  # Spark's own default is whatever `python3` is on the worker's PATH
        context.pythonExec = settings.get("spark.pyspark.python", sys.executable)
    if local:  # for workers: Spark's JVM, which stays as long as the process, has the environment of when it began
        context.environment = {**os.environ, **context.environment}
    return context


_JAVA_OPTIONS = "spark.driver.defaultJavaOptions"  # what spark.driver.extraJavaOptions says counts more
_HERE = {
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.driver.host": "127.0.0.1",
    _JAVA_OPTIONS: "-XX:TieredStopAtLevel=1",  # the JVM hands out items; compiling for more than that takes seconds from the workers
}
LOGGING = """
rootLogger.level = error
logger.gateway.name = org.apache.spark.api.python.PythonGatewayServer
logger.gateway.level = error
rootLogger.appenderRef.stdout.ref = console
appender.console.type = Console
appender.console.name = console
appender.console.target = SYSTEM_ERR
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = %d{yy/MM/dd HH:mm:ss} %p %c{1}: %m%n%ex
"""


@contextlib.contextmanager
def _errors_only(settings: dict[str, str]) -> Iterator[None]:
    """Adds to the settings that Spark, while it starts in the block, logs errors only, unless it is configured otherwise; `spark.log.level` still counts."""
    homes = [os.environ.get("SPARK_CONF_DIR"), os.path.join(os.environ.get("SPARK_HOME", ""), "conf")]
    if any(home and os.path.exists(os.path.join(home, "log4j2.properties")) for home in homes):
        yield
        return
    with tempfile.NamedTemporaryFile("w", prefix="gristmill-log4j2-", suffix=".properties") as file:
        file.write(LOGGING)
        file.flush()
        options = f"-Dlog4j2.configurationFile=file:{file.name} {settings.get(_JAVA_OPTIONS, '')}"
        settings[_JAVA_OPTIONS] = options.strip()
        yield


def _check_address(address: str) -> None:
    """Refuses what is no master, and a standalone master that nobody listens at: Spark itself would go on asking for minutes.

    Raises:
        UsageError: no address of a master. RunError: no answer.
    """
    if address.startswith("sc://"):
        raise UsageError(f"--address {address} is Spark Connect; give the cluster's master, such as spark://host:7077")
    if not re.match(r"local($|\[)|local-cluster\[|spark://|yarn$|k8s://", address):
        raise UsageError(
            f"--address {address} is no Spark master: spark://host:7077, yarn, k8s://https://host:443, local[4] or local-cluster[2,1,1024]"
        )
    if not address.startswith("spark://"):
        return
    masters = [each.rpartition(":") for each in address.removeprefix("spark://").split(",")]
    reasons = []
    for host, _, port in masters:
        try:
            socket.create_connection((host, int(port)), PROBE_SECONDS).close()
        except (OSError, ValueError) as error:
            reasons.append(f"{host or port}: {error}")
    if len(reasons) == len(masters):
        raise RunError(f"no Spark master answers at {address}: {'; '.join(reasons)}. Is it running, is the port right?")


def check_java() -> None:
    """Refuses a machine without pyspark or the Java that its version needs.

    Raises:
        MissingDependencyError: with the line that installs it.
    """
    try:
        import pyspark
    except ImportError as error:
        raise MissingDependencyError("pyspark is needed for --engine spark: pip install 'gristmill[spark]'") from error
    needed = 17 if int(pyspark.__version__.split(".")[0]) >= 4 else 8
    install = "on Debian or Ubuntu: apt-get install openjdk-17-jre-headless; or set JAVA_HOME to an installed one"
    home = os.environ.get("JAVA_HOME")
    java = os.path.join(home, "bin", "java") if home else shutil.which("java")
    if java is None or not os.path.exists(java):
        raise MissingDependencyError(
            f"Spark {pyspark.__version__} needs Java {needed} or newer and there is none{f' in JAVA_HOME={home}' if home else ''}; {install}"
        )
    said = subprocess.run(  # noqa: S603  the machine's own Java
        [java, "-version"], capture_output=True, text=True, check=False, timeout=60
    )
    found = re.search(r'version "(?:1\.)?(\d+)', said.stderr + said.stdout)
    if found is None or int(found[1]) < needed:
        version = found[1] if found else f"one that answers {(said.stderr or said.stdout).strip()[:80]!r}"
        raise MissingDependencyError(
            f"Spark {pyspark.__version__} needs Java {needed} or newer; {java} is {version}; {install}"
        )
