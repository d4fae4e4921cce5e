"""The report of a run: for each rule its rows' number and the first of them, from the beginning of the ledger alone."""

from __future__ import annotations

import json
from pathlib import Path

from gristmill.pipelines import report
from gristmill.pipelines.report import examples

from .conftest import corpus, document, ledger_of, write_jsonl


def test_each_rule_has_its_first_rows_with_their_places(run, tmp_path):
    rows = [*corpus(8), *({"id": f"<{n}>", "text": "tiny"} for n in range(5))]
    write_jsonl(tmp_path / "in", rows, files=1, packed=False)
    with open(tmp_path / "in" / "part-00.jsonl", "a") as out:
        out.write("{broken\n")
    result = run(tmp_path / "in", id="id")
    page = Path(result.report_path)
    found = json.loads(page.with_suffix(".json").read_text())["examples"]
    ledger = ledger_of(result)
    assert {(step, rule) for step, rules in found.items() for rule in rules} == {(e["step"], e["rule"]) for e in ledger}
    for step, rules in found.items():
        for rule, told in rules.items():
            every = [(e["uid"], e["position"]) for e in ledger if (e["step"], e["rule"]) == (step, rule)]
            assert [(each["uid"], each["position"]) for each in told] == every[:3]
    assert [each["uid"] for each in found["filter"]["length(text) > 20"]] == ["<0>", "<1>", "<2>"]
    assert "<code>&lt;0&gt;</code>" in page.read_text() and "<0>" not in page.read_text()


def test_what_is_read_for_them_is_bounded(run, tmp_path, monkeypatch):
    rows = [{"id": f"{n}", "text": "tiny" if n % 2 else document(n)} for n in range(40)]
    write_jsonl(tmp_path / "in", rows, files=40)
    monkeypatch.setattr("gristmill.pipelines.sources.items.SMALL_BYTES", 0)
    monkeypatch.setattr(report, "EXAMPLE_FILES", 3)  # of five
    result = run(tmp_path / "in", id="id", steps=[{"step": "filter", "where": "length(text) > 20"}])
    opened: list[str] = []
    real = report.open_parquet
    monkeypatch.setattr(report, "open_parquet", lambda folder, path: (opened.append(path), real(folder, path))[1])
    told = examples(result.dataset.folder, result.dataset.manifest.ledger)["filter"]["length(text) > 20"]
    assert [each["uid"] for each in told] == ["1", "3", "5"] and len(opened) == 3
