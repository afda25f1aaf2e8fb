"""An audit of a classifier by group: every number with a bootstrap interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from vpt.errors import DataError
from vpt.metrics.comparing import share_interval
from vpt.metrics.groups import counted, rates_of_sums
from vpt.sites import Config

BLOCK = 1 << 22  # counts drawn at once
SMALL = 20  # examples in a cell under which its rate says little


@dataclass(frozen=True)
class Interval:
    """A value between its percentiles; None for what cannot be said."""

    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class GroupRates:
    """How many examples a group has, their accuracy, and how often each class is predicted."""

    n: int
    accuracy: float
    selected: dict[str, float]


@dataclass(frozen=True)
class Cell:
    """How many examples have a label and a group, and their accuracy with its interval of 95 %
    (Wilson's); None where there are none.
    """

    n: int
    accuracy: float | None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Audit:
    """Whom a classifier serves worse.

    metrics: every number of `TITLES`. per_group: by group. cells: by label, then group.
        worst_group, empty, small: cells as (label, group). positive: of two classes, the one whose
        rates count; None for more.
    """

    n: int
    metrics: dict[str, Interval]
    per_group: dict[str, GroupRates]
    cells: dict[str, dict[str, Cell]]
    worst_group: tuple[str, str]
    positive: str | None
    empty: list[tuple[str, str]]
    small: list[tuple[str, str]]

    def value(self, metric: str) -> float:
        """One of the metrics; NaN where it could not be said."""
        value = self.metrics[metric].value
        return float("nan") if value is None else value

    def as_dict(self) -> Config:
        """All of it in plain values, by the names above."""
        return asdict(self)


def audit(
    y: Sequence[int],
    predicted: Sequence[int],
    group: Sequence[int],
    classes: Sequence[str],
    group_names: Sequence[str],
    *,
    positive: str | None = None,
    draws: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Audit:
    """Labels, predictions and groups `[n]` (numbers) → every number of `TITLES` with a bootstrap
    interval, and what it rests on.

    Intervals of a gap lie too high: a redrawing adds noise to each group's rate, and the largest
    difference of noisy rates is never below zero, so that a gap of 0 is never inside (fairlearn's
    bootstrap has the same bias). Raises `DataError`.

    y: the labels, numbers into `classes`.
    predicted: the classes that were said, numbers too.
    group: numbers into `group_names`.
    classes: names of the classes, two at least.
    group_names: names of the groups.
    positive: of two classes, the one whose rates count; the second by default.
    draws: how often the examples are redrawn.
    level: share of the redrawings between the two percentiles.
    seed: of the redrawings.
    """
    _check(len(y), classes, positive, draws, level)
    shape = (len(group_names), len(classes))
    places, counts = counted(y, predicted, group, len(classes), len(group_names))
    number = list(classes).index(positive) if positive is not None else None
    right, sizes, said = (part[0] for part in sums_at(counts[None], places, *shape))
    values = rates_of_sums(right, sizes, said, number)
    drawn = redrawn(places, counts, shape, number, draws, seed)
    tails = [50 * (1 - level), 50 * (1 + level)]
    present = [g for g in range(len(group_names)) if sizes[g].sum()]
    labels = [c for c in range(len(classes)) if sizes[:, c].sum()]
    cells = [(c, g) for c in labels for g in present]
    known = [cell for cell in cells if sizes[cell[::-1]]]
    worst = min(known, key=lambda cell: _rate(cell, right, sizes))

    def names(cell: tuple[int, int]) -> tuple[str, str]:
        return classes[cell[0]], group_names[cell[1]]

    return Audit(
        n=len(y),
        metrics={name: interval_of(float(v), drawn[name], tails) for name, v in values.items()},
        per_group={group_names[g]: _group(right[g], sizes[g], said[g], classes) for g in present},
        cells={
            classes[c]: {group_names[g]: _cell(right[g, c], sizes[g, c]) for g in present}
            for c in labels
        },
        worst_group=names(worst),
        positive=(positive or classes[1]) if len(classes) == 2 else None,
        empty=[names(cell) for cell in cells if not sizes[cell[::-1]]],
        small=[names(cell) for cell in cells if 0 < sizes[cell[::-1]] < SMALL],
    )


def _check(
    examples: int, classes: Sequence[str], positive: str | None, draws: int, level: float
) -> None:
    """Raise `DataError` for what cannot be audited so."""
    if isinstance(draws, bool) or not isinstance(draws, int) or draws < 1 or not 0 < level < 1:
        raise DataError(
            f"Found draws={draws!r}, level={level!r}; needed are a whole number of draws and a"
            " level between 0 and 1."
        )
    if positive is not None and positive not in classes:
        raise DataError(f"Found positive={positive!r}; the classes are {', '.join(classes)}.")
    if positive is not None and len(classes) > 2:
        raise DataError(
            f"Found positive={positive!r} with {len(classes)} classes; it is for two, of more the"
            " worst is given."
        )
    if not examples or len(classes) < 2:
        raise DataError(
            f"Found {examples} examples of {len(classes)} classes to audit; needed are two classes"
            " at least."
        )


def redrawn(
    places: tuple[np.ndarray, ...],
    counts: np.ndarray,
    shape: tuple[int, int],
    positive: int | None,
    draws: int,
    seed: int,
) -> dict[str, np.ndarray]:
    """Every number of `TITLES` `[draws]` on redrawings of the examples.

    places: where the counts stand, `[K]` each: group, label, prediction.
    counts: how often each of these comes up `[K]`.
    shape: (groups, classes).
    positive: the number of the class whose rates count, of two.
    draws: how many redrawings.
    seed: of the redrawings.
    """
    generator = np.random.default_rng(seed)
    block = max(1, BLOCK // max(len(counts), shape[0] * shape[1]))
    total = int(counts.sum())
    parts = []
    for size in [block] * (draws // block) + [draws % block]:
        again = generator.multinomial(total, counts / total, size=size)
        parts.append(rates_of_sums(*sums_at(again, places, *shape), positive))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def sums_at(
    counts: np.ndarray, places: tuple[np.ndarray, ...], groups: int, classes: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Counts `[draws, K]` at their places → rightly predicted, of each label, of each prediction
    `[draws, groups, classes]`.
    """
    group, label, said = places
    right = label == said

    def by_class(counts: np.ndarray, group: np.ndarray, c: np.ndarray) -> np.ndarray:
        sums = _summed(counts, group * classes + c, groups * classes)
        return sums.reshape(len(counts), groups, classes)

    return (
        by_class(counts[:, right], group[right], label[right]),
        by_class(counts, group, label),
        by_class(counts, group, said),
    )


def _summed(values: np.ndarray, to: np.ndarray, count: int) -> np.ndarray:
    """Columns of `[draws, n]` added up by the number that each goes to: `[draws, count]`."""
    sums = np.zeros((len(values), count))
    order = np.argsort(to, kind="stable")
    where, starts = np.unique(to[order], return_index=True)
    if len(where):
        sums[:, where] = np.add.reduceat(values[:, order], starts, axis=1)
    return sums


def _rate(cell: tuple[int, int], right: np.ndarray, sizes: np.ndarray) -> float:
    """Accuracy of a cell (label, group) that has examples."""
    label, group = cell
    return float(right[group, label] / sizes[group, label])


def _group(
    right: np.ndarray, sizes: np.ndarray, said: np.ndarray, classes: Sequence[str]
) -> GroupRates:
    size = sizes.sum()
    selected = {name: float(count / size) for name, count in zip(classes, said, strict=True)}
    return GroupRates(int(size), float(right.sum() / size), selected)


def _cell(right: float, size: float) -> Cell:
    if not size:
        return Cell(0, None)
    return Cell(int(size), float(right / size), *share_interval(float(right), float(size)))


def interval_of(value: float, drawn: np.ndarray, tails: list[float]) -> Interval:
    """A value between its percentiles among what was drawn."""
    known = drawn[~np.isnan(drawn)]
    low, high = np.percentile(known, tails).tolist() if len(known) else (None, None)
    return Interval(None if np.isnan(value) else value, low, high)
