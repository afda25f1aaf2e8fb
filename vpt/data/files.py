"""The raw inputs of files, each read once and kept; and the windows of sounds that are longer than
what a model hears.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

from torch import Tensor

from vpt.data.readers import RawInput, as_floats
from vpt.errors import DataError

CACHE_BYTES = 2 << 30


@runtime_checkable
class InWindows(Protocol):
    """index → raw input, of which there may be several windows."""

    def __call__(self, index: int, window: int | None = None, /) -> RawInput:
        """The raw input of a window, by default the first of those that can be used."""

    def windows(self, index: int, /) -> list[int]:
        """The windows that can be used: [0] where there is one."""


class Files:
    """index → raw input of one file, read once and kept while all that is kept stays under 2 GiB.

    A clip of sound that is longer than what the model hears has several windows; silent ones are
    left out.
    """

    def __init__(
        self, paths: Sequence[Path], read: Callable[..., RawInput], keep: object = None
    ) -> None:
        self.paths = list(paths)
        self.read = read
        self.keep = keep  # what must live as long as the files (an archive)
        self.copies: dict[int, int] = {}  # of files with the same bytes: number → first number
        self._kept: dict[tuple[int, int], RawInput] = {}
        self._bytes = 0
        self._windows: dict[int, list[int]] = {}
        self._digests: dict[int, bytes | None] = {}

    def __call__(self, index: int, window: int | None = None) -> RawInput:
        """The raw input: image `[C,H,W]` in [0,1], or (waveform `[T]`, length) of a window, by
        default the first of those that can be used. Raises `DataError` naming the file.
        """
        window = self.windows(index)[0] if window is None else window
        value = self._kept.get((index, window))
        if value is None:
            path = self.paths[index]
            try:
                value = self.read(path, window) if window else self.read(path)
            except DataError as error:
                raise DataError(f"{path}: {error}") from error
            self._keep((index, window), value)
        return as_floats(value)

    def _keep(self, key: tuple[int, int], value: RawInput) -> None:
        parts = value if isinstance(value, tuple) else (value,)
        size = sum(part.nbytes for part in parts if isinstance(part, Tensor))
        if self._bytes + size <= CACHE_BYTES:
            self._kept[key] = value
            self._bytes += size

    def windows(self, index: int) -> list[int]:
        """The windows of this file that can be used: [0] where it has one. Raises `DataError` where
        it has none.
        """
        if index not in self._windows:
            self._windows[index] = self._usable(index)
        return self._windows[index]

    def _usable(self, index: int) -> list[int]:
        count = getattr(self.read, "windows", None)  # of a `Reader`
        try:
            number = count(self.paths[index]) if count is not None else 1
        except DataError as error:
            raise DataError(f"{self.paths[index]}: {error}") from error
        if number == 1:
            return [0]
        usable: list[int] = []
        reason: DataError | None = None
        for window in range(number):
            try:
                self(index, window)
                usable.append(window)
            except DataError as error:
                reason = reason or error
        if not usable:
            raise reason or DataError(f"{self.paths[index]}: no samples")
        return usable

    def digest(self, index: int) -> bytes | None:
        """SHA-256 of the bytes of this file; None where it is none that has some."""
        of = getattr(self.read, "digest", None)  # of a `Reader`
        if of is not None and index not in self._digests:
            self._digests[index] = of(self.paths[index])
        return self._digests.get(index)

    def reason(self, index: int) -> str | None:
        """Why this file cannot be used, or None."""
        try:
            self(index)
        except DataError as error:
            return str(error).removeprefix(f"{self.paths[index]}: ")
        return None


class Windows:
    """index → raw input of one window of one file."""

    def __init__(self, get: Callable[..., RawInput], places: Sequence[tuple[int, int]]) -> None:
        self.get = get
        self.places = list(places)  # (number of the file, of the window)

    def __call__(self, index: int) -> RawInput:
        """The raw input of this window."""
        return self.get(*self.places[index])
