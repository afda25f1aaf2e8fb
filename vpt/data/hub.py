"""Data sets of Hugging Face's `datasets` library: which column is the input, which the label, which the group."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vpt.data.examples import Examples, Files
from vpt.data.readers import decode_sound, fit_image, open_image
from vpt.errors import DataError

LABELS = ("label", "labels", "fine_label", "class", "target")


def is_hub_dataset(source: Any) -> bool:
    """Whether this is a `datasets.Dataset` (the library itself need not be there to ask)."""
    return type(source).__module__.startswith("datasets.") and hasattr(source, "features")


def from_hub(source: Any, inputs: Any, classes: Sequence[str] | None) -> Examples:
    """A `datasets.Dataset` with a column of pictures or sounds and one of labels as `Examples`, with the classes' own names.

    A column called "group" is taken as group. Raises `DataError` where the columns do not say what they are.
    """
    if not hasattr(source, "__len__"):
        raise DataError("Found a streaming data set; needed is one with a length: load_dataset(…, streaming=False).")
    kinds = {name: type(feature).__name__ for name, feature in source.features.items()}
    column = _input(kinds, inputs.kind)
    plain = source.cast_column(column, type(source.features[column])(decode=False))  # decoded here, so that bad ones are listed
    label = next((n for n in LABELS if n in kinds and n != column), None)
    label = label or next((n for n, kind in kinds.items() if kind == "ClassLabel"), None)
    if label is None:
        raise DataError(f"Found no column of labels among {', '.join(kinds)}; rename it to 'label'.")
    numbers, names = _numbered(source[label], getattr(source.features[label], "names", None) or classes)
    groups, group_names = None, None
    if "group" in kinds:
        groups, group_names = _numbered(source["group"], getattr(source.features["group"], "names", None))
    files = Files([Path(str(i)) for i in range(len(source))], lambda path: _read(plain[int(path.name)][column], inputs))
    return Examples(
        files, numbers, names, groups=groups, group_names=group_names,
        names=[f"row {i}" for i in range(len(source))], sample_rate=getattr(inputs, "sample_rate", None),
    )  # fmt: skip


def _input(kinds: dict[str, str], kind: str) -> str:
    wanted = {"image": "Image", "sound": "Audio"}[kind]
    found = [name for name, feature in kinds.items() if feature == wanted]
    if len(found) != 1:
        raise DataError(
            f"Found {len(found)} columns of type {wanted} among {', '.join(kinds)}; needed is one. Use dataset."
            f"select_columns(…), or dataset.cast_column(…, datasets.{wanted}())."
        )
    return found[0]


def _numbered(values: Sequence[Any], names: Sequence[str] | None) -> tuple[list[int], list[str]]:
    """Numbers into names, which are the sorted values where nobody names them."""
    values = list(values)
    if any(value is None for value in values):
        raise DataError("Found rows without a label; remove them: dataset.filter(lambda row: row['label'] is not None).")
    if names is not None:
        return [int(value) for value in values], list(names)
    known = sorted(set(values))
    return [known.index(value) for value in values], [str(name) for name in known]


def _read(cell: Any, inputs: Any) -> Any:
    """A cell {"bytes", "path"} → raw input. Raises `DataError`."""
    content = cell["bytes"] if cell["bytes"] is not None else Path(cell["path"]).read_bytes()
    if inputs.kind == "image":
        return fit_image(open_image(io.BytesIO(content)), inputs)
    return decode_sound(io.BytesIO(content), inputs.sample_rate, inputs.samples)
