"""What happens at which update: pure functions of seed and position."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vpt.training.plan import batches, chunks, schedule, seed_for

few = settings(derandomize=True, max_examples=60, deadline=None)


def flat(lists):
    return [x for one in lists for x in one]


def test_seeds_repeat_and_differ_by_place():
    places = [(s, e, u) for s in range(6) for e in range(6) for u in range(6)] + [
        (1, 23),
        (12, 3),
        (123,),
        (1, 2, 3, 4),
    ]
    seeds = [seed_for(*place) for place in places]
    assert len(set(seeds)) == len(set(places))
    assert seeds == [seed_for(*place) for place in places]
    assert all(0 <= seed < 2**63 for seed in seeds)


@few
@given(st.integers(0, 200), st.integers(1, 50), st.integers(0, 2**31), st.integers(0, 1000))
def test_batches_are_a_permutation_cut(count, size, seed, epoch):
    cut = batches(count, size, seed, epoch)
    assert sorted(flat(cut)) == list(range(count))
    assert [len(batch) for batch in cut] == [size] * (count // size) + [count % size] * (
        count % size > 0
    )
    assert cut == batches(count, size, seed, epoch)


def test_batches_differ_by_seed_and_epoch():
    orders = [flat(batches(50, 7, seed, epoch)) for seed, epoch in ((0, 0), (0, 1), (1, 0), (1, 1))]
    assert len({tuple(order) for order in orders}) == 4
    assert list(range(50)) not in orders


def test_the_order_does_not_depend_on_the_batch_size():
    assert flat(batches(50, 7, 3, 2)) == flat(batches(50, 50, 3, 2))


@few
@given(st.lists(st.integers(0, 999), max_size=40), st.integers(1, 5), st.integers(1, 5))
def test_chunks_together_are_the_batch(batch, processes, accumulate):
    parts = [chunks(batch, process, processes, accumulate) for process in range(processes)]
    assert all(len(part) == accumulate for part in parts)
    pieces = flat(parts)
    assert flat(pieces) == batch
    assert max(map(len, pieces)) - min(map(len, pieces)) <= 1
    assert all(isinstance(i, int) for i in flat(pieces))


def test_chunks_by_hand():
    assert chunks([5, 6, 7, 8, 9], 0, 2, 2) == [[5, 6], [7]]
    assert chunks([5, 6, 7, 8, 9], 1, 2, 2) == [[8], [9]]
    assert chunks([5], 1, 2, 1) == [[]]
    assert chunks([5, 6], 0, 1, 1) == [[5, 6]]


@few
@given(st.integers(1, 300), st.floats(0, 0.9))
def test_the_schedule_rises_to_one_and_falls_but_never_to_zero_before_the_end(total, warmup):
    rising = math.ceil(warmup * total)
    values = [schedule(update, total, warmup) for update in range(total)]
    assert all(0 < value <= 1 for value in values)
    assert values[:rising] == sorted(values[:rising])
    assert values[rising:] == sorted(values[rising:], reverse=True)
    if rising < total:
        assert max(values) == values[rising] == 1
    assert schedule(total, total, warmup) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("total", [1, 2, 10])
def test_a_schedule_of_warm_up_only_never_reaches_zero_or_one(total):
    assert all(0 < schedule(update, total, 1.0) < 1 for update in range(total))


def test_the_schedule_by_hand():
    values = [schedule(update, 6, 1 / 3) for update in range(7)]
    assert values == pytest.approx(
        [1 / 3, 2 / 3, 1, (2 + math.sqrt(2)) / 4, 0.5, (2 - math.sqrt(2)) / 4, 0]
    )
    assert schedule(0, 1, 0.0) == 1
