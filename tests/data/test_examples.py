"""Labelled examples by index: subsets, groups, names, and what is refused."""

from __future__ import annotations

import pytest

from vpt.data.examples import Examples, same_groups
from vpt.errors import DataError


def same(x):
    return x


def example_set(**more):
    return Examples(lambda i: f"x{i}", [0, 1, 1, 0], ["cat", "dog"], **more)


def test_items_without_and_with_groups():
    assert [example_set()[i] for i in range(2)] == [("x0", 0), ("x1", 1)]
    assert example_set(groups=[5, 6, 7, 8], group_names=list("abcdefghi"))[2] == ("x2", 1, 7)


def test_subsets_of_subsets_keep_order_labels_groups_names():
    data = example_set(
        groups=[0, 1, 0, 1],
        group_names=["f", "m"],
        names=["n0", "n1", "n2", "n3"],
        sample_rate=8000,
        named=False,
    )
    part = data.subset([3, 2, 0]).subset([2, 0])
    assert len(part) == 2
    assert [part[i] for i in range(2)] == [("x0", 0, 0), ("x3", 0, 1)]
    assert part.targets == [0, 0]
    assert [part.name(i) for i in range(2)] == ["n0", "n3"]
    assert (part.sample_rate, part.named, part.group_names, part.classes) == (
        8000,
        False,
        ["f", "m"],
        ["cat", "dog"],
    )


def test_examples_without_names_are_called_by_number():
    assert example_set().subset([2]).name(0) == "2"


@pytest.mark.parametrize("labels", [[0, 2], [-1, 0], [7, 0]])
def test_labels_out_of_range_are_refused(labels):
    wrong = [y for y in labels if y not in (0, 1)]
    with pytest.raises(
        DataError, match=rf"Found labels \[{wrong[0]}\]; there are 2 classes, so labels are 0 to 1"
    ):
        Examples(same, labels, ["cat", "dog"])


def test_labels_out_of_range_do_not_matter_where_they_are_not_used():
    assert Examples(same, [0, -1, 1], ["cat", "dog"], indices=[0, 2]).targets == [0, 1]


def test_groups_are_numbered_by_name_over_all_parts():
    one = example_set(groups=[0, 1, 0, 1], group_names=["f", "m"])
    other = example_set(groups=[0, 0, 1, -1], group_names=["m", "x"])
    parts = same_groups({"train": one, "val": other, "test": example_set()})
    assert parts["val"].group_names == ["f", "m", "x"]
    assert parts["val"].groups == [1, 1, 2, -1]
    assert parts["test"].groups is None


def test_class_names_are_text():
    with pytest.raises(DataError, match="needed is a name, as text, for each"):
        Examples(same, [0], [7])
