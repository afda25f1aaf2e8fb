"""Anybody's torch Dataset as `Examples`: what it holds is looked at, and refused by name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol, SupportsFloat, runtime_checkable

from vpt.data.examples import MOST_CLASSES, Examples
from vpt.data.readers import RawInput
from vpt.errors import DataError, VptError


@runtime_checkable
class Indexed(Protocol):
    """A data set with a length, and items of any kind by number."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> object: ...


def wrap(
    dataset: object, classes: Sequence[str] | None, convert: Callable[[Any], RawInput]
) -> Examples:
    """Any Dataset of (input, label[, group]) as `Examples`. Raises `DataError` if it is, or holds,
    something else.
    """
    if isinstance(dataset, Examples):
        return dataset
    if not isinstance(dataset, Indexed):
        raise DataError(
            f"Found {type(dataset).__name__}; needed is a folder, a CSV, or a Dataset with a length"
            " and items by number."
        )
    if len(dataset) == 0:
        raise DataError("Found a data set without examples.")
    targets = _targets(dataset)
    items = _items(dataset, targets is not None)
    labels = _numbers([item[1] for item in items] if targets is None else targets, "labels")
    groups = _numbers([item[2] for item in items], "groups") if len(items[0]) == 3 else None
    names = classes or getattr(dataset, "classes", None)
    if names is None and max(labels) >= MOST_CLASSES:
        raise DataError(
            f"Found label {max(labels)}; labels number the classes from 0, and there can be"
            f" {MOST_CLASSES:,} at most."
        )
    return Examples(
        lambda i: convert(_item(dataset, i)[0]),
        labels,
        names or [str(c) for c in range(max(labels) + 1)],
        groups=groups,
        group_names=[str(g) for g in range(max(groups) + 1)] if groups else None,
        sample_rate=getattr(dataset, "sample_rate", None),
        named=names is not None,
    )


def _targets(dataset: Indexed) -> Sequence[Any] | None:
    """The labels that a data set lists, if its items have the same: a `target_transform` changes
    only these.
    """
    targets = getattr(dataset, "targets", None)
    if targets is None:
        return None
    if len(targets) != len(dataset):
        raise DataError(f"Found {len(targets)} targets for {len(dataset)} examples.")
    if getattr(dataset, "target_transform", None) is not None:
        return None
    some = sorted({round(i * (len(dataset) - 1) / 7) for i in range(8)})
    try:
        alike = all(float(_item(dataset, i)[1]) == float(targets[i]) for i in some)
    except (TypeError, ValueError, RuntimeError, IndexError):
        return targets  # it is said of the labels below
    return targets if alike else None


def _items(dataset: Indexed, listed: bool) -> list[Sequence[Any]]:
    """(input, label[, group]) of every example; of the first alone where the labels are listed and
    there are no groups.
    """
    first = _item(dataset, 0)
    if listed and isinstance(first, (tuple, list)) and len(first) == 2:
        return [first]
    items = [_item(dataset, i) for i in range(len(dataset))]
    for item in items:
        fits = isinstance(item, (tuple, list)) and len(item) in (2, 3)
        if not fits or len(item) != len(items[0]):
            raise DataError(
                f"Found a data set whose items are {type(item).__name__}; needed is (input, label)"
                " or (input, label, group)."
            )
    return items


def _item(dataset: Indexed, index: int) -> Any:
    """An item of someone's data set. Raises `DataError` with its number, whatever the data set
    throws.
    """
    try:
        return dataset[index]
    except VptError:
        raise
    except Exception as error:  # foreign code may throw anything
        raise DataError(
            f"Example {index} of {type(dataset).__name__} cannot be read: {type(error).__name__}:"
            f" {error}"
        ) from error


def _numbers(values: Iterable[SupportsFloat], what: str) -> list[int]:
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
