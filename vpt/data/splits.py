"""Seeded splits: k examples of each class, and stratified shares."""

from __future__ import annotations

import numpy as np
from sklearn.model_selection import train_test_split

from vpt.data.examples import Examples
from vpt.errors import DataError


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
    """(the rest, a stratified share with at least one example per class). Raises `DataError` for classes too small."""
    if not 0 < share < 1:
        raise DataError(f"Found a {what} share of {share}; needed is a number between 0 and 1.")
    targets = examples.targets
    counts = {name: targets.count(label) for label, name in enumerate(examples.classes)}
    small = [f"{name!r} ({count})" for name, count in counts.items() if count < 2]
    if small:
        raise DataError(f"Classes with fewer than 2 examples cannot be split into training and {what}: {', '.join(small[:10])}. "
                        "Add examples or remove the class.")  # fmt: skip
    size = max(round(share * len(targets)), len(counts))
    if len(targets) - size < len(counts):
        raise DataError(f"{len(targets)} examples of {len(counts)} classes are too few to hold out {what} data.")
    rest, held = train_test_split(np.arange(len(targets)), test_size=size, stratify=targets, random_state=seed)
    return examples.subset(sorted(rest.tolist())), examples.subset(sorted(held.tolist()))
