"""By what an input is known again: the bytes of its file, or what the model would be given."""

from __future__ import annotations

import hashlib

from torch import Tensor

from vpt.data import Examples
from vpt.data.files import Files, Windows
from vpt.data.joining import Joined
from vpt.data.readers import RawInput


def keys_of(heard: Examples) -> list[bytes]:
    """A digest of each input: of a file its bytes and the window, so that it need not be decoded;
    of anything else the raw input.
    """
    return [_of_bytes(heard, i) or _of_input(heard[i][0]) for i in range(len(heard))]


def alike_keys(*several: Examples) -> list[list[bytes]]:
    """Digests of the inputs of each, by which they can be compared with each other: by bytes where
    all are files, or else by the raw input, which a picture has in common with its file.
    """
    if all(_of_bytes(some, i) for some in several for i in range(min(1, len(some)))):
        return [keys_of(some) for some in several]
    return [[_of_input(some[i][0]) for i in range(len(some))] for some in several]


def _of_bytes(heard: Examples, i: int) -> bytes | None:
    """Of a file its bytes and the window; None for anything else."""
    get, index, window = heard.get, heard.indices[i], 0
    if isinstance(get, Windows):
        index, window = get.places[index]
        get = get.get
    while isinstance(get, Joined):
        part, index = get.find(index)
        get = part.get
    return of_file(get, index, window) if isinstance(get, Files) else None


def of_file(files: Files, index: int, window: int) -> bytes | None:
    """A digest of a window of a file; None where it is none that has bytes."""
    digest = files.digest(index)
    if digest is None:
        return None
    return hashlib.sha256(b"file" + digest + window.to_bytes(4, "little")).digest()


def _of_input(value: RawInput) -> bytes:
    parts = value if isinstance(value, tuple) else (value,)
    found = hashlib.sha256(b"input")
    for part in parts:
        if isinstance(part, Tensor):
            found.update(f"{part.dtype}{list(part.shape)}".encode())
            found.update(part.detach().cpu().contiguous().numpy().tobytes())
        else:
            found.update(str(part).encode())
    return found.digest()
