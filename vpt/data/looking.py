"""A folder, a zip or a CSV before anything is read: which files there are, what kind, how long,
which are copies.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from vpt.data.archives import Archive
from vpt.data.files import Files
from vpt.data.folders import list_folder
from vpt.data.manifests import list_manifest
from vpt.data.readers import kind_of
from vpt.data.series import FILE, SERIES, keep_together
from vpt.data.sounds import seconds_of
from vpt.data.sources import Columns, Listing
from vpt.errors import DataError
from vpt.errors.places import is_file, is_there

# the share of clips that are to be heard whole, when the clip length follows the data
MOST_CLIPS = 0.9


@dataclass
class Source:
    """The files of a folder, zip archive or CSV, listed and not read. archive: lives as long as
    this does. known: whether a file was read before, so that it need not be looked into again.
    """

    path: Path
    root: Path
    listing: Listing
    columns: Columns
    archive: Archive | None = None
    known: Callable[[Files, int], bool] | None = None

    @property
    def kind(self) -> str | None:
        """What most files are: "image", "sound", or None."""
        return self.listing.kind

    def shown(self, path: Path) -> str:
        """What a file is called for people: in an archive by its place there."""
        return self.archive.shown(path) if self.archive is not None else str(path)

    @cached_property
    def lengths(self) -> list[float]:
        """How long the sounds say they are, in seconds; those that cannot be opened are left
        out.
        """
        seconds = []
        for item in self.listing.items:
            if kind_of(item.path) == "sound" and is_file(item.path):
                try:
                    seconds.append(seconds_of(item.path))
                except DataError:
                    continue  # it is named when it is read
        return seconds

    @property
    def clip(self) -> float | None:
        """The length that nine of ten sounds do not exceed, in seconds; None where there is no
        sound.
        """
        if not self.lengths:
            return None
        return float(np.quantile(self.lengths, MOST_CLIPS, method="higher"))


def look(
    path: str | Path,
    label: str | None = None,
    group: str | Sequence[str] | None = None,
    split_by: str | None = None,
) -> Source:
    """List a folder (`class/file` or `split/class/file`), a zip of one, or a CSV. label, group,
    split_by: as for `load_data`. In a folder, files that are plainly numbered in series stay
    together (`vpt.data.series`).

    Raises `DataError`.
    """
    path, columns = Path(path), Columns.named(label, group, split_by)
    if not is_there(path):
        raise DataError(
            f"Found nothing at {path}; needed is a folder of classes, a zip archive of one, or a"
            " CSV manifest."
        )
    if path.is_file() and path.suffix.lower() not in (".csv", ".zip"):
        raise DataError(
            f"{path} is a file; needed is a folder of classes, a zip archive of one, or a CSV"
            " manifest (.csv)."
        )
    if not path.is_file():
        return _of_folder(path, path, columns)
    if path.suffix.lower() == ".csv":
        return Source(path, path, list_manifest(path, columns), columns)
    archive = Archive(path)
    try:
        if archive.manifest is None:
            return _of_folder(path, archive.root, columns, archive)
        listing = list_manifest(archive.manifest, columns, archive.root)
    except DataError as error:
        raise DataError(str(error).replace(str(archive.root), str(path))) from error
    return Source(path, archive.root, listing, columns, archive)


def _of_folder(path: Path, root: Path, columns: Columns, archive: Archive | None = None) -> Source:
    _refuse_columns(columns, path)
    listing = list_folder(root)
    together = keep_together(listing, columns.apart)
    return Source(
        path, root, listing, replace(columns, apart=SERIES if together else None), archive
    )


def _refuse_columns(columns: Columns, path: Path) -> None:
    apart = None if columns.apart in (SERIES, FILE) else columns.apart
    wanted = [name for name in (columns.label, *(columns.group or ()), apart) if name is not None]
    if wanted:
        names = f", or split_by={SERIES!r} or {FILE!r}, by the names of the files" if apart else ""
        raise DataError(
            f"{path} is a folder, which has no column {' or '.join(wanted)}; needed is a CSV"
            f" (path,label,…){names}."
        )


def copies(paths: Sequence[Path]) -> dict[int, int]:
    """Number → number of the first file with the same bytes, of every file that has a copy. Only
    files of one size are read.
    """
    by_size: dict[int, list[int]] = defaultdict(list)
    for i, path in enumerate(paths):
        if is_file(path):
            by_size[path.stat().st_size].append(i)
    first: dict[int, int] = {}
    for same_size in by_size.values():
        if len(same_size) == 1:
            continue
        by_bytes: dict[bytes, list[int]] = defaultdict(list)
        for i in same_size:
            with paths[i].open("rb") as file:
                by_bytes[hashlib.file_digest(file, "sha256").digest()].append(i)
        for twins in by_bytes.values():
            if len(twins) > 1:
                first |= dict.fromkeys(twins, twins[0])
    return first
