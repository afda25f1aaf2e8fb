"""Seeded splits: k examples of each class, and stratified shares."""

from __future__ import annotations

from numbers import Integral

import numpy as np

from vpt.data.examples import Examples
from vpt.errors import DataError


def whole_number(**values: int) -> None:
    """Raise `DataError` unless every value is a whole number from 0 to 2^32 − 1."""
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, Integral) or not 0 <= int(value) < 1 << 32:
            raise DataError(f"Found {name}={value!r}; needed is a whole number from 0 to {(1 << 32) - 1}.")


def few_shot(examples: Examples, shots: int, seed: int = 0) -> Examples:
    """`shots` examples of each class, drawn with `seed`. Raises `DataError` for a class that has fewer."""
    if shots < 1:
        raise DataError(f"Found shots={shots}; needed is at least 1 example per class.")
    targets, generator = np.array(examples.targets), np.random.default_rng(seed)
    chosen: list[int] = []
    for label, name in enumerate(examples.classes):
        own = np.flatnonzero(targets == label)
        if len(own) < shots:
            raise DataError(f"Class {name!r} has {len(own)} training examples; needed are {shots} (shots).")
        chosen += generator.permutation(own)[:shots].tolist()
    return examples.subset(sorted(chosen))


def hold_out(examples: Examples, share: float, seed: int = 0, what: str = "validation") -> tuple[Examples, Examples]:
    """(the rest, a share stratified by label, and by group where there are groups; both keep one example of each class).

    Raises `DataError` for classes too small.
    """
    if not 0 < share < 1:
        raise DataError(f"Found a {what} share of {share}; needed is a number between 0 and 1.")
    targets = examples.targets
    counts = {name: targets.count(label) for label, name in enumerate(examples.classes)}
    small = [f"{name!r} ({count})" for name, count in counts.items() if count < 2]
    if small:
        raise DataError(f"Classes with fewer than 2 examples cannot be split into training and {what}: {', '.join(small[:10])}. "
                        "Add examples or remove the class.")  # fmt: skip
    generator, held = np.random.default_rng(seed), []
    groups = np.array(examples.grouped or [0] * len(targets))
    for label in range(len(counts)):
        own = np.flatnonzero(np.array(targets) == label)
        cells = [generator.permutation(own[groups[own] == g]) for g in np.unique(groups[own])]
        wanted = min(max(round(share * len(own)), 1), len(own) - 1)
        for cell, number in zip(cells, _shared(wanted, [len(cell) for cell in cells]), strict=True):
            held += cell[:number].tolist()
    rest = sorted(set(range(len(targets))) - set(held))
    return examples.subset(rest), examples.subset(sorted(held))


def _shared(wanted: int, sizes: list[int]) -> list[int]:
    """`wanted` divided in proportion to `sizes`, by largest remainders."""
    exact = [wanted * size / sum(sizes) for size in sizes]
    found = [int(part) for part in exact]
    for i in sorted(range(len(sizes)), key=lambda i: found[i] - exact[i])[: wanted - sum(found)]:
        found[i] += 1
    return found
