"""Where files and their labels stand: folders of classes, and CSV manifests."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

from vpt.errors import DataError

SPLITS = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "dev": "val", "test": "test"}
REQUIRED = ("path", "label")


@dataclass(frozen=True)
class Item:
    """One file: its label, and its group and split where they are given."""

    path: Path
    label: str
    group: str | None = None
    split: str | None = None


def list_folder(root: Path) -> list[Item]:
    """`class/file` or `split/class/file` (splits: train, val, test). Raises `DataError` for an empty folder."""
    folders = sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
    if folders and all(p.name.lower() in SPLITS for p in folders):
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
        files = sorted(p for p in folder.rglob("*") if p.is_file() and not p.name.startswith(".") and p.name != "Thumbs.db")
        found += [Item(path, folder.name, split=split) for path in files]
    return found


def list_manifest(path: Path) -> list[Item]:
    """A CSV with columns path, label and, if wanted, group and split; paths are relative to the CSV. Raises `DataError`."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
            columns = list(rows[0]) if rows else []
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} is not a CSV in UTF-8: {error}") from error
    if not rows:
        raise DataError(f"{path} has no rows; needed is a header path,label[,group][,split] and a row per file.")
    missing = [name for name in REQUIRED if name not in columns]
    if missing:
        raise DataError(
            f"{path} has no column {' or '.join(missing)} (found {', '.join(map(str, columns))}); "
            "needed are path,label[,group][,split]."
        )
    items = [_item(path, number, row) for number, row in enumerate(rows, 2)]
    lost = [str(item.path) for item in items if not item.path.is_file()]
    if lost:
        raise DataError(f"{path}: {len(lost)} of {len(items)} files are not there: {', '.join(lost[:5])}.")
    return items


def _item(manifest: Path, number: int, row: dict[str, str | None]) -> Item:
    if not row["path"] or not row["label"]:
        raise DataError(f"{manifest}, line {number}: empty path or label.")
    split = (row.get("split") or "").strip().lower() or None
    if split is not None and split not in SPLITS:
        raise DataError(f"{manifest}, line {number}: found split {split!r}; needed is train, val or test.")
    return Item(manifest.parent / row["path"], row["label"], row.get("group") or None, SPLITS[split] if split else None)
