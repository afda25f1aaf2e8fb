"""What a change of decisions does to each group: differences in pairs, on the same examples."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vpt.metrics.audit import Interval, interval_of, sums_at
from vpt.metrics.groups import counted, rates_of_sums

BLOCK = 1 << 24  # numbers drawn at once


def changes(
    y: Sequence[int],
    before: Sequence[int],
    after: Sequence[int],
    group: Sequence[int],
    classes: Sequence[str],
    group_names: Sequence[str],
    *,
    positive: str | None = None,
    draws: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> dict[str, Interval]:
    """Every number of `vpt.metrics.groups.TITLES`, after less before, between percentiles of a
    bootstrap that redraws examples with both decisions.

    What noise does to a gap (`audit`) it does to both gaps alike, so that it falls out of their
    difference, but where one of them is 0. Raises `DataError`.

    y: labels `[n]`, numbers into `classes`.
    before, after: two decisions on each, likewise.
    group: numbers into `group_names`.
    classes: names of the classes, two at least.
    group_names: names of the groups.
    positive: of two classes, the one whose rates count; the second by default.
    draws: how often the examples are redrawn.
    level: share of the redrawings between the two percentiles.
    seed: of the redrawings.
    """
    shape = (len(group_names), len(classes))
    for decided in (before, after):
        counted(y, decided, group, shape[1], shape[0])  # refuses what is out of range
    number = list(classes).index(positive) if positive is not None else None
    kinds, often = np.unique(
        np.stack([group, y, before, after]).astype(int), axis=1, return_counts=True
    )
    total, generator = int(often.sum()), np.random.default_rng(seed)
    drawn = np.concatenate([often[None], generator.multinomial(total, often / total, size=draws)])
    old, new = (
        rates_of_sums(*sums_at(drawn, (kinds[0], kinds[1], decided), *shape), number)
        for decided in kinds[2:]
    )
    tails = [50 * (1 - level), 50 * (1 + level)]
    return {name: _paired(old[name], new[name], tails) for name in old}


def soft_changes(
    y: Sequence[int],
    before: np.ndarray,
    after: np.ndarray,
    group: Sequence[int],
    *,
    positive: int | None = None,
    draws: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> dict[str, Interval]:
    """As `changes`, but of probabilities `[n,C]` in place of decisions: a rate is the mean
    probability of a class.

    Many examples move a little, where few decisions turn over, so that it is known much better. It
    also falls where a model is only less sure: look at the decisions, too.

    y: labels `[n]`, numbers of the C classes.
    before, after: probabilities of each class.
    group: numbers from 0.
    positive: of two classes, the number of the one whose rates count; the second by default.
    draws: how often the examples are redrawn.
    level: share of the redrawings between the two percentiles.
    seed: of the redrawings.
    """
    labels, groups = np.asarray(y, int), np.asarray(group, int)
    count, classes, generator = len(labels), before.shape[1], np.random.default_rng(seed)
    inside = np.eye(groups.max() + 1)[groups]  # [n,G]
    true = np.eye(classes)[labels]
    found: list[list[dict[str, np.ndarray]]] = [[], []]
    left = draws
    weights = np.ones((1, count))  # as they are, and then redrawn
    while True:
        sizes = np.einsum("dn,ng,nc->dgc", weights, inside, true, optimize=True)
        for shares, values in zip((before, after), found, strict=True):
            right = np.einsum("dn,ng,nc->dgc", weights, inside, true * shares, optimize=True)
            said = np.einsum("dn,ng,nc->dgc", weights, inside, shares, optimize=True)
            values.append(rates_of_sums(right, sizes, said, positive))
        if not left:
            break
        some = min(left, max(1, BLOCK // count))
        weights = generator.multinomial(count, np.full(count, 1 / count), size=some).astype(float)
        left -= some
    tails = [50 * (1 - level), 50 * (1 + level)]
    old, new = (
        {name: np.concatenate([one[name] for one in values]) for name in values[0]}
        for values in found
    )
    return {name: _paired(old[name], new[name], tails) for name in old}


def _paired(old: np.ndarray, new: np.ndarray, tails: list[float]) -> Interval:
    """New less old: the first of both as things stand, between what redrawing gives."""
    return interval_of(float(new[0] - old[0]), new[1:] - old[1:], tails)
