"""What a bench report looks like in a terminal of 80 columns, and as a picture."""

from __future__ import annotations

from dataclasses import replace
from io import StringIO

import pytest
from bench_reports import report
from rich.console import Console
from rich.table import Table

from vpt.bench.report import Late
from vpt.bench.tables import bench_tables, cost_rows, picture

LATE = Late((5, 5), 3, 20, [2.0] * 3, [1.0] * 3, 2.5, (2.0, 1.9, 2.1))


def shown(*tables: Table) -> str:
    console = Console(width=80, record=True, file=StringIO())
    for table in tables:
        console.print(table)
    return console.export_text()


def test_the_tables_fit_a_terminal() -> None:
    text = shown(*bench_tables(report(LATE, {"ours 3 train": 61_000_000, "full train": 1.234e9})))
    assert "…" not in text
    for words in (
        "plain forward",
        "inserted, 3",
        "ours, 3",
        "full fine-tuning",
        "0.50",
        "61 MB",
        "1.2 GB",
        "2.00 times faster (1.90–2.10)",
        "beyond import torch 0.25 s",
    ):
        assert words in " ".join(text.split())


def test_a_model_that_cannot_skip_blocks_says_so() -> None:
    late = Late((5, 5), 3, 20, reason="its first blocks cannot be skipped")
    assert "cannot be skipped" in shown(bench_tables(report(late, None))[1])
    assert "late prompt" not in shown(bench_tables(report(None, None))[1])


def test_rows_go_by_kind_and_what_was_not_measured_is_none() -> None:
    rows = {name: (infer, train) for name, _, infer, train in cost_rows(report(None, None))}
    assert list(rows) == ["plain forward", "inserted, 3", "ours, 3", "full fine-tuning"]
    assert rows["plain forward"][1] is None
    assert rows["ours, 3"][0] is None


def test_a_picture_of_them_and_none_of_a_kind_that_is_unknown() -> None:
    made = report(LATE, None)
    assert picture(made).startswith(b"\x89PNG")
    odd = replace(
        made,
        seconds={**made.seconds, "other train": [1.0, 2.0, 4.0]},
        operations={**made.operations, "other train": 1},
    )
    with pytest.raises(ValueError, match="other"):
        cost_rows(odd)
