"""Whom a classifier serves worse: accuracy and fairness by group.

All of it is computed from one table of counts, group × label × prediction, so that a bootstrap is a
redrawing of that table: a thousand draws in milliseconds, where fairlearn's `MetricFrame` takes a
minute. On binary labels the values are fairlearn's, but where a group has no example of a label:
fairlearn takes that rate, 0 of 0, for 0, and here the group is left out of it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vpt.errors import DataError

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
    places, counts = counted(y, predicted, group, classes, groups)
    table = np.zeros((groups, classes, classes))
    table[places] = counts
    return table


def counted(
    y: Sequence[int], predicted: Sequence[int], group: Sequence[int], classes: int, groups: int
) -> tuple[tuple[np.ndarray, ...], np.ndarray]:
    """(places in that table `[K]` each: group, label, prediction; how often each comes up `[K]`):
    of many classes nearly all of it is empty. Raises `DataError`.
    """
    given = (("groups", group, groups), ("labels", y, classes), ("predictions", predicted, classes))
    rows = [_numbers(values, name) for name, values, _ in given]
    for (name, _, count), values in zip(given, rows, strict=True):
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
    array = np.asarray(values)
    whole = array.dtype.kind in "iub"
    if array.dtype.kind == "f":
        whole = bool(np.all(np.isfinite(array) & (array == np.round(array))))
    if array.ndim != 1 or not (whole or array.size == 0):
        odd = [v for v in array.ravel().tolist() if not isinstance(v, (int, float)) or v % 1 != 0]
        example = odd[0] if odd else array.shape
        raise DataError(
            f"Found {name} such as {example!r:.40}; needed is one whole number for each example."
        )
    return array.astype(np.int64)


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
    return rates_of_sums(
        np.diagonal(table, axis1=-2, axis2=-1), table.sum(-1), table.sum(-2), positive
    )


def rates_of_sums(
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
        np.where(np.isnan(gap), np.nan, _mean(np.abs(whole - each), -2))
        for whole, each, gap in triples
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
