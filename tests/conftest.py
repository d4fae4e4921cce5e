"""Fixtures that every test may use."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from gristmill.storage.folder import Folder, open_folder

settings.register_profile("gristmill", deadline=None)  # the first call of a kernel compiles it
settings.load_profile("gristmill")

SHARED = Path(__file__).resolve().parents[2] / "shared"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="run the slow tests too")
    parser.addoption(
        "--write-golden", action="store_true", help="write the output of steps that are new or have a new VERSION"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--slow"):
        return
    skip = pytest.mark.skip(reason="slow: run with --slow (make test-all)")
    for item in items:
        if "slow" in item.keywords:
            item.add_marker(skip)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data beside the checkout; a test that needs it skips visibly without it."""
    folder = SHARED / "data"
    if not folder.is_dir():
        pytest.skip("real data is absent: ../shared/data beside the checkout")
    return folder


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """The address of an S3 server that lives as long as the tests."""
    pytest.importorskip("s3fs")
    server_module = pytest.importorskip("moto.server")
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = server_module.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3_folder(s3_endpoint: str) -> Iterator[Folder]:
    """A new bucket, reached by the usual environment variables; they stay when a test undoes its own patches."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (
            ("AWS_ACCESS_KEY_ID", "test"),
            ("AWS_SECRET_ACCESS_KEY", "test"),
            ("AWS_DEFAULT_REGION", "us-east-1"),
        ):
            patch.setenv(name, value)
        bucket = f"bucket-{uuid.uuid4().hex[:12]}"
        folder = open_folder(f"s3://{bucket}/some/dataset", {"endpoint_url": s3_endpoint})
        folder._client.call_s3("create_bucket", Bucket=bucket)
        yield folder
