"""The arithmetic of a bench report, and its plain values."""

from __future__ import annotations

import json

import pytest
from bench_reports import OPERATIONS, SECONDS, STARTUP, report

from vpt.bench.report import Late, costs_of, interval


def test_ratios_are_taken_round_by_round() -> None:
    costs = costs_of(SECONDS, OPERATIONS)
    assert costs["ours 3 train"].plain[0] == 2.0
    assert costs["ours 3 train"].insert is not None
    assert costs["ours 3 train"].insert[0] == 0.5
    assert costs["ours 3 train"].operations == 2.5
    assert costs["insert 3 train"].plain == (4.0, 4.0, 4.0)
    assert "insert" not in costs["insert 3 train"].as_dict()
    assert interval([1.0, 2.0, 9.0], [1.0, 1.0, 1.0]) == (2.0, 1.0, 9.0)


def test_rounds_of_another_number_are_refused() -> None:
    with pytest.raises(ValueError, match="broadcast"):
        interval([1.0, 2.0], [1.0, 2.0, 3.0])
    with pytest.raises(KeyError, match="plain infer"):
        costs_of({"probe train": [1.0]}, {"probe train": 1})


def test_what_was_not_measured_is_not_in_the_plain_values() -> None:
    values = json.loads(json.dumps(report(late=None, memory=None).as_dict()))
    assert "late" not in values
    assert "memory" not in values
    assert values["import"] == STARTUP
    late = Late((3, 3), 5, 20, reason="its first blocks cannot be skipped")
    values = report(late=late, memory={"ours 3 train": 1}).as_dict()
    assert list(values["late"]) == ["blocks", "tokens", "images", "off", "on", "reason"]
    assert values["memory"] == {"ours 3 train": 1}
