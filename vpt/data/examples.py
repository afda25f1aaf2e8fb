"""Labelled examples as a torch Dataset, whatever they come from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol, runtime_checkable

import numpy as np
from torch.utils.data import Dataset

from vpt.data.files import InWindows, Windows
from vpt.data.readers import RawInput
from vpt.errors import DataError

MOST_CLASSES = 100_000  # and no more in a file's header
Labelled = tuple[RawInput, int] | tuple[RawInput, int, int]  # (input, label[, group])
# of the constructor, each kept as an attribute
ARGUMENTS = (
    "get",
    "labels",
    "classes",
    "groups",
    "group_names",
    "names",
    "sample_rate",
    "indices",
    "named",
    "units",
    "apart",
)


@runtime_checkable
class InViews(Protocol):
    """index → raw input in one of `views` views."""

    views: int

    def __call__(self, index: int, view: int = 0) -> RawInput:
        """The raw input in this view."""


class Examples(Dataset[Labelled]):
    """(input, label) or (input, label, group) by index.

    get: index → raw input.
    labels: `[n]`, class numbers into `classes`.
    classes: names of the classes.
    groups: `[n]`, numbers into `group_names`, or None.
    group_names: names of the groups.
    names: of the examples, for people.
    sample_rate: Hz, for sound.
    indices: which of the `n` are the examples, in this order; all by default.
    named: whether the classes have names of their own, or are only numbered.
    units: `[n]`, numbers of what stays on one side when examples are held out: copies of one file,
        or, where `apart` says what, a person or the like.
    apart: what the units are; None for copies.

    Raises `DataError` for a label out of range.
    """

    def __init__(
        self,
        get: Callable[[int], RawInput],
        labels: Sequence[int],
        classes: Sequence[str],
        *,
        groups: Sequence[int] | None = None,
        group_names: Sequence[str] | None = None,
        names: Sequence[str] | None = None,
        sample_rate: int | None = None,
        indices: Sequence[int] | None = None,
        named: bool = True,
        units: Sequence[int] | None = None,
        apart: str | None = None,
    ) -> None:
        self.get = get
        self.classes = list(classes)
        if not all(isinstance(name, str) for name in self.classes):
            raise DataError(
                f"Found classes {self.classes!r:.80}; needed is a name, as text, for each."
            )
        self.labels = [int(y) for y in labels]
        self.groups = [int(g) for g in groups] if groups is not None else None
        self.group_names = list(group_names) if group_names is not None else None
        self.names = list(names) if names is not None else None
        self.sample_rate = sample_rate
        self.indices = list(indices) if indices is not None else list(range(len(self.labels)))
        self.named = named
        self.units = [int(u) for u in units] if units is not None else None
        self.apart = apart
        outside = sorted(
            {self.labels[i] for i in self.indices if not 0 <= self.labels[i] < len(self.classes)}
        )
        if outside:
            raise DataError(
                f"Found labels {outside[:5]}; there are {len(self.classes)} classes, so labels are"
                f" 0 to {len(self.classes) - 1}."
            )

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, i: int) -> Labelled:
        index = self.indices[i]
        if self.groups is None:
            return self.get(index), self.labels[index]
        return self.get(index), self.labels[index], self.groups[index]

    @property
    def targets(self) -> list[int]:
        """Labels in the order of the examples."""
        return [self.labels[i] for i in self.indices]

    @property
    def grouped(self) -> list[int] | None:
        """Groups in the order of the examples; None where there are none."""
        return [self.groups[i] for i in self.indices] if self.groups is not None else None

    @property
    def together(self) -> list[int] | None:
        """Units in the order of the examples; None where each is its own."""
        return [self.units[i] for i in self.indices] if self.units is not None else None

    def windows(self) -> tuple[Examples, list[int]]:
        """Every window of every example as an example of its own, and the number of the example
        that each is of.

        Pictures, and sound no longer than the model hears, have one window.
        """
        windows = self._windows()
        if windows is None:
            return self, list(range(len(self)))
        owners = [i for i, numbers in enumerate(windows) for _ in numbers]
        places = [
            (self.indices[i], window) for i, numbers in enumerate(windows) for window in numbers
        ]
        return self._heard(places), owners

    def through(self, get: Callable[[int], RawInput]) -> Examples:
        """The same examples, whose inputs another function gives."""
        return self._with(get=get)

    def views(self) -> list[Examples]:
        """The same examples as each view of them gives them (`vpt.data.in_views`); these alone
        where there are none.
        """
        get = self.get
        if not isinstance(get, InViews) or get.views == 1:
            return [self]
        return [self._with(get=partial(get, view=view)) for view in range(get.views)]

    def drawn(self, seed: int, epoch: int) -> Examples:
        """What an epoch (from 1) learns from: the next view of each example, or one of its windows,
        drawn with `seed`.
        """
        views = self.views()
        if len(views) > 1:
            return views[(epoch - 1) % len(views)]
        windows = self._windows()
        if windows is None:
            return self
        draws = np.random.default_rng((seed, epoch)).random(len(windows)).tolist()
        return self._heard(
            [
                (i, numbers[int(draw * len(numbers))])
                for i, numbers, draw in zip(self.indices, windows, draws, strict=True)
            ]
        )

    def _windows(self) -> list[list[int]] | None:
        """The windows of each example; None where each has one."""
        if not isinstance(self.get, InWindows):
            return None
        windows = [self.get.windows(index) for index in self.indices]
        return windows if any(len(numbers) > 1 for numbers in windows) else None

    def _heard(self, places: Sequence[tuple[int, int]]) -> Examples:
        """These windows (number of the example in the source, of the window) as examples of their
        own.
        """
        sources = [index for index, _ in places]
        return self._with(
            get=Windows(self.get, places),
            labels=[self.labels[index] for index in sources],
            groups=[self.groups[index] for index in sources] if self.groups is not None else None,
            names=[self.names[index] for index in sources] if self.names is not None else None,
            units=None,
            indices=None,
        )

    def name(self, i: int) -> str:
        """What example `i` is called: its path, or its number."""
        return self.names[self.indices[i]] if self.names is not None else str(self.indices[i])

    def renamed(self, classes: Sequence[str], labels: Sequence[int]) -> Examples:
        """The same examples with labels that are numbers into other `classes`."""
        return self._with(labels=labels, classes=classes, named=True)

    def regrouped(self, names: Sequence[str]) -> Examples:
        """The same examples with groups that are numbers into `names`, found by name."""
        if self.groups is None:
            return self._with(group_names=names)
        known = self.group_names or []
        position = {name: number for number, name in enumerate(names)}
        groups = [position.get(known[g], -1) if g >= 0 else g for g in self.groups]
        return self._with(groups=groups, group_names=names)

    def subset(self, chosen: Sequence[int]) -> Examples:
        """The examples at these positions, in this order."""
        return self._with(indices=[self.indices[i] for i in chosen])

    def with_also(self, others: Examples) -> Examples:
        """These, and others that were held out of the same source."""
        return self._with(indices=[*self.indices, *others.indices])

    def _with(self, **changes: object) -> Examples:
        """The same examples but for some of the constructor's arguments."""
        arguments = {name: getattr(self, name) for name in ARGUMENTS}
        arguments.update(changes)
        return Examples(**arguments)


def same_groups(parts: dict[str, Examples]) -> dict[str, Examples]:
    """One numbering of the groups, by name, over parts that were read one by one."""
    names = list(
        dict.fromkeys(group for part in parts.values() for group in part.group_names or [])
    )
    return {
        name: part if part.group_names in (None, names) else part.regrouped(names)
        for name, part in parts.items()
    }
