"""The bytes of a file: safetensors with a JSON header, and a SHA-256 over all of it; written whole
or not at all.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from vpt.errors import PromptFileError
from vpt.errors.places import is_file, is_folder, is_there
from vpt.sites import Config

MOST_BYTES = 2 << 30  # of a prompt file; a new classifier of 100,000 classes has a quarter of it
MARK = b'\\"sha256\\": \\"'  # as it stands in a JSON string inside a JSON string
EMPTY = b"0" * 64


def write_atomically(path: Path, data: bytes) -> None:
    """Write to a temporary name beside `path`, flush to disk, then rename. Raises `PromptFileError`
    if it cannot.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(name, 0o644)
            os.replace(name, path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        reason = getattr(error, "strerror", None) or error
        raise PromptFileError(
            f"{path} cannot be written: {reason}. Choose another place (out=…)."
        ) from error


def pack(tensors: Mapping[str, Tensor], header: Mapping[str, object]) -> bytes:
    """Tensors and a JSON header as safetensors bytes; the same input always gives the same
    bytes.
    """
    text = json.dumps({**header, "sha256": EMPTY.decode()}, sort_keys=True)
    plain = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    data = save_tensors(plain, metadata={"vpt": text})
    return data.replace(MARK + EMPTY, MARK + hashlib.sha256(data).hexdigest().encode(), 1)


def unpack(data: bytes, name: str) -> tuple[Config, dict[str, Tensor]]:
    """Bytes → (header, tensors). Raises `PromptFileError` for anything but the bytes that `pack`
    gave.
    """
    try:
        size = int.from_bytes(data[:8], "little")
        if size > len(data) - 8:
            raise ValueError("the file is cut short")
        header = json.loads(json.loads(data[8 : 8 + size])["__metadata__"]["vpt"])
        digest = header.pop("sha256")
        same = data.replace(MARK + digest.encode(), MARK + EMPTY, 1)
        if hashlib.sha256(same).hexdigest() != digest:
            raise ValueError("its SHA-256 does not match: it was altered or damaged")
        return header, load_tensors(data)
    except (
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        RecursionError,
        SafetensorError,
    ) as error:
        reason = f"no vpt header ({error!r})"
        if isinstance(error, ValueError) and not isinstance(error, UnicodeError):
            reason = str(error)
        raise PromptFileError(
            f"{name} is not a sound vpt file: {reason[:200]}. Copy it again from where it was made."
        ) from error


def file_bytes(path: Path) -> bytes:
    """A whole file of up to 2 GiB. Raises `PromptFileError` for one that is larger, missing, or no
    plain file (a pipe, a device).
    """
    try:
        if not is_file(path):
            reason = "it is no plain file"
            if not is_there(path):
                reason = "there is nothing"
            elif is_folder(path):
                reason = "it is a folder"
            raise PromptFileError(f"{path} cannot be read: {reason}.")
        if path.stat().st_size > MOST_BYTES:
            raise PromptFileError(
                f"{path} cannot be read: it has {path.stat().st_size / 1e9:.1f} GB, more than any"
                " prompt file."
            )
        return path.read_bytes()
    except (OSError, ValueError) as error:
        raise PromptFileError(
            f"{path} cannot be read: {getattr(error, 'strerror', None) or error}."
        ) from error
