"""Where files and their labels stand: folders of classes, and CSV manifests; and what is odd about
them.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from vpt.data.readers import kind_of
from vpt.errors import DataError
from vpt.errors.places import is_file

SPLITS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
}
JOIN = ", "  # between the names of a group of several columns
SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs"}


@dataclass(frozen=True)
class Columns:
    """What the columns of a table are called: of the label (None: the usual names), and of the
    group, one or several.

    Several columns make one group of each combination that occurs. group None: the column "group",
    where there is one. apart: the column whose values each stay on one side when examples are held
    out (a person, a speaker), or None.
    """

    label: str | None = None
    group: tuple[str, ...] | None = None
    apart: str | None = None

    @classmethod
    def named(
        cls,
        label: str | None = None,
        group: str | Sequence[str] | None = None,
        apart: str | None = None,
    ) -> Columns:
        """Columns as people name them: one group column as text, or several."""
        return cls(
            label,
            (group,) if isinstance(group, str) else tuple(group) if group is not None else None,
            apart,
        )

    def groups(self, found: Sequence[str], where: object) -> tuple[str, ...]:
        """The group columns among those found. Raises `DataError` for one that was named and is not
        there.
        """
        missing = [name for name in self.group or () if name not in found]
        if missing:
            raise DataError(
                f"{where} has no group column {' or '.join(missing)} (found"
                f" {', '.join(map(str, found))}); name those that say which group an example"
                " belongs to."
            )
        return (
            self.group
            if self.group is not None
            else tuple(name for name in ("group",) if name in found)
        )


USUAL = Columns()


@dataclass(frozen=True)
class Item:
    """One file: its label, and its group and split where they are given; misplaced says why it
    belongs to no class.

    unit: what it belongs to that stays on one side when examples are held out.
    """

    path: Path
    label: str
    group: str | None = None
    split: str | None = None
    misplaced: str | None = None
    unit: str | None = None


@dataclass
class Listing:
    """The files of a source, none of which is read yet. notes: what was understood. careful: what
    looks wrong.
    """

    items: list[Item]
    notes: list[str] = field(default_factory=list)
    careful: list[str] = field(default_factory=list)

    @property
    def kind(self) -> str | None:
        """What most files are: "image", "sound", or None for neither."""
        counts = Counter(kind_of(item.path) for item in self.items)
        return (
            max(("image", "sound"), key=lambda kind: counts[kind])
            if counts["image"] or counts["sound"]
            else None
        )


def list_folder(root: Path) -> Listing:
    """`class/file` or `split/class/file` (splits: train, val, test). Raises `DataError` for an
    empty folder.
    """
    folders = sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
    splits = [p for p in folders if p.name.lower() in SPLITS]
    if (
        splits
        and len(splits) < len(folders)
        and any(q.is_dir() for p in splits for q in p.iterdir())
    ):
        odd = ", ".join(p.name for p in folders if p not in splits)
        raise DataError(
            f"{root} holds splits ({', '.join(p.name for p in splits)}) and other folders ({odd})."
            " Move the others away."
        )
    found = Listing([])
    if folders and len(splits) == len(folders):
        others = [other for p in folders for other in _classes(found, p, SPLITS[p.name.lower()])]
    else:
        others = _classes(found, root, None)
    if not found.items:
        instead = f" (found {_counted(others)})" if others else ""
        raise DataError(
            f"{root} holds no labelled files{instead}; needed are files at CLASS/FILE or"
            " SPLIT/CLASS/FILE (SPLIT: train, val, test)."
        )
    if others:
        found.notes.append(f"{_counted(others)} left out: neither pictures nor sound")
    return found


def _classes(found: Listing, root: Path, split: str | None) -> list[Path]:
    """Add the files of class folders; what lies there and is neither picture nor sound is given
    back.
    """
    others: list[Path] = []
    folders = sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
    inner: dict[str, set[str]] = {}
    start = len(found.items)
    for folder in folders:
        files = sorted(
            p for p in folder.rglob("*") if not p.is_dir() and not _hidden(p.relative_to(folder))
        )
        media = [p for p in files if kind_of(p) is not None]
        others += [p for p in files if kind_of(p) is None]
        found.items += [
            Item(path, folder.name, split=split, misplaced=_broken(path)) for path in media
        ]
        inner[folder.name] = {
            p.relative_to(folder).parts[0] if p.parent != folder else "" for p in media
        }
    empty = [name for name, parts in inner.items() if not parts]
    if empty and len(empty) < len(folders):
        found.careful.append(
            f"{_some('class folder', empty)} of {root.name} without files: left out"
        )
    held = [parts for parts in inner.values() if parts]
    alike = set.intersection(*held) if held else set()
    if len(held) > 1 and len(alike) > 1 and not any("" in parts for parts in held):
        found.careful.append(
            f"the class folders ({', '.join(list(inner)[:4])}) hold no files of their own, but"
            f" folders of the same names ({', '.join(sorted(alike)[:4])}). If those are the"
            " classes, the data lie one level too deep: move them up"
        )
    elif (
        len(held) > 1
        and not any("" in parts for parts in held)
        and any(len(parts) > 1 or parts == {name} for name, parts in inner.items())
    ):
        found.careful.append(
            f"the class folders ({', '.join(list(inner)[:4])}) hold no files of their own, but"
            f" folders ({', '.join(sorted(set.union(*held))[:4])}). If those are the classes, they"
            " lie one level too deep: move them up"
        )
    named = {word: [name for name in inner if word in name.lower()] for word in ("train", "test")}
    if all(named.values()):
        found.careful.append(
            f"the classes {', '.join(named['train'][:1] + named['test'][:1])} are called like"
            " splits. If they are, call them train and test, with the class folders in them"
        )
    loose = [
        p
        for p in root.iterdir()
        if kind_of(p) is not None and not p.is_dir() and not _hidden(p.relative_to(root))
    ]
    if len(found.items) > start:
        beside = "it lies beside the class folders, so it has no label"
        found.items += [Item(p, "", split=split, misplaced=beside) for p in sorted(loose)]
    return others


def _counted(files: Sequence[Path]) -> str:
    """ "3 files (notes.txt, desktop.ini, …)"."""
    return (
        f"{len(files)} file{'s' * (len(files) != 1)}"
        f" ({', '.join(p.name for p in files[:3])}{', …' * (len(files) > 3)})"
    )


def _some(what: str, names: Sequence[str]) -> str:
    return f"{what}{'s' * (len(names) != 1)} {', '.join(names[:5])}{', …' * (len(names) > 5)}"


def _broken(path: Path) -> str | None:
    if is_file(path):
        return None
    return "no plain file" if path.exists() else "a link to nothing"


def _hidden(path: Path) -> bool:
    """Whether a path, or a folder on it, is one that people do not see (such as
    .ipynb_checkpoints).
    """
    return path.name == "Thumbs.db" or any(part.startswith(".") for part in path.parts)


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
    lost = [str(item.path) for item in items if not is_file(item.path)]
    if lost:
        raise DataError(
            f"{path}: {len(lost)} of {len(items)} files are not there: {', '.join(lost[:5])}."
        )
    if inside is not None:
        outside = [
            str(item.path)
            for item in items
            if not item.path.resolve().is_relative_to(inside.resolve())
        ]
        if outside:
            raise DataError(
                f"{path}: {len(outside)} of {len(items)} files lie outside of the archive:"
                f" {', '.join(outside[:5])}."
            )
    first: dict[Path, int] = {}
    twice = [
        item.path for i, item in enumerate(items) if first.setdefault(item.path.resolve(), i) != i
    ]
    if twice:
        raise DataError(
            f"{path} lists {len(twice)} files more than once: {', '.join(map(str, twice[:5]))}. A"
            " file has one label and is in one split; remove the other rows."
        )
    return Listing(
        items,
        (
            []
            if separator == ","
            else [f"{path.name} was read with {SEPARATORS[separator]} between its columns"]
        ),
    )


def _rows(path: Path, label: str) -> tuple[list[tuple[int, dict[str, str | None]]], list[str], str]:
    """(line number and row, columns, the separator): the first separator with which the header
    names path and label.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            header = file.readline()
            named = [
                s
                for s in SEPARATORS
                if {"path", label} <= {c.strip().strip('"') for c in header.split(s)}
            ]
            separator = named[0] if named else ","
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


def _item(
    manifest: Path,
    number: int,
    row: dict[str, str | None],
    label_column: str,
    group_columns: tuple[str, ...],
    apart: str | None,
) -> Item:
    path, label, split = ((row.get(name) or "").strip() for name in ("path", label_column, "split"))
    of = [(row.get(name) or "").strip() for name in group_columns]
    group = JOIN.join(of) if of and all(of) else None
    if not path or not label:
        raise DataError(f"{manifest}, line {number}: empty path or {label_column}.")
    if split and split.lower() not in SPLITS:
        raise DataError(
            f"{manifest}, line {number}: found split {split!r}; needed is train, val or test."
        )
    unit = (row.get(apart) or "").strip() or None if apart is not None else None
    if apart is not None and unit is None:
        raise DataError(
            f"{manifest}, line {number}: empty {apart}, by which the data are to be split."
        )
    return Item(
        manifest.parent / path, label, group, SPLITS[split.lower()] if split else None, unit=unit
    )
