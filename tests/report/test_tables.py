"""Tables of reports: what is said in a terminal, and what is unknown is a dash."""

from __future__ import annotations

from io import StringIO

import pytest
from rich.console import Console
from rich.table import Table

from vpt.metrics.groups import TITLES
from vpt.report.tables import audit_tables, map_text, report_table, tradeoff_tables


def scored(accuracy: float) -> dict:
    return {"accuracy": accuracy, "interval": (accuracy - 0.1, accuracy + 0.1)}


ADAPTED = {
    "method": "queries:4",
    "parts": {
        "test": {"methods": {"linear probe": scored(0.25), "queries:4": scored(0.8)}},
        "out_of_fold": {"methods": {"nearest mean": scored(0.5), "queries:4": scored(0.75)}},
    },
    "parameters_trained": {"prompt": 1000, "readout": 234},
}


def shown(*tables: Table) -> str:
    console = Console(width=120, record=True, file=StringIO())
    for table in tables:
        console.print(table)
    return console.export_text()


def audit(value: float | None = 0.5) -> dict:
    interval = {"value": value, "low": 0.25, "high": 0.75}
    cells = {"f": {"n": 3, "accuracy": 1 / 3}, "m": {"n": 0, "accuracy": None}}
    return {
        "n": 3,
        "positive": "cat",
        "metrics": dict.fromkeys(TITLES, interval),
        "per_group": {"f": {"n": 3, "accuracy": 1 / 3}, "m": {"n": 2, "accuracy": 0.5}},
        "cells": {"cat": cells},
    }


def test_a_run_beside_its_baselines() -> None:
    text = shown(report_table(ADAPTED))
    for words in ("nearest mean", "50.0% (40–60)", "25.0% (15–35)", "80.0% (70–90)", "1,234", "–"):
        assert words in text
    assert "out of fold" in text
    assert text.index("linear probe") < text.index("queries:4")
    with pytest.raises(StopIteration):
        report_table(ADAPTED | {"parts": {}})


def test_an_audit_says_what_its_rates_are_of() -> None:
    text = shown(*audit_tables(audit()))
    for words in ("rates are of 'cat'", "50.0 (25.0–75.0)", "0.500 (0.250–0.750)", "33.3% of 3"):
        assert words in text
    assert "each class against the rest" in shown(*audit_tables(audit() | {"positive": None}))
    assert "0.250" not in shown(*audit_tables(audit(None)))


def test_a_tradeoff_marks_what_was_chosen() -> None:
    point = {"val": audit(), "test": None}
    report = {
        "prompt": "a border",
        "gap": "equalized_odds_difference",
        "base": point,
        "points": [
            point | {"name": "plain", "strength": None},
            point | {"name": "one", "strength": 1.0},
        ],
        "chosen": "one",
        "thresholds": point,
    }
    text = shown(*tradeoff_tables(report))
    for words in (
        "bare model",
        "accuracy alone",
        "1 ← chosen",
        "group thresholds",
        "3 validation examples",
        "33.3%   │ 33.3%",
        "–       │ –",
    ):
        assert words in text
    with pytest.raises(StopIteration):
        tradeoff_tables(report | {"chosen": "nothing"})


def test_a_map_is_cut_after_twenty_classes() -> None:
    mapping = {f"c{i}": [("dog", 0.75), ("cat\x1b", 0.25)] for i in range(23)}
    lines = map_text(mapping).splitlines()
    assert lines[0] == "c0: dog 75%, cat\\x1b 25%"
    assert len(lines) == 21
    assert lines[-1] == "and 3 more"
