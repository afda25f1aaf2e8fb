"""One file → one raw input: images in [0,1], sound as (waveform, length)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from vpt.errors import DataError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")
AUDIO_SUFFIXES = (".wav", ".flac", ".ogg", ".mp3")
SILENT = 1e-4  # the peak, −80 dB of full scale: what 16 bits leave of two channels that cancel


def suffixes(kind: str) -> tuple[str, ...]:
    """File endings that are read as "image" or "sound"."""
    return IMAGE_SUFFIXES if kind == "image" else AUDIO_SUFFIXES


def reader(inputs: Any) -> Callable[[Path], Any]:
    """path → raw input as `inputs` (a backbone's) wants it: a uint8 image `[C,H,W]`, or (waveform `[T]`, length)."""
    return partial(_read_image if inputs.kind == "image" else _read_clip, inputs)


def _read_image(inputs: Any, path: Path) -> Tensor:
    return fit_image(open_image(path), inputs)


def _read_clip(inputs: Any, path: Path) -> tuple[Tensor, int]:
    return read_sound(path, inputs.sample_rate, inputs.samples)


def open_image(path: Path | BinaryIO) -> Image.Image:
    """A decoded picture of a path or open file, turned upright. Raises `DataError` with the reason."""
    try:
        with Image.open(path) as image:
            image.load()
            return ImageOps.exif_transpose(image)
    except UnidentifiedImageError as error:
        raise DataError("empty file" if _size(path) == 0 else "not an image") from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(str(error) or type(error).__name__) from error


def fit_image(image: Image.Image, inputs: Any) -> Tensor:
    """A picture as the backbone is given it, uint8 `[C,H,W]`, prepared as `inputs` says. Raises `DataError`."""
    if image.mode in ("I", "F"):
        raise DataError(f"a picture of mode {image.mode} (32 bits); save it with 8 or 16 bits per channel")
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if "transparency" in image.info:
        image = image.convert("RGBA")
    return inputs.picture(image.convert("RGB" if inputs.channels == 3 else "L"))


def _size(file: Path | BinaryIO) -> int:
    return (file.stat().st_size if file.is_file() else -1) if isinstance(file, Path) else file.seek(0, 2)


def read_sound(path: Path, sample_rate: int, samples: int) -> tuple[Tensor, int]:
    """`decode_sound` of a file."""
    if path.is_dir():
        raise DataError("a folder")
    return decode_sound(path, sample_rate, samples)


def decode_sound(file: Path | BinaryIO, sample_rate: int, samples: int) -> tuple[Tensor, int]:
    """(waveform `[samples]` in [-1,1], mono, at `sample_rate` Hz, cut or padded with zeros; valid length). Raises `DataError`."""
    import soundfile

    try:
        data, rate = soundfile.read(str(file) if isinstance(file, Path) else file, dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, OSError, TypeError) as error:
        raise DataError("empty file" if _size(file) == 0 else f"not readable sound ({error})") from error
    waveform = torch.from_numpy(np.ascontiguousarray(data.mean(axis=1)))
    if waveform.numel() == 0:
        raise DataError("no samples")
    if not bool(torch.isfinite(waveform).all()):
        raise DataError("NaN or infinite samples")
    if rate != sample_rate:
        from torchaudio.functional import resample

        waveform = resample(waveform, rate, sample_rate)
    waveform = waveform.clamp(-1, 1)[:samples]
    if not bool(waveform.abs().max() > SILENT):
        whole = not bool(np.abs(data.mean(axis=1)).max() > SILENT)
        raise DataError("silent" if whole else f"silent in its first {samples / sample_rate:g} s, which is all that is used")
    return torch.nn.functional.pad(waveform, (0, samples - len(waveform))), len(waveform)
