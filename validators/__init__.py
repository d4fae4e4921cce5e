"""Validation: Great Expectations suites over Arrow batches, in one bounded pass, with results in Great Expectations' own shape.

    verdict = gristmill.validate(data, suite)      # api.py: the whole of it in thirty lines
    verdict.success, verdict.to_json_dict()        # verdict.py
    for table in verdict.bad_rows(): ...           # row, shard, shard_row, expectations: every bad row, no cap

How the parts fit, from the outside in:

| module | what comes out of it |
|---|---|
| `api` | `validate`: data and suite in, a `Verdict` out |
| `inputs` | `open_data(anything)`: a `Data` whose shards are read as Arrow batches with their place; for profile and drift too |
| `suites` | `load_suite(anything)`: a `Suite` of checked `Entry`s, with its hash |
| `expectations/` | one frozen model per expectation type: its parameters, the accumulators it needs, its result |
| `accumulators`, `distinct`, `numbers` | mergeable states: counts, failing rows, exact sums, hashes, order statistics |
| `approximate`, `sketches` | estimates with their error, for those who ask |
| `columns`, `conditions`, `patterns` | what is worked out once per column and batch: null mask, numbers, text, hashes; row conditions; regexes |
| `evaluate` | the passes: pieces of shards in parallel, states merged in the order of rows |
| `remote` | Dask and Spark frames: partitions are evaluated where they are, their states merged |
| `states` | states kept beside a dataset, by (shard sha256, accumulator): a new shard is read alone |
| `formats` | BOOLEAN_ONLY, BASIC, SUMMARY, COMPLETE, and JSON as Great Expectations writes it |
| `frames`, `handover` | the only users of pandas, Dask and Spark, and of Great Expectations itself |
| `verdict`, `quarantine` | the result; good and bad rows |

An error while evaluating is a failure with its `exception_info`, never a pass. A result doesn't depend on how rows are cut into shards or batches.
"""
