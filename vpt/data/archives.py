"""A zip archive of a folder: unpacked where it may be, and gone again with the data."""

from __future__ import annotations

import shutil
import tempfile
import weakref
import zipfile
from pathlib import Path

from vpt.errors import DataError


class Archive:
    """An unpacked zip archive; `root` is the folder in it that holds the classes, splits, or manifest.

    The folder lives as long as this object. Raises `DataError` for what is no archive, is damaged, or is larger than the disk.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        place = self._place = Path(tempfile.mkdtemp(prefix="vpt-"))
        weakref.finalize(self, shutil.rmtree, place, ignore_errors=True)
        try:
            with zipfile.ZipFile(path) as archive:
                size, free = sum(info.file_size for info in archive.infolist()), shutil.disk_usage(place).free
                if size > free:
                    raise DataError(f"{path} unpacks to {size / 1e9:.1f} GB; {place} has {free / 1e9:.1f} GB left.")
                archive.extractall(place)  # it keeps absolute and upward names inside the folder
        except (zipfile.BadZipFile, OSError, RuntimeError, EOFError, NotImplementedError) as error:
            raise DataError(f"{path} is not a sound zip archive: {error}") from error
        self.root = _inner(place)

    def shown(self, path: Path) -> str:
        """What a file in it is called: archive.zip/folder/file."""
        return f"{self.path}/{path.relative_to(self._place)}"


def _inner(folder: Path) -> Path:
    """The folder itself, or the only one in it: people zip a folder more often than what it holds."""
    seen = [p for p in folder.iterdir() if not p.name.startswith((".", "__MACOSX"))]
    if len(seen) == 1 and seen[0].is_dir() and any(p.is_dir() for p in seen[0].iterdir()):
        return _inner(seen[0])
    return folder
