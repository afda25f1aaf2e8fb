"""Labelled examples as a torch Dataset, whatever they come from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from vpt.data.readers import as_floats
from vpt.errors import DataError, VptError

CACHE_BYTES = 2 << 30

MOST_CLASSES = 100_000  # and no more in a file's header


class Files:
    """index → raw input of one file, read once and kept while all that is kept stays under 2 GiB.

    A clip of sound that is longer than what the model hears has several windows; silent ones are
    left out.
    """

    def __init__(self, paths: Sequence[Path], read: Callable[..., Any], keep: Any = None) -> None:
        # keep: what must live as long as the files (an archive)
        self.paths, self.read, self.keep = list(paths), read, keep
        self._kept: dict[tuple[int, int], Any] = {}
        self._bytes = 0
        self._windows: dict[int, list[int]] = {}
        # of files with the same bytes: number → number of the first
        self.copies: dict[int, int] = {}

    def __call__(self, index: int, window: int | None = None) -> Any:
        """The raw input: image `[C,H,W]` in [0,1], or (waveform `[T]`, length) of a window, by
        default the first of those that can be used. Raises `DataError` naming the file.
        """
        window = self.windows(index)[0] if window is None else window
        value = self._kept.get((index, window))
        if value is None:
            try:
                value = (
                    self.read(self.paths[index], window) if window else self.read(self.paths[index])
                )
            except DataError as error:
                raise DataError(f"{self.paths[index]}: {error}") from error
            size = sum(
                t.nbytes
                for t in (value if isinstance(value, tuple) else (value,))
                if isinstance(t, Tensor)
            )
            if self._bytes + size <= CACHE_BYTES:
                self._kept[index, window], self._bytes = value, self._bytes + size
        return as_floats(value)

    def windows(self, index: int) -> list[int]:
        """The windows of this file that can be used: [0] where it has one. Raises `DataError` where
        it has none.
        """
        if index not in self._windows:
            self._windows[index] = self._usable(index)
        return self._windows[index]

    def _usable(self, index: int) -> list[int]:
        count = getattr(self.read, "windows", None)
        try:
            number = count(self.paths[index]) if count is not None else 1
        except DataError as error:
            raise DataError(f"{self.paths[index]}: {error}") from error
        if number == 1:
            return [0]
        found, first = [], None
        for window in range(number):
            try:
                self(index, window)
                found.append(window)
            except DataError as error:
                first = first or error
        if not found:
            raise first or DataError(f"{self.paths[index]}: no samples")
        return found

    def reason(self, index: int) -> str | None:
        """Why this file cannot be used, or None."""
        try:
            self(index)
        except DataError as error:
            return str(error).removeprefix(f"{self.paths[index]}: ")
        return None


class Windows:
    """index → raw input of one window of one file."""

    def __init__(self, get: Any, places: Sequence[tuple[int, int]]) -> None:
        self.get, self.places = get, list(places)

    def __call__(self, index: int) -> Any:
        """The raw input of this window."""
        return self.get(*self.places[index])


class Examples(Dataset):
    """(input, label) or (input, label, group) by index.

    get: index → raw input. labels `[n]`: class numbers into `classes`. groups `[n]`: numbers into
        `group_names`, or None. units `[n]`: numbers of what stays on one side when examples are
        held out: copies of one file, or, where apart says what, a person or the like. names: of the
        examples, for people. named: whether the classes have names of their own, or are only
        numbered.
    sample_rate: Hz, for sound. Raises `DataError` for a label out of range.
    """

    def __init__(
        self,
        get: Callable[[int], Any],
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
        self.named, self.apart = named, apart
        self.units = [int(u) for u in units] if units is not None else None
        self.get, self.classes = get, list(classes)
        if not all(isinstance(name, str) for name in self.classes):
            raise DataError(
                f"Found classes {self.classes!r:.80}; needed is a name, as text, for each."
            )
        self.labels = [int(y) for y in labels]
        self.groups = [int(g) for g in groups] if groups is not None else None
        self.group_names = list(group_names) if group_names is not None else None
        self.names, self.sample_rate = list(names) if names is not None else None, sample_rate
        self.indices = list(indices) if indices is not None else list(range(len(self.labels)))
        wrong = sorted(
            {self.labels[i] for i in self.indices if not 0 <= self.labels[i] < len(self.classes)}
        )
        if wrong:
            raise DataError(
                f"Found labels {wrong[:5]}; there are {len(self.classes)} classes, so labels are 0"
                f" to {len(self.classes) - 1}."
            )

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, i: int) -> tuple:
        index = self.indices[i]
        group = () if self.groups is None else (self.groups[index],)
        return (self.get(index), self.labels[index], *group)

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
        found = self._windows()
        if found is None:
            return self, list(range(len(self)))
        owners = [i for i, own in enumerate(found) for _ in own]
        return (
            self._heard([(self.indices[i], w) for i, own in enumerate(found) for w in own]),
            owners,
        )

    def through(self, get: Callable[[int], Any]) -> Examples:
        """The same examples, whose inputs another function gives."""
        return self._with(get=get)

    def views(self) -> list[Examples]:
        """The same examples as each view of them gives them (`vpt.data.in_views`); these alone
        where there are none.
        """
        get: Any = self.get
        count = getattr(get, "views", 1)
        return (
            [self]
            if count == 1
            else [self._with(get=partial(get, view=view)) for view in range(count)]
        )

    def drawn(self, seed: int, epoch: int) -> Examples:
        """What an epoch (from 1) learns from: the next view of each example, or one of its windows,
        drawn with `seed`.
        """
        views = self.views()
        if len(views) > 1:
            return views[(epoch - 1) % len(views)]
        found = self._windows()
        if found is None:
            return self
        draws = np.random.default_rng((seed, epoch)).random(len(found)).tolist()
        return self._heard(
            [
                (i, own[int(draw * len(own))])
                for i, own, draw in zip(self.indices, found, draws, strict=True)
            ]
        )

    def _windows(self) -> list[list[int]] | None:
        """The windows of each example; None where each has one."""
        count = getattr(self.get, "windows", None)
        found = [count(index) for index in self.indices] if count is not None else []
        return found if any(len(own) > 1 for own in found) else None

    def _heard(self, places: Sequence[tuple[int, int]]) -> Examples:
        """These windows (number of the example in the source, of the window) as examples of their
        own.
        """
        of = [index for index, _ in places]
        kept: dict[str, Any] = {
            "labels": [self.labels[index] for index in of],
            "groups": [self.groups[index] for index in of] if self.groups is not None else None,
            "names": [self.names[index] for index in of] if self.names is not None else None,
            "units": None,
            "indices": None,
        }
        return self._with(get=Windows(self.get, places), **kept)

    def name(self, i: int) -> str:
        """What example `i` is called: its path, or its number."""
        return self.names[self.indices[i]] if self.names is not None else str(self.indices[i])

    def renamed(self, classes: Sequence[str], labels: Sequence[int]) -> Examples:
        """The same examples with labels that are numbers into other `classes`."""
        return self._with(labels=labels, classes=classes, named=True)

    def regrouped(self, names: Sequence[str]) -> Examples:
        """The same examples with groups that are numbers into `names`, found by name."""
        own = self.group_names or []
        position = {name: number for number, name in enumerate(names)}
        groups = (
            [position.get(own[g], -1) if g >= 0 else g for g in self.groups or []]
            if self.groups is not None
            else None
        )
        return self._with(groups=groups, group_names=names)

    def subset(self, chosen: Sequence[int]) -> Examples:
        """The examples at these positions, in this order."""
        return self._with(indices=[self.indices[i] for i in chosen])

    def _with(self, **changes: Any) -> Examples:
        kept = (
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
        values: dict[str, Any] = {name: getattr(self, name) for name in kept} | changes
        return Examples(**values)


def same_groups(parts: dict[str, Examples]) -> dict[str, Examples]:
    """One numbering of the groups, by name, over parts that were read one by one."""
    names = list(dict.fromkeys(name for part in parts.values() for name in part.group_names or []))
    return {
        key: part if part.group_names in (None, names) else part.regrouped(names)
        for key, part in parts.items()
    }


def wrap(dataset: Any, classes: Sequence[str] | None, convert: Callable[[Any], Any]) -> Examples:
    """Any Dataset of (input, label[, group]) as `Examples`. Raises `DataError` if it is, or holds,
    something else.
    """
    if isinstance(dataset, Examples):
        return dataset
    if not hasattr(type(dataset), "__len__") or not hasattr(type(dataset), "__getitem__"):
        raise DataError(
            f"Found {type(dataset).__name__}; needed is a folder, a CSV, or a Dataset with a length"
            " and items by number."
        )
    if len(dataset) == 0:
        raise DataError("Found a data set without examples.")
    first, known = _read(dataset, 0), getattr(dataset, "targets", None)
    if known is not None and len(known) != len(dataset):
        raise DataError(f"Found {len(known)} targets for {len(dataset)} examples.")
    if known is not None and not _told(dataset, known):
        known = None
    items = (
        [first]
        if known is not None and len(first) == 2
        else [_read(dataset, i) for i in range(len(dataset))]
    )
    odd = next(
        (
            i
            for i in items
            if not isinstance(i, (tuple, list)) or len(i) not in (2, 3) or len(i) != len(first)
        ),
        None,
    )
    if odd is not None:
        raise DataError(
            f"Found a data set whose items are {type(odd).__name__}; needed is (input, label) or"
            " (input, label, group)."
        )
    labels = _numbers(known if known is not None else [item[1] for item in items], "labels")
    groups = _numbers([item[2] for item in items], "groups") if len(first) == 3 else None
    known_names = classes or getattr(dataset, "classes", None)
    if known_names is None and max(labels) >= MOST_CLASSES:
        raise DataError(
            f"Found label {max(labels)}; labels number the classes from 0, and there can be"
            f" {MOST_CLASSES:,} at most."
        )
    names = known_names or [str(c) for c in range(max(labels) + 1)]
    group_names = [str(g) for g in range(max(groups) + 1)] if groups else None
    return Examples(
        lambda i: convert(_read(dataset, i)[0]),
        labels,
        names,
        groups=groups,
        group_names=group_names,
        sample_rate=getattr(dataset, "sample_rate", None),
        named=known_names is not None,
    )


def _read(dataset: Any, index: int) -> Any:
    """An item of someone's data set. Raises `DataError` with its number, whatever the data set
    throws.
    """
    try:
        return dataset[index]
    except VptError:
        raise
    except Exception as error:
        raise DataError(
            f"Example {index} of {type(dataset).__name__} cannot be read: {type(error).__name__}:"
            f" {error}"
        ) from error


def _told(dataset: Any, targets: Sequence[Any]) -> bool:
    """Whether the labels that a data set lists are those that its items have: a `target_transform`
    changes only these.
    """
    if getattr(dataset, "target_transform", None) is not None:
        return False
    some = sorted({round(i * (len(dataset) - 1) / 7) for i in range(8)})
    try:
        return all(float(_read(dataset, i)[1]) == float(targets[i]) for i in some)
    except (TypeError, ValueError, RuntimeError, IndexError):
        return True  # it is said of the labels below


def _numbers(values: Any, what: str) -> list[int]:
    """Whole numbers, one per example. Raises `DataError` for text, fractions and the like."""
    try:
        numbers = [float(value) for value in values]
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(
            f"Found {what} that are not numbers ({error}); needed are whole numbers from 0."
        ) from error
    if not all(number.is_integer() for number in numbers):
        raise DataError(
            f"Found {what} that are not whole numbers; needed are whole numbers from 0."
        )
    return [int(number) for number in numbers]
