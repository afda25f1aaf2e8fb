"""One file → raw input: an image in [0,1], or a window of sound as (waveform, length)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from vpt.data.sounds import decode_sound, seconds_of, starts_of
from vpt.errors import DataError
from vpt.errors.places import is_file, is_folder, is_there
from vpt.sites import ImagesLike, InputsLike, SoundLike, takes_images

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")
AUDIO_SUFFIXES = (".wav", ".flac", ".ogg", ".mp3")
# whatever a file is called: others run programs (EPS), or decoders that nobody asked for
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
MOST_PIXELS = 1 << 27  # of a picture that is decoded: 134 million, 0.4 GB
WORDS = {"image": "pictures", "sound": "sound"}  # kinds of files, for people

RawInput = Tensor | tuple[Tensor, int]  # of one example: image `[C,H,W]`, or (waveform, length)


def suffixes(kind: str) -> tuple[str, ...]:
    """File endings that are read as "image" or "sound"."""
    return IMAGE_SUFFIXES if kind == "image" else AUDIO_SUFFIXES


def kind_of(path: Path) -> str | None:
    """What a file is by its ending: "image", "sound" or None."""
    ending = path.suffix.lower()
    if ending in IMAGE_SUFFIXES:
        return "image"
    return "sound" if ending in AUDIO_SUFFIXES else None


class Reader:
    """path → raw input as `inputs` (a backbone's) wants it: a uint8 image `[C,H,W]`, or (waveform
    `[T]`, length) of a window.

    opened: path → what is decoded, the path itself or an open file. Raises `DataError` with the
        reason.
    """

    def __init__(
        self, inputs: InputsLike, opened: Callable[[Path], Path | BinaryIO] | None = None
    ) -> None:
        self.inputs = inputs
        self.opened = opened

    def __call__(self, path: Path, window: int = 0) -> RawInput:
        """The raw input. window: which one, of a clip that is longer than what the model hears."""
        inputs, file = self.inputs, self._open(path)
        if takes_images(inputs):
            return fit_image(open_image(file), inputs)
        starts = _starts(file, inputs)
        start = starts[min(window, len(starts) - 1)]
        return decode_sound(file, inputs.sample_rate, inputs.samples, start)

    def windows(self, path: Path) -> int:
        """How many windows of what the model hears a file has; 1 for a picture."""
        inputs = self.inputs
        return 1 if takes_images(inputs) else len(_starts(self._open(path), inputs))

    def digest(self, path: Path) -> bytes | None:
        """SHA-256 of the bytes of a file; None where there is none."""
        file = self._open(path)
        if not isinstance(file, Path):
            with file:
                return hashlib.sha256(file.read()).digest()
        return hashlib.sha256(file.read_bytes()).digest() if is_file(file) else None

    def _open(self, path: Path) -> Path | BinaryIO:
        return self.opened(path) if self.opened is not None else path


def _starts(file: Path | BinaryIO, inputs: SoundLike) -> list[float]:
    if isinstance(file, Path):
        require_file(file)
    return starts_of(seconds_of(file), inputs.samples / inputs.sample_rate)


def reader(inputs: InputsLike) -> Reader:
    """path → raw input as `inputs` wants it."""
    return Reader(inputs)


def require_file(path: Path) -> None:
    """Raise `DataError` for what is no plain file: nothing, a folder, or a pipe or device, which
    would never end.
    """
    if is_folder(path):
        raise DataError("a folder")
    if not is_file(path):
        raise DataError("no plain file" if is_there(path) else "no such file")


def open_image(path: Path | BinaryIO) -> Image.Image:
    """A decoded picture of a path or open file, turned upright. Raises `DataError` with the reason,
    whatever a decoder throws.
    """
    if isinstance(path, Path):
        require_file(path)
    try:
        with Image.open(path, formats=FORMATS) as image:
            if image.width * image.height > MOST_PIXELS:
                raise DataError(
                    f"{image.width} × {image.height} pixels; read are at most"
                    f" {MOST_PIXELS / 1e6:.0f} million"
                )
            image.load()
            return ImageOps.exif_transpose(image)
    except DataError:
        raise
    except Image.DecompressionBombError as error:  # of twice as many as PIL warns of
        raise DataError(f"more pixels than {MOST_PIXELS / 1e6:.0f} million") from error
    except UnidentifiedImageError as error:
        raise DataError("empty file" if _size(path) == 0 else "not an image") from error
    except Exception as error:  # of any decoder: it is this file's fault, and others go on
        raise DataError(str(error) or type(error).__name__) from error


def fit_image(image: Image.Image, inputs: ImagesLike) -> Tensor:
    """A picture as the backbone is given it, uint8 `[C,H,W]`, prepared as `inputs` says. Raises
    `DataError`.
    """
    if image.mode in ("I", "F"):
        raise DataError(
            f"a picture of mode {image.mode} (32 bits); save it with 8 or 16 bits per channel"
        )
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    try:
        image = ImageOps.exif_transpose(image)
        if "transparency" in image.info:
            image = image.convert("RGBA")
        return inputs.picture(image.convert("RGB" if inputs.channels == 3 else "L"))
    except (ValueError, OSError, MemoryError) as error:
        raise DataError(str(error) or type(error).__name__) from error


def _size(file: Path | BinaryIO) -> int:
    if not isinstance(file, Path):
        return file.seek(0, 2)
    return file.stat().st_size if is_file(file) else -1


def read_sound(path: Path, sample_rate: int, samples: int) -> tuple[Tensor, int]:
    """`decode_sound` of the first window of a file."""
    require_file(path)
    return decode_sound(path, sample_rate, samples)


def as_floats(value: RawInput) -> RawInput:
    """What a reader gave, as raw input: an image in [0,1], sound as it is."""
    if isinstance(value, Tensor) and value.dtype == torch.uint8:
        return value.float() / 255
    return value
