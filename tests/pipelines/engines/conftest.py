"""A Spark session and Dask clusters for the tests of engines; without Java those of Spark skip and say so."""

from __future__ import annotations

import shutil
import sys

import pytest


@pytest.fixture(scope="session")
def java() -> str:
    pytest.importorskip("pyspark", reason="pyspark is absent: pip install 'gristmill[spark]'")
    found = shutil.which("java")
    if found is None:
        pytest.skip("JAVA IS ABSENT, so nothing of Spark is tested: apt-get install openjdk-17-jre-headless")
    return found


@pytest.fixture(scope="module")
def session(java):
    from pyspark.sql import SparkSession

    settings = {
        "spark.ui.enabled": "false",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.host": "127.0.0.1",
        "spark.sql.shuffle.partitions": "2",
    }
    builder = SparkSession.builder.appName("gristmill tests").master("local[2,4]")
    for key, value in settings.items():
        builder = builder.config(key, value)
    running = builder.getOrCreate()
    running.sparkContext.pythonExec = sys.executable
    running.sparkContext.setLogLevel("ERROR")
    yield running
    running.stop()


@pytest.fixture(scope="module")
def threads():
    from distributed import Client, LocalCluster

    with (
        LocalCluster(n_workers=1, threads_per_worker=3, processes=False, dashboard_address=None) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client


@pytest.fixture(scope="module")
def processes():
    from distributed import Client, LocalCluster

    with (
        LocalCluster(n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address=None) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client
