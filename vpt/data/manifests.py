"""CSV manifests: which files a table lists, with label, group and split."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

from vpt.data.sources import JOIN, SPLITS, USUAL, Columns, Item, Listing
from vpt.errors import DataError
from vpt.errors.places import is_file

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs"}
Row = dict[str, str | None]


def list_manifest(path: Path, names: Columns = USUAL, inside: Path | None = None) -> Listing:
    """A CSV with columns path, label and, if wanted, group and split; paths are relative to the
    CSV.

    Its separator may be a semicolon or a tab. inside: the folder that no path may leave (of an
    archive). Raises `DataError`.
    """
    label = names.label or "label"
    rows, columns, separator = _rows(path, label)
    if not rows:
        raise DataError(
            f"{path} has no rows; needed is a header path,label[,group][,split] and a row per file."
        )
    missing = [name for name in ("path", label) if name not in columns]
    if missing:
        raise DataError(
            f"{path} has no column {' or '.join(missing)} (found {', '.join(map(str, columns))});"
            f" needed are path,{label}[,group][,split]; label=… (--label) and group=… (--group)"
            " name other columns."
        )
    if names.apart is not None and names.apart not in columns:
        raise DataError(
            f"{path} has no column {names.apart} to split by (found"
            f" {', '.join(map(str, columns))})."
        )
    groups = names.groups(columns, path)
    items = [_item(path, number, row, label, groups, names.apart) for number, row in rows]
    _check_places(path, items, inside)
    notes = []
    if separator != ",":
        notes.append(f"{path.name} was read with {SEPARATORS[separator]} between its columns")
    return Listing(items, notes)


def _check_places(manifest: Path, items: list[Item], inside: Path | None) -> None:
    """Raise `DataError` for files that are not there, lie outside, or are listed twice."""
    lost = [str(item.path) for item in items if not is_file(item.path)]
    if lost:
        raise DataError(
            f"{manifest}: {len(lost)} of {len(items)} files are not there: {', '.join(lost[:5])}."
        )
    if inside is not None:
        root = inside.resolve()
        outside = [str(item.path) for item in items if not item.path.resolve().is_relative_to(root)]
        if outside:
            raise DataError(
                f"{manifest}: {len(outside)} of {len(items)} files lie outside of the archive:"
                f" {', '.join(outside[:5])}."
            )
    first: dict[Path, int] = {}
    twice = [
        item.path for i, item in enumerate(items) if first.setdefault(item.path.resolve(), i) != i
    ]
    if twice:
        raise DataError(
            f"{manifest} lists {len(twice)} files more than once:"
            f" {', '.join(map(str, twice[:5]))}. A file has one label and is in one split; remove"
            " the other rows."
        )


def _rows(path: Path, label: str) -> tuple[list[tuple[int, Row]], list[str], str]:
    """(line number and row, columns, the separator): the first separator with which the header
    names path and label.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            separator = _separator(file.readline(), label)
            file.seek(0)
            reader = csv.DictReader(file, delimiter=separator)
            reader.fieldnames = [name.strip() for name in reader.fieldnames or []]
            rows = [(reader.line_num, row) for row in reader]
            columns = list(reader.fieldnames or [])
    except (UnicodeError, csv.Error) as error:
        raise DataError(f"{path} is not a CSV in UTF-8: {error}") from error
    twice = sorted(name for name, count in Counter(columns).items() if count > 1)
    if twice:
        raise DataError(
            f"{path} has {len(twice)} columns twice ({', '.join(map(str, twice[:5]))}); needed is"
            " one of each name."
        )
    return rows, columns, separator


def _separator(header: str, label: str) -> str:
    for separator in SEPARATORS:
        if {"path", label} <= {cell.strip().strip('"') for cell in header.split(separator)}:
            return separator
    return ","


def _item(
    manifest: Path,
    number: int,
    row: Row,
    label_column: str,
    group_columns: tuple[str, ...],
    apart: str | None,
) -> Item:
    """A row as an item. Raises `DataError` naming its line.

    manifest: the table.
    number: the line.
    row: its cells, by column.
    label_column: the column of the label.
    group_columns: those that make the group.
    apart: the column of the unit, or None.
    """
    path, label, split = (_cell(row, name) for name in ("path", label_column, "split"))
    groups = [_cell(row, name) for name in group_columns]
    if not path or not label:
        raise DataError(f"{manifest}, line {number}: empty path or {label_column}.")
    if split and split.lower() not in SPLITS:
        raise DataError(
            f"{manifest}, line {number}: found split {split!r}; needed is train, val or test."
        )
    unit = None
    if apart is not None:
        unit = _cell(row, apart)
        if not unit:
            raise DataError(
                f"{manifest}, line {number}: empty {apart}, by which the data are to be split."
            )
    return Item(
        manifest.parent / path,
        label,
        group=JOIN.join(groups) if groups and all(groups) else None,
        split=SPLITS[split.lower()] if split else None,
        unit=unit,
    )


def _cell(row: Row, column: str) -> str:
    return (row.get(column) or "").strip()
