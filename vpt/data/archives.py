"""A zip archive of a folder: unpacked where it may be, and gone again with the data."""

from __future__ import annotations

import lzma
import shutil
import tempfile
import weakref
import zipfile
import zlib
from contextlib import suppress
from pathlib import Path

from vpt.data.sources import SPLITS
from vpt.errors import DataError

# ValueError: names that are none, or not in the encoding that they claim
UNSOUND = (
    zipfile.BadZipFile,
    OSError,
    RuntimeError,
    EOFError,
    NotImplementedError,
    ValueError,
    lzma.LZMAError,
    zlib.error,
)


class Archive:
    """An unpacked zip archive; `root` is the folder in it that holds the classes or splits,
    `manifest` the only CSV there.

    The folder lives as long as this object. Raises `DataError` for what is no archive, is damaged,
    or is larger than the disk.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        place = Path(tempfile.mkdtemp(prefix="vpt-"))
        self._place = place
        weakref.finalize(self, shutil.rmtree, place, ignore_errors=True)
        try:
            with zipfile.ZipFile(path) as archive:
                size = sum(info.file_size for info in archive.infolist())
                free = shutil.disk_usage(place).free
                if size > free:
                    raise DataError(
                        f"{path} unpacks to {size / 1e9:.1f} GB; {place} has {free / 1e9:.1f} GB"
                        " left."
                    )
                for info in archive.infolist():
                    if info.filename.startswith("__MACOSX/"):
                        continue
                    # it keeps absolute and upward names inside the folder
                    archive.extract(_in_utf8(info), place)
        except UNSOUND as error:
            raise DataError(f"{path} is not a sound zip archive: {error}") from error
        self.root = _inner(place)
        self.manifest = _manifest(self.root)

    def shown(self, path: Path) -> str:
        """What a file in it is called: archive.zip/folder/file."""
        if not path.is_relative_to(self._place):
            return str(path)
        return f"{self.path}/{path.relative_to(self._place)}"


def _inner(folder: Path) -> Path:
    """The folder itself, or the only one in it: people zip a folder more often than what it
    holds.
    """
    if _manifest(folder) is not None:
        return folder
    folders = [p for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")]
    if len(folders) == 1 and folders[0].name.lower() not in SPLITS:
        inside = folders[0]
        if _manifest(inside) is not None or any(p.is_dir() for p in inside.iterdir()):
            return _inner(inside)
    return folder


def _manifest(folder: Path) -> Path | None:
    """The only CSV in a folder."""
    tables = [p for p in folder.glob("*.csv") if not p.name.startswith(".")]
    return tables[0] if len(tables) == 1 else None


def _in_utf8(info: zipfile.ZipInfo) -> zipfile.ZipInfo:
    """Names that a zip tool wrote in UTF-8 without saying so."""
    if not info.flag_bits & 0x800:
        with suppress(UnicodeError):
            info.filename = info.filename.encode("cp437").decode("utf-8")
    return info
