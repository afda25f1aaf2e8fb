"""Seeded splits: their sizes, that they repeat, and what cannot be split."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vpt.data.examples import Examples
from vpt.data.splits import few_shot, hold_out
from vpt.errors import DataError


def made(*counts):
    """Examples whose input is their number, `counts[c]` of class c, classes interleaved."""
    labels = sorted((y for y, count in enumerate(counts) for _ in range(count)), key=lambda y: y)
    labels = labels[::2] + labels[1::2]
    return Examples(lambda i: i, labels, [f"class {c}" for c in range(len(counts))])


def inputs(examples):
    return [examples[i][0] for i in range(len(examples))]


@pytest.mark.parametrize("shots", [1, 2, 5])
def test_few_shot_takes_k_of_each_class(shots):
    data = made(9, 5, 7)
    part = few_shot(data, shots, seed=3)
    assert Counter(part.targets) == {0: shots, 1: shots, 2: shots}
    assert len(set(inputs(part))) == 3 * shots
    assert all(data.labels[x] == y for x, y in zip(inputs(part), part.targets, strict=True))


def test_few_shot_is_drawn_by_its_seed():
    data = made(30, 30)
    drawn = [inputs(few_shot(data, 3, seed)) for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]


@pytest.mark.parametrize("shots", [0, -1])
def test_few_shot_needs_one_or_more(shots):
    with pytest.raises(DataError, match=rf"shots={shots}; needed is at least 1"):
        few_shot(made(3, 3), shots)


def test_few_shot_names_the_class_that_is_too_small():
    with pytest.raises(DataError, match=r"Class 'class 1' has 2 training examples; needed are 3"):
        few_shot(made(9, 2), 3)
    with pytest.raises(DataError, match=r"'b' has 0"):
        few_shot(Examples(lambda i: i, [0, 0], ["a", "b"]), 1)


@pytest.mark.parametrize("share", [0.1, 0.2, 0.5])
def test_hold_out_is_stratified_and_loses_nothing(share):
    data = made(40, 20, 20)
    rest, held = hold_out(data, share, seed=1)
    assert sorted(inputs(rest) + inputs(held)) == list(range(80))
    assert Counter(held.targets) == {0: 40 * share, 1: 20 * share, 2: 20 * share}


def test_hold_out_is_drawn_by_its_seed():
    drawn = [inputs(hold_out(made(20, 20), 0.2, seed)[1]) for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]


@settings(derandomize=True, max_examples=25, deadline=None)
@given(st.integers(2, 6), st.integers(2, 12), st.floats(0.01, 0.5))
def test_equal_classes_each_give_at_least_one(classes, each, share):
    rest, held = hold_out(made(*[each] * classes), share)
    assert set(held.targets) == set(rest.targets) == set(range(classes))
    assert len(rest) + len(held) == classes * each


@pytest.mark.parametrize(("counts", "share"), [((100, 2), 0.2), ((500, 30, 3), 0.1)])
def test_small_classes_give_at_least_one_too(counts, share):
    rest, held = hold_out(made(*counts), share)
    assert set(held.targets) == set(rest.targets) == set(range(len(counts)))


def test_no_class_is_held_out_whole():
    rest, _ = hold_out(made(100, 2), 0.9)
    assert set(rest.targets) == {0, 1}


@pytest.mark.parametrize("share", [0, 1, -0.1, 1.5, float("nan")])
def test_hold_out_needs_a_share(share):
    with pytest.raises(
        DataError, match=rf"Found a test share of {share}; needed is a number between 0 and 1"
    ):
        hold_out(made(9, 9), share, what="test")


def test_hold_out_names_classes_that_are_too_small():
    with pytest.raises(
        DataError,
        match=r"fewer than 2 examples.*validation: 'class 1' \(1\), 'class 2' \(1\)\. Add examples",
    ):
        hold_out(made(9, 1, 1), 0.2)
