"""Several tasks as one data set, and one as several."""

from __future__ import annotations

import pytest
import torch
from helpers import colours, six_classes

from vpt.data import Examples, balanced, joined, with_classes
from vpt.errors import DataError


def test_examples_labels_and_tasks() -> None:
    one, two = colours(9), six_classes(12).subset([1, 4, 7])
    both = joined({"colours": one, "six": two})
    assert both.classes == one.classes + two.classes
    assert both.group_names == ["colours", "six"]
    assert both.grouped == [0] * 9 + [1] * 3
    for i in range(12):
        source, j = (one, i) if i < 9 else (two, i - 9)
        x, y, _ = both[i]
        assert torch.equal(x, source[j][0])
        assert both.classes[y] == source.classes[source.targets[j]]
    again = joined({"six": two.subset([2]), "colours": one.subset([0])})
    assert torch.equal(again[0][0], two[2][0])


def test_every_task_as_often_as_the_largest() -> None:
    both = joined({"a": colours(9), "b": six_classes(6).subset([0, 1, 2, 3])})
    positions = balanced(both)
    assert [both.grouped[i] for i in positions] == [0] * 9 + [1] * 9
    # no class of a sorted task more often than another
    assert sorted(positions[9:]) == [9, 9, 9, 10, 10, 11, 11, 12, 12]


def test_some_classes_alone() -> None:
    found = with_classes(six_classes(12), ["blue left", "red right"])
    assert found.classes == ["blue left", "red right"]
    assert found.targets == [0, 1, 0, 1]
    assert torch.equal(found[0][0], six_classes(12)[2][0])


def test_wrong_input() -> None:
    for parts, message in (
        ({}, "no tasks"),
        ({"a": colours(9).subset([])}, "'a' has no examples"),
        ({"a": colours(9), "b": colours(9)}, "'blue' appears in the tasks a, b"),
        (
            {"a": colours(9), "b": Examples([0].__getitem__, [0], ["beep"], sample_rate=8000)},
            "sample rates",
        ),
    ):
        with pytest.raises(DataError, match=message):
            joined(parts)
