"""Datasets, one for each part or one for all, as examples of each part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image

from vpt.data.examples import Examples
from vpt.data.files import Files
from vpt.data.hub import from_hub, hub_classes, is_hub_dataset
from vpt.data.readers import RawInput, fit_image
from vpt.data.reading import SKIP, Bad
from vpt.data.sources import SPLITS, Columns
from vpt.data.wrapping import wrap
from vpt.errors import BadFilesError, DataError
from vpt.report.progress import progress_bar
from vpt.sites import InputsLike, takes_images


def from_datasets(
    source: object,
    inputs: InputsLike,
    classes: Sequence[str] | None,
    columns: Columns,
    skip_bad: bool,
    progress: bool,
) -> tuple[dict[str, Examples], Bad]:
    """Part → examples of a Dataset or of a mapping to some, and the rows that were left out as bad.

    source: one Dataset, which is all training data, or a mapping of "train", "val" and "test".
    inputs: what a backbone takes.
    classes: names of the labels, where the data do not say.
    columns: what the columns of a `datasets.Dataset` are called.
    skip_bad: go on without rows that cannot be used.
    progress: whether a bar is shown.

    Raises `DataError`; `BadFilesError` for rows that cannot be used, unless `skip_bad`.
    """
    named = source.items() if isinstance(source, Mapping) else [("train", source)]
    given = {SPLITS.get(str(name), name): part for name, part in named if part is not None}
    if "train" not in given or set(given) - {"train", "val", "test"}:
        raise DataError(
            f"Found data with parts {sorted(map(str, given))}; needed is 'train', and if wanted"
            " 'val' and 'test'."
        )
    tables = [part for part in given.values() if is_hub_dataset(part)]
    classes = classes or hub_classes(tables, columns.label)
    parts = {name: _wrapped(part, inputs, classes, columns) for name, part in given.items()}
    return _without_bad(_same_numbering(parts), skip_bad, progress)


def _same_numbering(parts: dict[str, Examples]) -> dict[str, Examples]:
    """Classes that are only numbered are counted over all parts."""
    if not any(part.named for part in parts.values()):
        longest = max((part.classes for part in parts.values()), key=len)
        for part in parts.values():
            part.classes = list(longest)
    return parts


def _wrapped(
    source: object, inputs: InputsLike, classes: Sequence[str] | None, columns: Columns
) -> Examples:
    if is_hub_dataset(source):
        return from_hub(source, inputs, classes, columns)
    if columns.apart is not None and getattr(source, "apart", None) != columns.apart:
        raise DataError(
            f"Found {type(source).__name__}, which has no column {columns.apart} to split by;"
            " needed is a CSV or a datasets.Dataset, or Examples with units=…."
        )
    return wrap(source, classes, lambda x: _convert(x, inputs))


def _without_bad(
    parts: dict[str, Examples], skip_bad: bool, progress: bool
) -> tuple[dict[str, Examples], Bad]:
    """Read every row that is decoded here, and leave out or list those that cannot be used."""
    skipped: Bad = []
    total = 0
    for name, part in parts.items():
        if not isinstance(part.get, Files):
            continue
        bad = {}
        with progress_bar(progress) as bar:
            for i in bar.track(range(len(part)), description=f"reading {name}"):
                if reason := part.get.reason(part.indices[i]):
                    bad[i] = reason
        total += len(part)
        skipped += [(f"{name}, {part.name(i)}", reason) for i, reason in bad.items()]
        parts[name] = part.subset([i for i in range(len(part)) if i not in bad])
    if skipped and not skip_bad:
        raise BadFilesError(skipped, total, SKIP)
    return parts, skipped


def _convert(x: Any, inputs: InputsLike) -> RawInput:
    """A PIL picture of a torchvision data set → tensor `[C,H,W]` in [0,1]; anything else as it
    is.
    """
    if isinstance(x, Image.Image) and takes_images(inputs):
        return fit_image(x, inputs).float() / 255
    return x
