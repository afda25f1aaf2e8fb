"""Pictures of numbers: valid PNG of a sensible size that show what they should."""

from __future__ import annotations

import numpy as np
import pytest
from drawings import opened, share

from vpt.report import pictures

ROWS = [
    {
        "epoch": e,
        "loss": 1.0 / (e + 1),
        "val_loss": 1.2 / (e + 1),
        "train_accuracy": 0.5 + 0.1 * e,
        "val_accuracy": 0.4 + 0.1 * e,
    }
    for e in range(4)
]
GOOD, SOFT = [0xC1, 0x44, 0x0E], [0x8D, 0x99, 0xAE]


def test_curves_of_a_run():
    pixels = opened(
        pictures.curves(ROWS, 2, {"linear probe": 0.6, "nearest mean": 0.3}, "shallow:5")
    )
    assert pixels.shape == (round(3.4 * 140), 8 * 140, 3)
    for half in np.split(pixels, 2, axis=1):
        assert share(half, GOOD) > 0.0005
        assert share(half, SOFT) > 0.0005


@pytest.mark.parametrize("rows", [[], ROWS[:1], [{"epoch": 0}], [{"epoch": 0, "loss": 2.0}]])
def test_curves_of_short_runs(rows):
    assert opened(pictures.curves(rows, 0, {}, "none")).shape == (476, 1120, 3)


def test_curves_show_what_was_measured_and_the_epoch_that_was_kept():
    bare = [{name: value for name, value in row.items() if "val" not in name} for row in ROWS]
    assert share(opened(pictures.curves(bare, -1, {}, "t")), GOOD) == 0
    with_best, without = (opened(pictures.curves(bare, best, {}, "t")) for best in (2, -1))
    assert (with_best != without).any()
    assert (opened(pictures.curves(bare, -1, {"probe": 0.1}, "t")) != without).any()


def test_every_baseline_is_drawn():
    three = {"a": 0.1, "b": 0.2, "c": 0.3}
    drawn = [opened(pictures.curves(ROWS, 2, lines, "t")) for lines in (three, {**three, "d": 0.9})]
    assert (drawn[0] != drawn[1]).any()


def test_a_line_for_each_method_of_a_sequence():
    one = opened(pictures.sequence({"coda": [[0.9, 0.7, 0.5], [0.8, 0.6, 0.4]]}, "two runs"))
    two = opened(
        pictures.sequence(
            {"coda": [[0.9, 0.7, 0.5]], "joint": [[0.6]], "ridge": [[0.9, 0.8, 0.7]]},
            "three methods",
        )
    )
    assert one.shape == two.shape
    ink = [len(np.unique(picture.reshape(-1, 3), axis=0)) for picture in (one, two)]
    assert ink[1] > ink[0]  # more colours
    assert opened(pictures.sequence({"joint": [[0.6]]}, "one number")).shape == one.shape


def test_bars_of_groups_leave_out_what_is_empty():
    def audit(*accuracies):
        cells = [{"accuracy": accuracy} for accuracy in accuracies]
        return {"cells": {"cat": {"f": cells[0], "m": cells[1]}}}

    full = opened(pictures.group_bars(audit(0.5, 0.9), audit(0.7, 0.8), "t"))
    empty = opened(pictures.group_bars(audit(0.5, None), audit(0.7, None), "t"))
    assert share(full, GOOD) > share(empty, GOOD) > 0.01
    assert share(full, SOFT) > share(empty, SOFT) > 0.01


def test_a_tradeoff_marks_the_chosen_point():
    points = [
        ("0", (0.3, 0.2, 0.4), (0.9, 0.85, 0.95)),
        ("1", (0.1, 0.05, 0.2), (0.8, 0.7, 0.9)),
    ]
    bare = (0.4, 0.3, 0.5), (0.9, 0.8, 1.0)
    drawn = [
        opened(pictures.tradeoff(points, {"bare": bare}, chosen, "gap", "t")) for chosen in (0, 1)
    ]
    assert (drawn[0] != drawn[1]).any()
    with pytest.raises(IndexError):
        pictures.tradeoff(points, {}, 2, "gap", "t")


def test_costs_are_bars_and_what_was_not_measured_is_none():
    both = opened(pictures.costs([("ours", (1.2, 1.1, 1.3), (2.0, 1.9, 2.1))], "t"))
    one = opened(pictures.costs([("ours", (1.2, 1.1, 1.3), None)], "t"))
    assert share(both, GOOD) > 0.05
    assert share(one, GOOD) < 0.01  # of the legend
