"""Folders of classes, with splits or without: which files lie there, and what is odd about them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vpt.data.readers import kind_of
from vpt.data.sources import SPLITS, Item, Listing
from vpt.errors import DataError
from vpt.errors.places import is_file


def list_folder(root: Path) -> Listing:
    """`class/file` or `split/class/file` (splits: train, val, test). Raises `DataError` for an
    empty folder.
    """
    folders = _visible_folders(root)
    splits = [p for p in folders if p.name.lower() in SPLITS]
    in_splits = any(inner.is_dir() for p in splits for inner in p.iterdir())
    if in_splits and len(splits) < len(folders):
        others = ", ".join(p.name for p in folders if p not in splits)
        raise DataError(
            f"{root} holds splits ({', '.join(p.name for p in splits)}) and other folders"
            f" ({others}). Move the others away."
        )
    listing = Listing([])
    left_out: list[Path] = []
    if folders and len(splits) == len(folders):
        for folder in folders:
            left_out += _add_classes(listing, folder, SPLITS[folder.name.lower()])
    else:
        left_out = _add_classes(listing, root, None)
    if not listing.items:
        instead = f" (found {_counted(left_out)})" if left_out else ""
        raise DataError(
            f"{root} holds no labelled files{instead}; needed are files at CLASS/FILE or"
            " SPLIT/CLASS/FILE (SPLIT: train, val, test)."
        )
    if left_out:
        listing.notes.append(f"{_counted(left_out)} left out: neither pictures nor sound")
    return listing


def _visible_folders(root: Path) -> list[Path]:
    return sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))


def _add_classes(listing: Listing, root: Path, split: str | None) -> list[Path]:
    """Add the files of class folders; what lies there and is neither picture nor sound is given
    back.
    """
    left_out: list[Path] = []
    inner: dict[str, set[str]] = {}  # class → the folders in it that hold its files; "" is itself
    for folder in _visible_folders(root):
        files = sorted(
            p for p in folder.rglob("*") if not p.is_dir() and not _hidden(p.relative_to(folder))
        )
        media = [p for p in files if kind_of(p) is not None]
        left_out += [p for p in files if kind_of(p) is None]
        listing.items += [
            Item(path, folder.name, split=split, misplaced=_broken(path)) for path in media
        ]
        inner[folder.name] = {
            p.relative_to(folder).parts[0] if p.parent != folder else "" for p in media
        }
    listing.careful += _doubts(root, inner)
    if any(inner.values()):
        loose = [
            p
            for p in root.iterdir()
            if kind_of(p) is not None and not p.is_dir() and not _hidden(p.relative_to(root))
        ]
        beside = "it lies beside the class folders, so it has no label"
        listing.items += [Item(p, "", split=split, misplaced=beside) for p in sorted(loose)]
    return left_out


def _doubts(root: Path, inner: dict[str, set[str]]) -> list[str]:
    """What makes it doubtful that these folders are the classes. inner: class → the folders in it
    that hold its files.
    """
    doubts = []
    empty = [name for name, folders in inner.items() if not folders]
    if empty and len(empty) < len(inner):
        doubts.append(f"{_some('class folder', empty)} of {root.name} without files: left out")
    filled = [folders for folders in inner.values() if folders]
    if filled and not any("" in folders for folders in filled):
        doubts += _too_deep(inner, filled)
    like_splits = {
        word: [name for name in inner if word in name.lower()] for word in ("train", "test")
    }
    if all(like_splits.values()):
        doubts.append(
            f"the classes {like_splits['train'][0]}, {like_splits['test'][0]} are called like"
            " splits. If they are, call them train and test, with the class folders in them"
        )
    return doubts


def _too_deep(inner: dict[str, set[str]], filled: list[set[str]]) -> list[str]:
    """Whether the classes seem to lie one level deeper: no class folder holds a file of its own."""
    classes = ", ".join(list(inner)[:4])
    common = set.intersection(*filled)
    if len(common) > 1 and len(filled) > 1:
        return [
            f"the class folders ({classes}) hold no files of their own, but"
            f" folders of the same names ({', '.join(sorted(common)[:4])}). If those are the"
            " classes, the data lie one level too deep: move them up"
        ]
    alone = len(filled) == 1  # one class is none: whatever lies in it is what was meant
    if alone or any(len(folders) > 1 or folders == {name} for name, folders in inner.items()):
        return [
            f"the class folders ({classes}) hold no files of their own, but"
            f" folders ({', '.join(sorted(set.union(*filled))[:4])}). If those are the classes,"
            " they lie one level too deep: move them up"
        ]
    return []


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
