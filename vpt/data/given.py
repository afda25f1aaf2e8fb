"""What a person hands over to be classified, whatever it is: files, folders, pictures, arrays,
waveforms, or many of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vpt.data.examples import Examples
from vpt.data.files import Files
from vpt.data.readers import WORDS, RawInput, Reader, fit_image, kind_of
from vpt.data.sounds import RATES, checked, cut, resampled, starts_of
from vpt.errors import BadFilesError, DataError
from vpt.errors.places import is_file, is_folder
from vpt.sites import ImagesLike, InputsLike, SoundLike, takes_images

CHANNELS = (1, 3, 4)  # grey, colours, colours with alpha
MOST_CHANNELS = 8
LOUDEST = 2.0  # of a sample: filters overshoot 1 a little, whole numbers by thousands


@dataclass(frozen=True)
class Given:
    """One thing to classify. name: its path, or its number among what was handed over."""

    name: str
    value: object

    def __str__(self) -> str:
        return self.name


class GivenReader(Reader):
    """A thing that was handed over → raw input, prepared as a file of it would be."""

    def __call__(self, given: Any, window: int = 0) -> RawInput:
        """The raw input. Raises `DataError` with the reason."""
        value, inputs = given.value, self.inputs
        if isinstance(value, Path):
            if reason := _misfit(value, inputs):
                raise DataError(reason)
            return super().__call__(value, window)
        if takes_images(inputs):
            return _picture(value, inputs)
        wave = _waveform(value, inputs)
        return cut(wave, inputs.samples, _starts(wave, inputs)[window])

    def digest(self, given: Any) -> bytes | None:
        """None: what was handed over is no file that stays."""
        return None

    def windows(self, given: Any) -> int:
        """How many windows of what the model hears it has; 1 for a picture."""
        value, inputs = given.value, self.inputs
        if isinstance(value, Path):
            return 1 if _misfit(value, inputs) else super().windows(value)
        return 1 if takes_images(inputs) else len(_starts(_waveform(value, inputs), inputs))


def _starts(wave: Tensor, inputs: SoundLike) -> list[int]:
    """The first samples of the windows of a waveform."""
    rate = inputs.sample_rate
    return [round(start * rate) for start in starts_of(len(wave) / rate, inputs.samples / rate)]


def all_given(given: object, inputs: InputsLike) -> Iterator[Given]:
    """Everything that was handed over, one by one, in order.

    given: a path, a folder (all files in it, by name), a picture of PIL, an array or tensor of a
        picture (`[H,W]`, `[H,W,C]`, `[C,H,W]`; bytes, or floats in [0,1]) or of sound (`[T]` in
        [-1,1] at the model's rate), {"array", "sampling_rate"} of sound at another rate, the batch
        `(waveforms [B,T], lengths [B])` that a model takes, an array of several, or anything that
        gives one such after the other. Raises `DataError` for anything else.
    """
    yield from (
        Given(_called(value, number), value) for number, value in enumerate(_flat(given, inputs))
    )


def examples_of(things: list[Given], inputs: InputsLike) -> Examples:
    """As examples without labels. Raises `BadFilesError` naming all that cannot be used."""
    files = Files(things, GivenReader(inputs))  # type: ignore[arg-type]  # what has a name will do
    bad = [(str(thing), reason) for i, thing in enumerate(things) if (reason := files.reason(i))]
    if bad:
        raise BadFilesError(bad, len(things))
    names = [thing.name for thing in things]
    return Examples(files, [0] * len(things), ["unknown"], named=False, names=names)


def _called(value: object, number: int) -> str:
    if isinstance(value, Path):
        return str(value)
    return str(getattr(value, "filename", "") or f"number {number}")


def _flat(given: object, inputs: InputsLike) -> Iterator[object]:
    """One thing after the other: a path, a picture, an array of one, or a mapping."""
    if isinstance(given, str) and not given:  # as a path it would be the current folder
        raise DataError("Found a path without a name; needed is a file or a folder.")
    if isinstance(given, (str, Path)):
        yield from _files(Path(given), inputs)
    elif isinstance(given, (Image.Image, Mapping)):
        yield given
    elif isinstance(given, (Tensor, np.ndarray)):
        most = len(inputs.shape) if takes_images(inputs) else 1
        if most == 1 and given.ndim == 2 and 0 < given.shape[1] <= MOST_CHANNELS:
            raise DataError(
                f"Found sound of shape {list(given.shape)}: channels of one, or very short ones?"
                ' Hand channels over as {"array": …, "sampling_rate": …}.'
            )
        yield from given if given.ndim == most + 1 else [given]
    elif isinstance(given, tuple) and _is_batch(given):
        yield from (wave[: int(length)] for wave, length in zip(*given, strict=True))
    elif isinstance(given, Iterable) and not isinstance(given, (bytes, bytearray)):
        for one in given:
            yield from _flat(one, inputs)
    else:
        raise DataError(
            f"Found {type(given).__name__}; needed are paths, a folder, pictures, arrays, tensors"
            " or waveforms."
        )


def _is_batch(given: tuple[object, ...]) -> bool:
    """Whether this is (waveforms `[B,T]`, lengths `[B]`)."""
    shapes = [tuple(part.shape) for part in given if isinstance(part, Tensor)]
    return len(given) == len(shapes) == 2 and len(shapes[0]) == 2 and shapes[1] == shapes[0][:1]


def _files(path: Path, inputs: InputsLike) -> Iterator[Path]:
    """A file itself; of a folder, all files that the model can take."""
    if not is_folder(path):
        yield path
        return
    found = [p for p in sorted(path.rglob("*")) if kind_of(p) == inputs.kind and is_file(p)]
    found = [p for p in found if not any(part[0] == "." for part in p.relative_to(path).parts)]
    if not found:
        raise DataError(f"Found no {WORDS[inputs.kind]} in the folder {path}.")
    yield from found


def _misfit(path: Path, inputs: InputsLike) -> str | None:
    """Why a path is no file for a model, by its name; or None."""
    kind = kind_of(path)
    if kind == "image" and takes_images(inputs) and inputs.frames is not None:
        return "a picture, and this model takes videos: give arrays [T,C,H,W]"
    if kind in (None, inputs.kind):
        return None
    return f"this run takes {WORDS[inputs.kind]}, and that is {WORDS[kind]}"


def _picture(value: object, inputs: ImagesLike) -> RawInput:
    """A picture of PIL or an array of one. One that has the model's size already stays as it is."""
    if isinstance(value, Image.Image):
        return fit_image(value, inputs)
    if not isinstance(value, (Tensor, np.ndarray)):
        raise DataError(f"{type(value).__name__}, and this run takes {WORDS[inputs.kind]}")
    first = isinstance(value, Tensor)  # where the channels are, if both could be
    array = _tensor(value)
    if array.is_floating_point() and not bool(torch.isfinite(array).all()):
        raise DataError("NaN or infinite numbers")
    if array.is_floating_point() and not bool(((array >= 0) & (array <= 1)).all()):
        raise DataError("numbers outside [0,1]; divide 0–255 by 255, or give bytes (uint8)")
    if array.is_floating_point() and tuple(array.shape) == tuple(inputs.shape):
        return array.float()
    if array.ndim == 2:
        array = array[None]
    elif (
        array.ndim == 3
        and array.shape[-1] in CHANNELS
        and not (first and array.shape[0] in CHANNELS)
    ):
        array = array.movedim(-1, 0)
    if array.ndim != 3 or array.shape[0] not in CHANNELS or not array.numel():
        raise DataError(
            f"an array of shape {list(array.shape)}, and a picture is [H,W,C] or [C,H,W]"
        )
    if array.is_floating_point():
        array = (array * 255).round().byte()
    elif array.dtype != torch.uint8:
        raise DataError(f"numbers of type {array.dtype}; give bytes (uint8), or floats in [0,1]")
    pixels = array.movedim(0, -1).numpy()
    return fit_image(Image.fromarray(pixels[..., 0] if len(array) == 1 else pixels), inputs)


def _waveform(value: object, inputs: SoundLike) -> Tensor:
    """A waveform `[T]` at the model's rate."""
    rate, mapped = inputs.sample_rate, isinstance(value, Mapping)
    if isinstance(value, Mapping):
        hertz, value = value.get("sampling_rate"), value.get("array")
        if value is None or not isinstance(hertz, Integral):
            raise DataError('a mapping without "array" and "sampling_rate" (Hz, a whole number)')
        rate = int(hertz)
        if not RATES[0] <= rate <= RATES[1]:
            raise DataError(f"a sample rate of {rate} Hz; read are {RATES[0]:,} to {RATES[1]:,}")
    if not isinstance(value, (Tensor, np.ndarray)):
        raise DataError(f"{type(value).__name__}, and this run takes {WORDS[inputs.kind]}")
    wave = _tensor(value)
    if wave.ndim == 2 and mapped:
        wave = wave.mean(int(wave.shape[1] < wave.shape[0]))  # of its channels, the shorter side
    if wave.ndim != 1 or not wave.is_floating_point():
        raise DataError(
            f"an array of shape {list(wave.shape)} and type {wave.dtype}; sound is [T], floats in"
            " [-1,1]"
        )
    if bool((checked(wave).abs() > LOUDEST).any()):
        raise DataError("numbers outside [-1,1]; divide 16-bit samples by 32768")
    return resampled(wave.float(), rate, inputs.sample_rate).clamp(-1, 1)


def _tensor(value: Tensor | np.ndarray) -> Tensor:
    """An array or tensor on the CPU, without gradient."""
    if isinstance(value, Tensor):
        return value.detach().cpu()
    try:
        native = value.dtype.newbyteorder("=")
        return torch.from_numpy(np.array(value, dtype=native))  # a copy: it may be read-only
    except (TypeError, ValueError) as error:
        raise DataError(f"an array of type {value.dtype}") from error
