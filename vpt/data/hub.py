"""Data sets of Hugging Face's `datasets` library: which column is the input, which the label, which
the group.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from vpt.data.examples import Examples, Files
from vpt.data.readers import Reader
from vpt.data.sources import JOIN, USUAL, Columns
from vpt.errors import DataError
from vpt.sites import InputsLike

LABELS = ("label", "labels", "fine_label", "class", "target")


def is_hub_dataset(source: Any) -> bool:
    """Whether this is a `datasets.Dataset` (the library itself need not be there to ask)."""
    return type(source).__module__.startswith("datasets.") and hasattr(source, "features")


def from_hub(
    source: Any, inputs: InputsLike, classes: Sequence[str] | None, columns: Columns = USUAL
) -> Examples:
    """A `datasets.Dataset` with a column of pictures or sounds and one of labels as `Examples`,
    with the classes' own names.

    Raises `DataError` where the columns do not say what they are.
    """
    source, label = _plain(source, columns.label)
    kinds = {name: type(feature).__name__ for name, feature in source.features.items()}
    column = _input(kinds, inputs.kind)
    # decoded here, so that bad ones are listed
    plain = source.cast_column(column, type(source.features[column])(decode=False))
    numbers, names = _numbered(
        source[label], getattr(source.features[label], "names", None) or classes
    )
    groups, group_names = None, None
    if own := columns.groups(list(kinds), "The data set"):
        named = [_named(source, name) for name in own]
        groups, group_names = _numbered([JOIN.join(row) for row in zip(*named, strict=True)], None)
    units = None
    if columns.apart is not None:
        if columns.apart not in kinds:
            raise DataError(
                f"Found no column {columns.apart!r} to split by among {', '.join(kinds)}."
            )
        units, _ = _numbered(_named(source, columns.apart), None)
    files = Files(
        [Path(str(i)) for i in range(len(source))], Reader(inputs, partial(_open, plain, column))
    )
    return Examples(
        files,
        numbers,
        names,
        groups=groups,
        group_names=group_names,
        names=[f"row {i}" for i in range(len(source))],
        sample_rate=getattr(inputs, "sample_rate", None),
        units=units,
        apart=columns.apart,
    )


def _input(kinds: dict[str, str], kind: str) -> str:
    wanted = {"image": "Image", "sound": "Audio"}[kind]
    found = [name for name, feature in kinds.items() if feature == wanted]
    if len(found) != 1:
        raise DataError(
            f"Found {len(found)} columns of type {wanted} among {', '.join(kinds)}; needed is one."
            f" Use dataset.select_columns(…), or dataset.cast_column(…, datasets.{wanted}())."
        )
    return found[0]


def _named(source: Any, column: str) -> list[str]:
    """The values of a column, by name where its feature has names."""
    numbers, names = _numbered(source[column], getattr(source.features[column], "names", None))
    return [names[number] for number in numbers]


def _plain(source: Any, label: str | None = None) -> tuple[Any, str]:
    """(The data set without a format that hides columns, its column of labels). Raises `DataError`
    where none says so.
    """
    if not hasattr(source, "__len__"):
        raise DataError(
            "Found a streaming data set; needed is one with a length: load_dataset(…,"
            " streaming=False)."
        )
    features = source.features
    if label is not None and label not in features:
        raise DataError(f"Found no column {label!r} among {', '.join(features)}.")
    found = (
        [label]
        if label
        else [n for n in LABELS if n in features]
        or [n for n, f in features.items() if type(f).__name__ == "ClassLabel"]
    )
    if not found:
        raise DataError(
            f"Found no column of labels among {', '.join(features)}; rename it to 'label'."
        )
    return source.with_format(None), found[0]


def hub_classes(sources: Sequence[Any], label: str | None = None) -> list[str] | None:
    """The names of all labels of several data sets that do not name them, sorted; None where one
    does, or there are none.
    """
    columns = [_plain(source, label) for source in sources]
    if not columns or any(
        getattr(source.features[label], "names", None) for source, label in columns
    ):
        return None
    return [
        str(value)
        for value in _distinct([value for source, label in columns for value in source[label]])
    ]


def _distinct(values: Sequence[Any]) -> list[Any]:
    if any(value is None for value in values):
        raise DataError(
            "Found rows without a label; remove them: dataset.filter(lambda row: row['label'] is"
            " not None)."
        )
    try:
        return sorted(set(values))
    except TypeError as error:
        raise DataError(
            f"Found labels that are no names or numbers ({error}); needed is one per row."
        ) from error


def _numbered(values: Sequence[Any], names: Sequence[str] | None) -> tuple[list[int], list[str]]:
    """Numbers into names, which are the sorted values where nobody names them."""
    values = list(values)
    known = _distinct(values)
    if names is None:
        place = {value: number for number, value in enumerate(known)}
        return [place[value] for value in values], [str(name) for name in known]
    names = list(names)
    by_name = {name: number for number, name in reversed(list(enumerate(names)))}
    unknown = [
        v
        for v in known
        if str(v) not in by_name and not (isinstance(v, int) and 0 <= v < len(names))
    ]
    if unknown:
        raise DataError(f"Found labels {unknown[:5]} that are not among the classes {names[:5]}.")
    return [by_name[str(v)] if str(v) in by_name else int(v) for v in values], names


def _open(rows: Any, column: str, path: Path) -> BinaryIO:
    """The cell {"bytes", "path"} of the row that `path` numbers, as an open file. Raises
    `DataError`.
    """
    cell = rows[int(path.name)][column]
    if cell is None:
        raise DataError("nothing in this row")
    try:
        content = cell["bytes"] if cell["bytes"] is not None else Path(cell["path"]).read_bytes()
    except OSError as error:
        raise DataError(f"{cell['path']} cannot be read: {error.strerror or error}") from error
    return io.BytesIO(content)
