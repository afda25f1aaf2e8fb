"""Data sets of Hugging Face's `datasets` library: which column is the input, which the label, which
the group.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol, overload

from vpt.data.examples import Examples
from vpt.data.files import Files
from vpt.data.readers import Reader
from vpt.data.sources import JOIN, USUAL, Columns
from vpt.errors import DataError
from vpt.sites import InputsLike

if TYPE_CHECKING:
    from typing_extensions import TypeIs

LABELS = ("label", "labels", "fine_label", "class", "target")
Value = str | int  # of a column of labels or groups


class HubDataset(Protocol):
    """What is asked of a `datasets.Dataset`."""

    features: Mapping[str, Any]  # column → what it holds; a class of labels has `names`

    def __len__(self) -> int: ...

    @overload
    def __getitem__(self, key: int, /) -> Mapping[str, Any]: ...

    @overload
    def __getitem__(self, key: str, /) -> Sequence[Value]: ...

    def cast_column(self, column: str, feature: object, /) -> HubDataset:
        """The same rows, with a column of another kind."""

    def with_format(self, type: None, /) -> HubDataset:
        """The same rows as plain values."""


def is_hub_dataset(source: object) -> TypeIs[HubDataset]:
    """Whether this is a `datasets.Dataset` (the library itself need not be there to ask)."""
    return type(source).__module__.startswith("datasets.") and hasattr(source, "features")


def from_hub(
    source: HubDataset, inputs: InputsLike, classes: Sequence[str] | None, columns: Columns = USUAL
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
    if group_columns := columns.groups(list(kinds), "The data set"):
        cells = [_names_in(source, name) for name in group_columns]
        groups, group_names = _numbered([JOIN.join(row) for row in zip(*cells, strict=True)], None)
    units = None
    if columns.apart is not None:
        if columns.apart not in kinds:
            raise DataError(
                f"Found no column {columns.apart!r} to split by among {', '.join(kinds)}."
            )
        units, _ = _numbered(_names_in(source, columns.apart), None)
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
    columns = [name for name, feature in kinds.items() if feature == wanted]
    if len(columns) != 1:
        raise DataError(
            f"Found {len(columns)} columns of type {wanted} among {', '.join(kinds)}; needed is"
            f" one. Use dataset.select_columns(…), or dataset.cast_column(…, datasets.{wanted}())."
        )
    return columns[0]


def _names_in(source: HubDataset, column: str) -> list[str]:
    """The values of a column, by name where its feature has names."""
    numbers, names = _numbered(source[column], getattr(source.features[column], "names", None))
    return [names[number] for number in numbers]


def _plain(source: HubDataset, label: str | None = None) -> tuple[HubDataset, str]:
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
    if label is None:
        usual = [name for name in LABELS if name in features]
        numbered = [name for name, f in features.items() if type(f).__name__ == "ClassLabel"]
        if not usual and not numbered:
            raise DataError(
                f"Found no column of labels among {', '.join(features)}; rename it to 'label'."
            )
        label = (usual or numbered)[0]
    return source.with_format(None), label


def hub_classes(sources: Sequence[HubDataset], label: str | None = None) -> list[str] | None:
    """The names of all labels of several data sets that do not name them, sorted; None where one
    does, or there are none.
    """
    columns = [_plain(source, label) for source in sources]
    if not columns or any(
        getattr(source.features[column], "names", None) for source, column in columns
    ):
        return None
    values = [value for source, column in columns for value in source[column]]
    return [str(value) for value in _distinct(values)]


def _distinct(values: Sequence[Value]) -> list[Value]:
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


def _numbered(values: Sequence[Value], names: Sequence[str] | None) -> tuple[list[int], list[str]]:
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


def _open(rows: HubDataset, column: str, path: Path) -> BinaryIO:
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
