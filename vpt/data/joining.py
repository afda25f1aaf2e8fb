"""Examples of several tasks as one data set, and one data set as several tasks."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import accumulate

import numpy as np

from vpt.data.examples import Examples
from vpt.data.files import InWindows
from vpt.data.readers import RawInput
from vpt.errors import DataError


def joined(
    parts: Mapping[str, Examples], classes: Mapping[str, Sequence[str]] | None = None
) -> Examples:
    """The examples of several tasks one after another; the group of each is its task.

    classes: what each task's classes are called among all, by default their own names. Raises
        `DataError` for none, for an empty task, and for a class that two tasks have.
    """
    if not parts:
        raise DataError("Found no tasks; needed is at least one.")
    for task, part in parts.items():
        if not len(part):
            raise DataError(f"Task {task!r} has no examples.")
    sample_rates = {part.sample_rate for part in parts.values()}
    if len(sample_rates) > 1:
        raise DataError(
            f"Found tasks at different sample rates: {', '.join(map(str, sample_rates))}."
        )
    for task, part in parts.items():
        if classes is not None and len(classes[task]) != len(part.classes):
            raise DataError(
                f"Found {len(classes[task])} names for the {len(part.classes)} classes of task"
                f" {task!r}."
            )
    names = {
        task: list(classes[task] if classes is not None else part.classes)
        for task, part in parts.items()
    }
    every = [name for of_task in names.values() for name in of_task]
    twice = sorted({name for name in every if every.count(name) > 1})
    if twice:
        holders = [task for task, of_task in names.items() if twice[0] in of_task]
        raise DataError(
            f"Class {twice[0]!r} appears in the tasks {', '.join(holders)}; needed are different"
            " classes."
        )
    shifts = [0, *accumulate(len(of_task) for of_task in names.values())]
    members = list(parts.values())

    labels = [y + shift for part, shift in zip(members, shifts, strict=False) for y in part.targets]
    groups = [t for t, part in enumerate(members) for _ in range(len(part))]
    return Examples(
        Joined(members),
        labels,
        every,
        groups=groups,
        group_names=list(parts),
        sample_rate=members[0].sample_rate,
        names=[part.name(i) for part in members for i in range(len(part))],
    )


def appended(first: Examples, second: Examples) -> Examples:
    """The examples of two parts of one data set, one after the other. Raises `DataError` for parts
    of different classes.
    """
    if first.classes != second.classes:
        raise DataError(
            f"Found parts of the classes {', '.join(first.classes[:5])} and"
            f" {', '.join(second.classes[:5])}; needed are the same, in the same order."
        )
    if first.get is second.get and first.labels == second.labels:
        return first.with_also(second)
    parts, units, start = (first, second), [], 0
    for part in parts:  # of other files, so that none belongs to one of the first part
        own = part.together if part.together is not None else range(len(part))
        units += [start + unit for unit in own]
        start = max(units, default=-1) + 1
    together = any(part.together is not None for part in parts)
    grouped = [part.grouped for part in parts]
    return Examples(
        Joined(parts),
        [y for part in parts for y in part.targets],
        first.classes,
        groups=None if None in grouped else [g for own in grouped for g in own or ()],
        group_names=None if None in grouped else first.group_names,
        sample_rate=first.sample_rate,
        names=[part.name(i) for part in parts for i in range(len(part))],
        named=first.named,
        units=units if together else None,
        apart=first.apart or second.apart,
    )


class Joined:
    """index → raw input of the part that it falls into, which keeps its windows."""

    def __init__(self, members: Sequence[Examples]) -> None:
        self.members = list(members)
        self.starts = [0, *accumulate(len(part) for part in members)]

    def __call__(self, index: int, window: int | None = None, /) -> RawInput:
        """The raw input, of a window where the part has several."""
        part, place = self.find(index)
        if isinstance(part.get, InWindows):
            return part.get(place, window)
        return part.get(place)

    def windows(self, index: int, /) -> list[int]:
        """The windows of an example, as its part numbers them."""
        part, place = self.find(index)
        return part.get.windows(place) if isinstance(part.get, InWindows) else [0]

    def find(self, index: int) -> tuple[Examples, int]:
        """(The part that it falls into, its index there)."""
        t = bisect_right(self.starts, index) - 1
        return self.members[t], self.members[t].indices[index - self.starts[t]]


def balanced(examples: Examples) -> list[int]:
    """Positions in which every group comes as often as the largest: each example of a smaller one
    nearly equally often.
    """
    groups = np.array(examples.grouped or [0] * len(examples))
    most = max(int((groups == g).sum()) for g in np.unique(groups))
    members = [np.flatnonzero(groups == g) for g in np.unique(groups)]
    return [int(i) for group in members for i in group[np.arange(most) * len(group) // most]]


def with_classes(examples: Examples, classes: Sequence[str]) -> Examples:
    """The examples of these classes alone, which become all their classes."""
    position = {name: y for y, name in enumerate(classes)}
    kept = [i for i, y in enumerate(examples.targets) if examples.classes[y] in position]
    return examples.subset(kept).renamed(
        classes, [position.get(examples.classes[y], -1) for y in examples.labels]
    )
