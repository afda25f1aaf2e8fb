"""Several tasks as one data set, and one as several."""

from __future__ import annotations

import pytest
import torch
from helpers import colours, six_classes

from vpt.data import Examples, balanced, joined, with_classes
from vpt.data.joining import appended
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


def test_parts_of_one_data_set_one_after_the_other() -> None:
    whole = colours(12)
    same = appended(whole.subset([0, 1, 2]), whole.subset([5]))
    assert same.indices == [0, 1, 2, 5]
    one, two = whole.subset([4, 5, 6]), colours(9, seed=1).subset([2, 3])
    both = appended(one, two)
    assert both.classes == whole.classes
    assert both.targets == one.targets + two.targets
    assert both.together is None
    for i, (source, j) in enumerate([(one, 0), (one, 1), (one, 2), (two, 0), (two, 1)]):
        assert torch.equal(both[i][0], source[j][0])
        assert both.name(i) == source.name(j)
    with pytest.raises(DataError, match="needed are the same"):
        appended(one, six_classes(6))


def test_what_belongs_together_still_does_in_both_parts() -> None:
    def part(units: list[int] | None) -> Examples:
        return Examples(lambda i: torch.zeros(3, 2, 2), [0, 1, 0], ["a", "b"], units=units)

    assert appended(part([3, 3, 5]), part([3, 4, 4])).together == [3, 3, 5, 9, 10, 10]
    assert appended(part([0, 0, 1]), part(None)).together == [0, 0, 1, 2, 3, 4]
    clip = Examples(
        lambda i: (torch.zeros(8), 8), [0, 1], ["a", "b"], groups=[0, 1], group_names=["x", "y"]
    )
    assert appended(clip, clip.subset([1])).grouped == [0, 1, 1]


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
