"""Whom a classifier serves worse: accuracy and fairness by group, each with a bootstrap interval.

All of it is computed from one table of counts, group × label × prediction, so that a bootstrap is a
redrawing of that table: a thousand draws in milliseconds, where fairlearn's `MetricFrame` takes a
minute. On binary labels the values are fairlearn's, but where a group has no example of a label:
fairlearn takes that rate, 0 of 0, for 0, and here the group is left out of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from vpt.errors import DataError

BLOCK = 1 << 22  # counts drawn at once
SMALL = 20  # examples in a cell under which its rate says little

# what is reported, and what it is called for people
TITLES = {
    "accuracy": "accuracy",
    "balanced_accuracy": "group-balanced accuracy (mean over label × group)",
    "worst_group_accuracy": "worst group's accuracy (label × group)",
    "demographic_parity_difference": "demographic parity difference",
    "demographic_parity_ratio": "demographic parity ratio",
    "equalized_odds_difference": "equalized odds difference",
    "equal_opportunity_difference": "equal opportunity difference",
    "average_odds_difference": "average odds difference",
    "fairreprogram_dp": "DP on FairReprogram's scale",
    "fairreprogram_eo": "EO on FairReprogram's scale",
}


def count_table(
    y: Sequence[int], predicted: Sequence[int], group: Sequence[int], classes: int, groups: int
) -> np.ndarray:
    """How often each comes up: `[groups, classes (label), classes (prediction)]`. Raises
    `DataError` for what is out of range.
    """
    places, counts = _counted(y, predicted, group, classes, groups)
    table = np.zeros((groups, classes, classes))
    table[places] = counts
    return table


def _counted(
    y: Sequence[int], predicted: Sequence[int], group: Sequence[int], classes: int, groups: int
) -> tuple[tuple[np.ndarray, ...], np.ndarray]:
    """(places in that table `[K]` each, how often each comes up `[K]`): of many classes nearly all
    of it is empty.
    """
    names = ("groups", "labels", "predictions")
    rows = [
        _numbers(values, name) for values, name in zip((group, y, predicted), names, strict=True)
    ]
    for name, values, count in zip(names, rows, (groups, classes, classes), strict=True):
        if len(values) != len(rows[0]):
            raise DataError(
                f"Found {len(values)} {name} for {len(rows[0])} groups; needed is one for each"
                " example."
            )
        if len(values) and not (values.min() >= 0 and values.max() < count):
            raise DataError(
                f"Found {name} from {values.min()} to {values.max()}; needed are numbers from 0 to"
                f" {count - 1}."
            )
    places, counts = np.unique(np.stack(rows), axis=1, return_counts=True)
    return tuple(places), counts


def _numbers(values: Sequence[int], name: str) -> np.ndarray:
    """Whole numbers `[n]`. Raises `DataError` for text, fractions and NaN, none of which is a class
    or a group.
    """
    found = np.asarray(values)
    whole = found.dtype.kind in "iub" or (
        found.dtype.kind == "f" and bool(np.all(np.isfinite(found) & (found == np.round(found))))
    )
    if found.ndim != 1 or not (whole or found.size == 0):
        example = next(
            (
                v
                for v in found.ravel().tolist()
                if not isinstance(v, (int, float)) or v != v or v % 1
            ),
            found.shape,
        )
        raise DataError(
            f"Found {name} such as {example!r:.40}; needed is one whole number for each example."
        )
    return found.astype(np.int64)


def rates(table: np.ndarray, positive: int | None = None) -> dict[str, np.ndarray]:
    """Every number of `TITLES` from counts `[…, groups, classes, classes]`; `[…]` each, NaN where
    nothing can be said.

    Of two classes, `positive` is the one whose rates count (the second by default). Of more, each
    stands against the rest and the worst is given (the largest difference, the least ratio). A
    group in which a rate is not defined is left out of it; with fewer than two groups left, so are
    the differences.

    Differences are those between the group with the highest and the one with the lowest rate, as in
    fairlearn: of the selection rate (demographic parity), of the true positive rate (equal
    opportunity), of that or the false positive rate, whichever is larger (equalized odds, Hardt et
    al. 2016), and their mean (average odds). FairReprogram (Zhang et al. 2022) plots the mean over
    groups of |rate − overall rate|, which for two groups is half of the difference:
    `fairreprogram_dp`; and the sum of it for false positives and false negatives, which for two
    groups is the average odds difference.
    """
    return _rates(np.diagonal(table, axis1=-2, axis2=-1), table.sum(-1), table.sum(-2), positive)


def _rates(
    right: np.ndarray, label: np.ndarray, said: np.ndarray, positive: int | None
) -> dict[str, np.ndarray]:
    """`rates` from counts `[…, groups, classes]`: rightly predicted, of each label, of each
    prediction.
    """
    classes = right.shape[-1]
    chosen = list(range(classes)) if classes > 2 else [1 if positive is None else positive]
    size = label.sum(-1)[..., None]
    hits, alarms, selected = (
        _share(part, whole)[..., chosen]
        for part, whole in (
            (right, label),
            (said - right, size - label),
            (said, np.broadcast_to(size, said.shape)),
        )
    )
    over = [
        _share(a.sum(-2), b.sum(-2))[..., None, chosen]
        for a, b in ((right, label), (said - right, size - label))
    ]
    overall = _share(said.sum(-2), size.sum(-2))[..., None, chosen]
    cells = _share(right, label).reshape(*right.shape[:-2], -1)
    parity, opportunity, alarm = _spread(selected), _spread(hits), _spread(alarms)
    ratio = np.where(np.isnan(parity), np.nan, _share(_least(selected, -2), _most(selected, -2)))
    triples = ((overall, selected, parity), (over[0], hits, opportunity), (over[1], alarms, alarm))
    apart = [
        np.where(np.isnan(gap), np.nan, _mean(np.abs(whole - own), -2))
        for whole, own, gap in triples
    ]
    return {
        "accuracy": _share(right.sum((-1, -2)), size.sum((-1, -2))),
        "balanced_accuracy": _mean(cells, -1),
        "worst_group_accuracy": _least(cells, -1),
        "demographic_parity_difference": _most(parity, -1),
        "demographic_parity_ratio": _least(ratio, -1),
        "equalized_odds_difference": _most(np.maximum(opportunity, alarm), -1),
        "equal_opportunity_difference": _most(opportunity, -1),
        "average_odds_difference": _most((opportunity + alarm) / 2, -1),
        "fairreprogram_dp": _most(apart[0], -1),
        "fairreprogram_eo": _most(apart[1] + apart[2], -1),
    }


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
) -> dict[str, Any]:
    """Labels, predictions and groups `[n]` (numbers) → every number of `TITLES` with a bootstrap
    interval, and what it rests on.

    {"n", "metrics": {name: {"value", "low", "high"}} (None where nothing can be said), "per_group":
    {group: {"n", "accuracy", "selected": {class: rate}}}, "cells": {label: {group: {"n",
    "accuracy"}}}, "worst_group": (label, group), "positive", "empty": [(label, group)], "small":
    [(label, group)]}. Intervals: percentiles of `draws` redrawings of the examples. Those of a gap
    lie too high: a redrawing adds noise to each group's rate, and the largest difference of noisy
    rates is never below zero, so that a gap of 0 is never inside (fairlearn's bootstrap has the
    same bias). Raises `DataError`.
    """
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
    if not len(y) or len(classes) < 2:
        raise DataError(
            f"Found {len(y)} examples of {len(classes)} classes to audit; needed are two classes at"
            " least."
        )
    places, counts = _counted(y, predicted, group, len(classes), len(group_names))
    number = list(classes).index(positive) if positive is not None else None
    right, sizes, said = (
        part[0] for part in _sums(counts[None], places, len(group_names), len(classes))
    )
    values = _rates(right, sizes, said, number)
    drawn = _drawn(places, counts, (len(group_names), len(classes)), number, draws, seed)
    tails = [50 * (1 - level), 50 * (1 + level)]
    present = [g for g in range(len(group_names)) if sizes[g].sum()]
    cells = [(label, g) for label in range(len(classes)) for g in present if sizes[:, label].sum()]
    worst = min(
        (p for p in cells if sizes[p[1], p[0]]), key=lambda p: right[p[1], p[0]] / sizes[p[1], p[0]]
    )
    name = lambda place: (classes[place[0]], group_names[place[1]])  # noqa: E731
    return {
        "n": len(y),
        "metrics": {k: _interval(float(v), drawn[k], tails) for k, v in values.items()},
        "per_group": {
            group_names[g]: _group(sizes[g].sum(), right[g].sum(), said[g], classes)
            for g in present
        },
        "cells": {
            classes[c]: {group_names[g]: _cell(sizes[g, c], right[g, c]) for g in present}
            for c in sorted({p[0] for p in cells})
        },
        "worst_group": name(worst),
        "positive": (positive or classes[1]) if len(classes) == 2 else None,
        "empty": [name(p) for p in cells if not sizes[p[1], p[0]]],
        "small": [name(p) for p in cells if 0 < sizes[p[1], p[0]] < SMALL],
    }


def _drawn(
    places: tuple[np.ndarray, ...],
    counts: np.ndarray,
    shape: tuple[int, int],
    positive: int | None,
    draws: int,
    seed: int,
) -> dict[str, np.ndarray]:
    """Every number of `TITLES` `[draws]` on redrawings of the counts. shape: (groups, classes)."""
    generator, block, parts = (
        np.random.default_rng(seed),
        max(1, BLOCK // max(len(counts), shape[0] * shape[1])),
        [],
    )
    total = int(counts.sum())
    for size in [block] * (draws // block) + [draws % block]:
        redrawn = generator.multinomial(total, counts / total, size=size)
        right, label, said = _sums(redrawn, places, *shape)
        parts.append(_rates(right, label, said, positive))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _sums(
    counts: np.ndarray, places: tuple[np.ndarray, ...], groups: int, classes: int
) -> list[np.ndarray]:
    """Counts `[draws, K]` at their places → rightly predicted, of each label, of each prediction
    `[draws, groups, classes]`.
    """
    group, label, said = places
    every, right = np.ones(len(group), bool), label == said
    found = [
        _summed(counts[:, keep], (group * classes + c)[keep], groups * classes)
        for c, keep in ((label, right), (label, every), (said, every))
    ]
    return [part.reshape(len(counts), groups, classes) for part in found]


def _summed(values: np.ndarray, to: np.ndarray, count: int) -> np.ndarray:
    """Columns of `[draws, n]` added up by the number that each goes to: `[draws, count]`."""
    sums = np.zeros((len(values), count))
    order = np.argsort(to, kind="stable")
    where, starts = np.unique(to[order], return_index=True)
    if len(where):
        sums[:, where] = np.add.reduceat(values[:, order], starts, axis=1)
    return sums


def _group(size: float, right: float, said: np.ndarray, classes: Sequence[str]) -> dict[str, Any]:
    selected = {name: float(count / size) for name, count in zip(classes, said, strict=True)}
    return {"n": int(size), "accuracy": float(right / size), "selected": selected}


def _cell(size: float, right: float) -> dict[str, Any]:
    return {"n": int(size), "accuracy": float(right / size) if size else None}


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """part / whole; NaN where there is nothing."""
    return np.divide(
        part, whole, out=np.full(np.broadcast(part, whole).shape, np.nan), where=whole > 0
    )


def _least(x: np.ndarray, axis: int) -> np.ndarray:
    return np.fmin.reduce(x, axis=axis)


def _most(x: np.ndarray, axis: int) -> np.ndarray:
    return np.fmax.reduce(x, axis=axis)


def _spread(x: np.ndarray) -> np.ndarray:
    """Highest less lowest over the groups `[…, groups, classes]`; NaN where fewer than two have a
    rate.
    """
    enough = (~np.isnan(x)).sum(-2) > 1
    return np.where(enough, _most(x, -2) - _least(x, -2), np.nan)


def _mean(x: np.ndarray, axis: int) -> np.ndarray:
    known = ~np.isnan(x)
    return _share(np.where(known, x, 0).sum(axis), known.sum(axis).astype(float))


def _interval(value: float, drawn: np.ndarray, tails: list[float]) -> dict[str, float | None]:
    """A value between its percentiles; None for what cannot be said."""
    known = drawn[~np.isnan(drawn)]
    low, high = np.percentile(known, tails).tolist() if len(known) else (None, None)
    return {"value": None if np.isnan(value) else value, "low": low, "high": high}
