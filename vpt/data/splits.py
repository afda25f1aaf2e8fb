"""Seeded splits: k examples of each class, and stratified shares."""

from __future__ import annotations

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold

from vpt.data.examples import Examples
from vpt.errors import DataError


def few_shot(examples: Examples, shots: int, seed: int = 0) -> Examples:
    """`shots` examples of each class, drawn with `seed`. Raises `DataError` for a class that has
    fewer.
    """
    if shots < 1:
        raise DataError(f"Found shots={shots}; needed is at least 1 example per class.")
    targets, generator = np.array(examples.targets), np.random.default_rng(seed)
    chosen: list[int] = []
    for label, name in enumerate(examples.classes):
        members = np.flatnonzero(targets == label)
        if len(members) < shots:
            raise DataError(
                f"Class {name!r} has {len(members)} training examples; needed are {shots} (shots)."
            )
        chosen += generator.permutation(members)[:shots].tolist()
    return examples.subset(sorted(chosen))


def hold_out(
    examples: Examples, share: float, seed: int = 0, what: str = "validation"
) -> tuple[Examples, Examples]:
    """(the rest, a share stratified by label, and by group where there are groups; both keep one
    example of each class).

    Examples of one unit (`examples.units`: copies of a file, or a person) stay on one side. Raises
    `DataError` for classes too small.
    """
    if not 0 < share < 1:
        raise DataError(f"Found a {what} share of {share}; needed is a number between 0 and 1.")
    targets = np.array(examples.targets)
    counts = np.bincount(targets, minlength=len(examples.classes)).tolist()
    small = [
        f"{name!r} ({count})"
        for name, count in zip(examples.classes, counts, strict=True)
        if count < 2
    ]
    if small:
        raise DataError(
            f"Classes with fewer than 2 examples cannot be split into training and {what}:"
            f" {', '.join(small[:10])}. Add examples or remove the class."
        )
    units = np.array(examples.together or range(len(targets)))
    if examples.apart:
        held = _units_held(examples, units, share, seed, what)
    else:
        held = _cells_held(examples, targets, units, share, seed)
    chosen = set(held)
    rest = [i for i in range(len(targets)) if i not in chosen]
    return examples.subset(rest), examples.subset(sorted(held))


def _cells_held(
    examples: Examples, targets: np.ndarray, units: np.ndarray, share: float, seed: int
) -> list[int]:
    """A share of each label, of each group in proportion; copies follow the first of them."""
    generator = np.random.default_rng(seed)
    held: list[int] = []
    groups = np.array(examples.grouped or [0] * len(targets))
    pairs = list(zip(targets.tolist(), units.tolist(), strict=True))
    first = {pair: i for i, pair in reversed(list(enumerate(pairs)))}
    is_first = np.array([first[pair] == i for i, pair in enumerate(pairs)])
    order = np.argsort(targets, kind="stable")
    ends = np.cumsum(np.bincount(targets, minlength=len(examples.classes)))[:-1]
    for members in np.split(order, ends):
        leads = members[is_first[members]]
        cells = [generator.permutation(leads[groups[leads] == g]) for g in np.unique(groups[leads])]
        wanted = min(max(round(share * len(leads)), 1), len(leads) - 1)
        for cell, number in zip(cells, _shared(wanted, [len(cell) for cell in cells]), strict=True):
            held += cell[:number].tolist()
    with_copies = {pairs[i] for i in held}
    return [i for i, pair in enumerate(pairs) if pair in with_copies]


def _units_held(
    examples: Examples, units: np.ndarray, share: float, seed: int, what: str
) -> list[int]:
    """Whole units, near the share of each label, so that every class is still learned. Raises
    `DataError` where none do.
    """
    targets, count = np.array(examples.targets), len(np.unique(units))
    if count < 2:
        raise DataError(
            f"All examples are of one {examples.apart}; needed are two or more to hold out {what}"
            " data by it."
        )
    folds = min(max(2, round(1 / share)), count)
    candidates: list[tuple[int, float, list[int]]] = []
    for rest, held in StratifiedGroupKFold(folds, shuffle=True, random_state=seed).split(
        targets, targets, units
    ):
        if len(held) and not set(targets.tolist()) - set(targets[rest].tolist()):
            missing = len(set(targets.tolist()) - set(targets[held].tolist()))
            candidates.append((missing, abs(len(held) / len(targets) - share), held.tolist()))
    if not candidates:
        raise DataError(
            f"No {what} data can be held out by {examples.apart}: whoever is held out, a class has"
            " no other training example. Give the splits yourself, or split otherwise."
        )
    return min(candidates, key=lambda fold: fold[:2])[2]


def _shared(wanted: int, sizes: list[int]) -> list[int]:
    """`wanted` divided in proportion to `sizes`, by largest remainders."""
    exact = [wanted * size / sum(sizes) for size in sizes]
    parts = [int(part) for part in exact]
    for i in sorted(range(len(sizes)), key=lambda i: parts[i] - exact[i])[: wanted - sum(parts)]:
        parts[i] += 1
    return parts
