"""By what an input is known again: the bytes of its file, or what the model would be given."""

from __future__ import annotations

import hashlib

from torch import Tensor

from vpt.data import Examples
from vpt.data.files import Files, Windows
from vpt.data.readers import RawInput


def keys_of(heard: Examples) -> list[bytes]:
    """A digest of each input: of a file its bytes and the window, so that it need not be decoded;
    of anything else the raw input.
    """
    return [_key(heard, i) for i in range(len(heard))]


def _key(heard: Examples, i: int) -> bytes:
    get, index = heard.get, heard.indices[i]
    if isinstance(get, Windows) and isinstance(get.get, Files):
        file, window = get.places[index]
        key = of_file(get.get, file, window)
    else:
        key = of_file(get, index, 0) if isinstance(get, Files) else None
    return key if key is not None else _of_input(heard[i][0])


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
