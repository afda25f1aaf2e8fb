"""When training has left its start: not at one odd batch, not late in a run, but before an hour is
lost.
"""

from __future__ import annotations

import math

import pytest

from vpt.training.steadying import RECENT, leaves, noted, watched


def left(*losses: float) -> bool:
    """Whether the last of these losses, one per update, makes it leave."""
    remembered: list[float] = []
    for loss in losses:
        remembered = noted(remembered, loss)
    return leaves(remembered)


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ((0.1, 0.1, 0.1, 0.1, 0.1), False),
        ((0.11, 1.9, 4.0, 8.0, 9.9), True),  # as it was seen on a real model
        ((0.11, 9.9, 0.1, 0.1, 0.1, 0.1), False),  # one batch of odd examples
        # from a probe that is sure of all: up to a nat is nothing yet
        ((0.0, 0.9, 0.9, 0.9, 0.9), False),
        ((2.3, 5.0, 5.2, 5.4, 5.4), False),  # from an untrained readout: less than twice as far
        ((2.3, 5.0, 6.0, 7.0, 8.0), True),
        ((0.1, 5.0, 5.0), False),  # too few to say
        ((0.1, 50.0), False),
        ((0.1, 50.0, 50.0), True),  # so far that two are enough
        ((0.1, math.nan), True),
        ((math.inf,), True),
        ((0.11, 9.9, 9.9, 9.9, 9.9), True),
    ],
)
def test_what_counts_as_leaving(losses: tuple[float, ...], expected: bool) -> None:
    assert left(*losses) is expected


def test_what_is_remembered_does_not_grow() -> None:
    remembered: list[float] = []
    for number in range(100):
        remembered = noted(remembered, float(number))
    assert remembered == [0.0, *map(float, range(100 - RECENT, 100))]


@pytest.mark.parametrize(("total", "last"), [(1, 0), (4, 3), (10, 3), (100, 29), (1001, 300)])
def test_the_first_updates_are_watched(total: int, last: int) -> None:
    assert [watched(number, total) for number in range(total)] == [
        number <= last for number in range(total)
    ]
