"""The same twenty expectations by Great Expectations on pandas and on Spark, by pandera, and by SQL written by hand for DuckDB. Run in a process each."""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from data import COUNTRIES, EMAIL, STATES, SUITE


def gx_suite():
    import great_expectations as gx

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}
    from great_expectations.expectations.expectation_configuration import ExpectationConfiguration

    suite = gx.ExpectationSuite("orders")
    for one in SUITE["expectations"]:
        kwargs = dict(one["kwargs"])
        for bound in ("min_value", "max_value"):
            if isinstance(kwargs.get(bound), str):
                import datetime

                kwargs[bound] = datetime.datetime.fromisoformat(kwargs[bound])
        suite.add_expectation(ExpectationConfiguration(type=one["type"], kwargs=kwargs).to_domain_obj())
    return context, suite


def gx_pandas(path):
    import pandas as pd

    frame = pd.read_parquet(path)
    context, suite = gx_suite()
    asset = context.data_sources.add_pandas("p").add_dataframe_asset("a")
    batch = asset.add_batch_definition_whole_dataframe("b").get_batch({"dataframe": frame})

    def run():
        found = batch.validate(suite)
        return [bool(r.success) for r in found.results].count(True)

    return run


def gx_spark(path):
    from pyspark.sql import SparkSession

    spark = (
        SparkSession.builder.master("local[2]")
        .config("spark.driver.memory", "4g")
        .config("spark.ui.enabled", "false")
        .getOrCreate()
    )
    spark.sparkContext.setLogLevel("ERROR")
    frame = spark.read.parquet(str(path))
    context, suite = gx_suite()
    asset = context.data_sources.add_spark("s").add_dataframe_asset("a")
    batch = asset.add_batch_definition_whole_dataframe("b").get_batch({"dataframe": frame})

    def run():
        found = batch.validate(suite)
        return [bool(r.success) for r in found.results].count(True)

    return run


def pandera(path):
    import pandas as pd
    import pandera.pandas as pa
    from pandera import Check

    frame = pd.read_parquet(path)
    whole = lambda test: Check(test)  # noqa: E731
    schema = pa.DataFrameSchema(
        {
            "id": pa.Column(None, [whole(lambda s: s.is_monotonic_increasing)], unique=True, nullable=False),
            "age": pa.Column(None, [Check.in_range(0, 120), whole(lambda s: 30 <= s.mean() <= 80)]),
            "amount": pa.Column(
                None,
                [
                    Check.in_range(0, 5000),
                    whole(lambda s: 1 <= s.std() <= 100),
                    whole(lambda s: 100 <= s.max() <= 5000),
                    whole(lambda s: s.notna().mean() >= 0.9),
                ],
                nullable=True,
            ),
            "score": pa.Column(
                None,
                [Check.in_range(-1, 2), whole(lambda s: 0.4 <= s.median() <= 0.6), whole(lambda s: -1 <= s.min() <= 1)],
            ),
            "country": pa.Column(None, [Check.isin(COUNTRIES), Check.str_length(2, 2)]),
            "state": pa.Column(
                None, [whole(lambda s: set(s.unique()) == set(STATES)), whole(lambda s: s.mode()[0] in STATES)]
            ),
            "email": pa.Column(None, [Check.str_contains(EMAIL), Check.str_length(5, 60)]),
            "created": pa.Column(None, [Check.in_range(pd.Timestamp("2024-01-01"), pd.Timestamp("2025-01-01"))]),
        },
        checks=[Check(lambda df: len(df) >= 1)],
    )

    def run():
        try:
            schema.validate(frame, lazy=True)
        except pa.errors.SchemaErrors as error:
            return f"{len(error.failure_cases)} failure cases"
        return "passed"

    return run


def duckdb(path):
    import duckdb

    base = duckdb.connect()
    base.execute("set threads = 2")
    countries = ", ".join(f"'{c}'" for c in COUNTRIES)
    sql = f"""
    select count(*), count(*) - count(id), count(distinct id), count(*) filter (age < 0 or age > 120), avg(age),
      count(*) - count(amount), count(*) filter (amount < 0 or amount > 5000), stddev_samp(amount), max(amount),
      count(*) filter (score < -1 or score > 2), quantile_cont(score, 0.5), min(score),
      count(*) filter (country not in ({countries})), count(*) filter (length(country) <> 2),
      list(distinct state), mode(state),
      count(*) filter (not regexp_matches(email, '{EMAIL}')), count(*) filter (length(email) < 5 or length(email) > 60),
      count(*) filter (created < timestamp '2024-01-01' or created > timestamp '2025-01-01')
    from '{path}/*.parquet'
    """
    increasing = f"select count(*) filter (id < before) from (select id, lag(id) over (order by filename, file_row_number) as before from read_parquet('{path}/*.parquet', file_row_number = true, filename = true))"

    def run():
        row = base.execute(sql).fetchone()
        (wrong,) = base.execute(increasing).fetchone()
        return f"{row[3]} ages, {row[16]} e-mails wrong, {wrong} ids out of order"

    return run


def main():
    name, path = sys.argv[1], Path(sys.argv[2])
    run = {"gx_pandas": gx_pandas, "gx_spark": gx_spark, "pandera": pandera, "duckdb": duckdb}[name](path)
    times, cpu, said = [], [], None
    for _ in range(int(sys.argv[3])):
        started, before = time.perf_counter(), time.process_time()
        said = run()
        times.append(time.perf_counter() - started)
        cpu.append(time.process_time() - before)
    found = {"times": times, "said": said, "rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024}
    if name != "gx_spark":  # its work is done by a Java process
        found["cpu"] = min(cpu)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
