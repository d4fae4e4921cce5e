"""`erase`: rows leave a dataset for good."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from gristmill.cli.options import counted

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else there.")]


def register(app: typer.Typer) -> None:
    """Adds the commands of this module."""
    app.command()(erase)


def erase(
    dataset: Annotated[str, typer.Argument(help="The dataset's folder or URL.")],
    ids: Annotated[str | None, typer.Option(help="A text file with the _uid of a row a line.", metavar="FILE")] = None,
    where: Annotated[
        str | None, typer.Option(help="An expression over columns: rows for which it is true.", metavar="EXPR")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Erase rows: a new version without them, older ones that hold them refused, every later run told. `gc` then removes their bytes.

    What was dropped as a duplicate or near-duplicate of them, and what was made from them, is marked too: else the next run would keep nearly the same text.
    """
    from gristmill.pipelines.erase import erase as erase_rows
    from gristmill.pipelines.erase import read_ids

    receipt = erase_rows(dataset, ids=read_ids(ids) if ids is not None else None, where=where)
    if as_json:
        print(json.dumps(receipt))
        return
    print(
        f"{receipt['dataset']}: {counted(receipt['rows'], 'row')} erased, version {receipt['version']} is without them ({_marked(receipt)})"
    )
    if receipt["unseen"]:
        print(
            f"  never seen in this dataset: {receipt['unseen']} of the {counted(receipt['asked'], 'uid')}; marked all the same, but check the spelling"
        )
    if receipt["tainted"]:
        print(
            f"  refused from now on: version{'s' if len(receipt['tainted']) > 1 else ''} {', '.join(map(str, receipt['tainted']))}"
        )
    print(
        f"  receipt: {receipt['receipt']}\n  now: gristmill gc {receipt['dataset']}   (removes the bytes: old shards, ledgers, reports, work files)"
    )


def _marked(receipt: dict[str, Any]) -> str:
    text = f"{counted(receipt['marked'], 'uid')} marked"
    if receipt["followed"]:
        text += f", {receipt['followed']} of them dropped before as duplicates or near-duplicates of the others, or made from them"
    return text
