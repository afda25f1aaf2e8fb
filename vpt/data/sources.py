"""Where files and their labels stand: folders of classes, and CSV manifests."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vpt.data.readers import AUDIO_SUFFIXES, IMAGE_SUFFIXES
from vpt.errors import DataError
from vpt.places import is_file

SPLITS = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "dev": "val", "test": "test"}
JOIN = ", "  # between the names of a group of several columns


@dataclass(frozen=True)
class Columns:
    """What the columns of a table are called: of the label (None: the usual names), and of the group, one or several.

    Several columns make one group of each combination that occurs. group None: the column "group", where there is one.
    """

    label: str | None = None
    group: tuple[str, ...] | None = None

    def groups(self, found: Sequence[str], where: object) -> tuple[str, ...]:
        """The group columns among those found. Raises `DataError` for one that was named and is not there."""
        missing = [name for name in self.group or () if name not in found]
        if missing:
            raise DataError(
                f"{where} has no group column {' or '.join(missing)} (found {', '.join(map(str, found))}); name those that say "
                "which group an example belongs to."
            )
        return self.group if self.group is not None else tuple(name for name in ("group",) if name in found)


USUAL = Columns()


@dataclass(frozen=True)
class Item:
    """One file: its label, and its group and split where they are given; misplaced says why it belongs to no class."""

    path: Path
    label: str
    group: str | None = None
    split: str | None = None
    misplaced: str | None = None


def list_folder(root: Path) -> list[Item]:
    """`class/file` or `split/class/file` (splits: train, val, test). Raises `DataError` for an empty folder."""
    folders = sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
    splits = [p for p in folders if p.name.lower() in SPLITS]
    if splits and len(splits) < len(folders) and any(q.is_dir() for p in splits for q in p.iterdir()):
        odd = ", ".join(p.name for p in folders if p not in splits)
        raise DataError(
            f"{root} holds splits ({', '.join(p.name for p in splits)}) and other folders ({odd}). Move the others away."
        )
    if folders and len(splits) == len(folders):
        items = [item for p in folders for item in _classes(p, SPLITS[p.name.lower()])]
    else:
        items = _classes(root, None)
    if not items:
        raise DataError(
            f"{root} holds no labelled files; needed are files at CLASS/FILE or SPLIT/CLASS/FILE (SPLIT: train, val, test)."
        )
    return items


def _classes(root: Path, split: str | None) -> list[Item]:
    found = []
    for folder in sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith(".")):
        files = sorted(p for p in folder.rglob("*") if not p.is_dir() and not _hidden(p.relative_to(folder)))
        found += [Item(path, folder.name, split=split, misplaced=_broken(path)) for path in files]
    loose = (p for p in root.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES + AUDIO_SUFFIXES and not p.is_dir())
    beside = "it lies beside the class folders, so it has no label"
    return found + [
        Item(p, "", split=split, misplaced=beside) for p in sorted(loose) if found and not _hidden(p.relative_to(root))
    ]


def _broken(path: Path) -> str | None:
    return None if path.exists() else "a link to nothing"


def _hidden(path: Path) -> bool:
    """Whether a path, or a folder on it, is one that people do not see (such as .ipynb_checkpoints)."""
    return path.name == "Thumbs.db" or any(part.startswith(".") for part in path.parts)


def list_manifest(path: Path, names: Columns = USUAL) -> list[Item]:
    """A CSV with columns path, label and, if wanted, group and split; paths are relative to the CSV. Raises `DataError`."""
    label = names.label or "label"
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            rows = [(reader.line_num, row) for row in reader]
            columns = list(reader.fieldnames or [])
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} is not a CSV in UTF-8: {error}") from error
    if not rows:
        raise DataError(f"{path} has no rows; needed is a header path,label[,group][,split] and a row per file.")
    missing = [name for name in ("path", label) if name not in columns]
    if missing:
        raise DataError(
            f"{path} has no column {' or '.join(missing)} (found {', '.join(map(str, columns))}); "
            f"needed are path,{label}[,group][,split]; label=… (--label) and group=… (--group) name other columns."
        )
    groups = names.groups(columns, path)
    items = [_item(path, number, row, label, groups) for number, row in rows]
    lost = [str(item.path) for item in items if not is_file(item.path)]
    if lost:
        raise DataError(f"{path}: {len(lost)} of {len(items)} files are not there: {', '.join(lost[:5])}.")
    first: dict[Path, int] = {}
    twice = [item.path for i, item in enumerate(items) if first.setdefault(item.path.resolve(), i) != i]
    if twice:
        raise DataError(
            f"{path} lists {len(twice)} files more than once: {', '.join(map(str, twice[:5]))}. A file has one label and is in "
            "one split; remove the other rows."
        )
    return items


def _item(manifest: Path, number: int, row: dict[str, str | None], label_column: str, group_columns: tuple[str, ...]) -> Item:
    path, label, split = ((row.get(name) or "").strip() for name in ("path", label_column, "split"))
    of = [(row.get(name) or "").strip() for name in group_columns]
    group = JOIN.join(of) if of and all(of) else None
    if not path or not label:
        raise DataError(f"{manifest}, line {number}: empty path or {label_column}.")
    if split and split.lower() not in SPLITS:
        raise DataError(f"{manifest}, line {number}: found split {split!r}; needed is train, val or test.")
    return Item(manifest.parent / path, label, group, SPLITS[split.lower()] if split else None)
