"""An object store that errors, stalls, drops and tears while a run reads its sources and writes its work and output (moto behind a faulty proxy)."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gristmill.pipelines import fetched
from gristmill.storage.folder import Folder, open_folder
from tests.pipelines.conftest import corpus, write_jsonl
from tests.storage.faults import FaultyProxy, Seen

from .test_faults import DASK, Runs, pipeline

REFERENCE = ("fingerprint", "layout", "counts", "splits", "version")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("undisturbed")
    write_jsonl(folder / "raw", corpus(20), files=3)
    found = Runs(folder).run(options={"in_process": True})
    assert found is not None and found["published"], found
    return folder, found


@pytest.fixture
def proxy(s3_endpoint: str) -> Iterator[FaultyProxy]:
    with FaultyProxy(s3_endpoint) as made:
        yield made


@pytest.fixture
def store(undisturbed: Any, s3_folder: Folder, proxy: FaultyProxy, tmp_path: Path, monkeypatch: Any) -> Folder:
    """The bucket with the sources in it, as seen without faults. What the run gets of it comes through the proxy."""
    for file in (undisturbed[0] / "raw").iterdir():
        s3_folder.write_atomic(f"raw/{file.name}", file.read_bytes())
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
    monkeypatch.setenv("GRISTMILL_CACHE", str(tmp_path / "copies"))
    fetched.cache_of.cache_clear()
    return s3_folder


def model_in(folder: Folder, undisturbed: Any) -> dict[str, Any]:
    model = pipeline(undisturbed[0])
    model["sources"][0]["path"], model["output"]["path"] = folder.url("raw"), folder.url("out")
    return model


def check_whole(store: Folder, undisturbed: Any, found: dict[str, Any] | None) -> None:
    import gristmill

    assert found is not None and "error" not in found, found
    assert {name: found[name] for name in REFERENCE} == {name: undisturbed[1][name] for name in REFERENCE}
    dataset = gristmill.open_dataset(open_folder(store.url("out"), store.options))
    assert dataset.verify() == []
    assert not [path for path, *_ in store.list("out") if ".tmp-" in path]


class Chance:
    """Faults by chance, a number of times in a hundred; one request of each method stalls for longer than a client waits."""

    def __init__(self, seed: int, often: float) -> None:
        self._rng, self._often = random.Random(seed), often
        self.struck: list[str] = []

    def __call__(self, seen: Seen) -> Any:
        if self._rng.random() >= self._often:
            return None
        kind = self._rng.choice(["error", "drop", "tear", 1.0])
        self.struck.append(f"{seen.method} {kind}")
        return kind


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("options", [{"in_process": True}, DASK], ids=["in process", "dask"])
def test_faults_by_chance_cost_nothing_but_time(undisturbed, store, proxy, tmp_path, options, seed):
    proxy.fault = Chance(seed, 0.1)
    found = Runs(tmp_path).run(model=model_in(store, undisturbed), options={**options, "scratch": store.url("work")})
    assert {kind.split()[0] for kind in proxy.fault.struck} >= {"GET", "PUT"} and len(proxy.fault.struck) > 20
    check_whole(store, undisturbed, found)


@pytest.mark.slow
def test_a_request_that_is_never_answered_is_asked_again(undisturbed, store, proxy, tmp_path):
    stalled: set[str] = set()

    def fault(seen: Seen) -> Any:
        kind = f"{seen.method} {'data' if '/out/data/' in seen.path else 'raw' if '/raw/part' in seen.path else ''}"
        if kind in ("PUT data", "GET raw") and kind not in stalled:
            stalled.add(kind)
            return 40
        return None

    proxy.fault = fault
    found = Runs(tmp_path).run(
        model=model_in(store, undisturbed), options={"in_process": True, "scratch": str(tmp_path / "scratch")}
    )
    assert stalled == {"PUT data", "GET raw"}
    check_whole(store, undisturbed, found)


@pytest.mark.slow
def test_a_store_that_is_gone_for_a_while(undisturbed, store, proxy, tmp_path):
    """The run says so, nothing half-written is visible, and the same command goes on when the store is back."""
    model, struck = model_in(store, undisturbed), []
    for place in ("/raw/", "/items/", "/out/data/", "/out/ledger/", "/out/manifests/v"):
        gone: list[int] = []

        def fault(seen: Seen, place: str = place, gone: list[int] = gone) -> Any:
            if gone or place in seen.path:
                gone.append(seen.number)
                return "drop" if seen.number % 2 else "error"
            return None

        proxy.fault = fault
        found = Runs(tmp_path).run(model=model, options={"in_process": True, "scratch": store.url("work")})
        assert gone and found is not None, place
        assert found.get("exit") == 3, (place, found)
        assert "s3://" in found["text"] or "store" in found["text"], (place, found)
        assert not store.list("out/manifests/v00000001.json") and not [
            path for path, *_ in store.list() if ".tmp-" in path
        ]
        struck.append(found["error"])
    proxy.fault = lambda seen: None
    found = Runs(tmp_path).run(model=model, options={"in_process": True, "scratch": store.url("work")})
    check_whole(store, undisturbed, found)
    assert found is not None and found["reused_items"] > 0, struck
