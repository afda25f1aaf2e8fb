"""A sound file → the clips that a model hears: only what is used is decoded, block by block, mixed
to mono and resampled.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
import torch
from torch import Tensor

from vpt.errors import DataError

if TYPE_CHECKING:
    from soundfile import SoundFile

SILENT = 1e-4  # the peak, −80 dB of full scale: what 16 bits leave of two channels that cancel
MOST_WINDOWS = 8  # of one clip; a longer one is heard in so many places
SLACK = 0.1  # of a window that may be left unheard at the end, before another window is worth it
RATES = (1_000, 1_000_000)  # Hz
BLOCK = 1 << 16  # frames decoded, and samples resampled, at once
KERNEL = 1 << 22  # numbers in torchaudio's table of filters, one for each place between two samples
WIDTH, ROLLOFF = 6, 0.99  # of torchaudio's windowed sinc


def seconds_of(file: Path | BinaryIO) -> float:
    """How long a sound says it is, in seconds; nothing is decoded. Raises `DataError`."""
    import soundfile

    try:
        info = soundfile.info(str(file) if isinstance(file, Path) else file)
        return info.frames / info.samplerate
    except Exception as error:  # of libsndfile, of a codec, of the disk
        raise DataError(_reason(file, error)) from error
    finally:
        if not isinstance(file, Path):
            file.seek(0)


def starts_of(seconds: float, window: float) -> list[float]:
    """Where windows of `window` seconds begin in a clip of `seconds`: one for a short clip, else
    evenly spread, to its end.
    """
    count = min(MOST_WINDOWS, math.ceil(seconds / window - SLACK)) if seconds > window else 1
    return [i * (seconds - window) / (count - 1) for i in range(count)] if count > 1 else [0.0]


def decode_sound(
    file: Path | BinaryIO, sample_rate: int, samples: int, start: float = 0.0
) -> tuple[Tensor, int]:
    """(waveform `[samples]` in [-1,1], mono, at `sample_rate` Hz, from `start` seconds on, padded
    with zeros; valid length).

    Raises `DataError` with the reason, whatever a decoder throws.
    """
    import soundfile

    try:
        with soundfile.SoundFile(str(file) if isinstance(file, Path) else file) as sound:
            rate = sound.samplerate
            if not RATES[0] <= rate <= RATES[1]:
                raise DataError(
                    f"a sample rate of {rate} Hz; read are {RATES[0]:,} to {RATES[1]:,}"
                )
            waveform, skip = _decoded(sound, sample_rate, samples, start)
    except DataError:
        raise
    except Exception as error:  # of libsndfile, of a codec, of the disk
        raise DataError(_reason(file, error)) from error
    return cut(resampled(checked(waveform), rate, sample_rate).clamp(-1, 1), samples, skip)


def checked(waveform: Tensor) -> Tensor:
    """A waveform `[T]` as it is. Raises `DataError` for one without samples, or with NaN."""
    if waveform.numel() == 0:
        raise DataError("no samples")
    if not bool(torch.isfinite(waveform).all()):
        raise DataError("NaN or infinite samples")
    return waveform


def cut(waveform: Tensor, samples: int, start: int = 0) -> tuple[Tensor, int]:
    """(`samples` of a waveform from `start` on, padded with zeros; valid length). Raises
    `DataError` for silence.
    """
    waveform = waveform[start : start + samples]
    if not bool(waveform.abs().max() > SILENT):
        raise DataError("silent")
    return torch.nn.functional.pad(waveform, (0, samples - len(waveform))), len(waveform)


def _decoded(sound: SoundFile, sample_rate: int, samples: int, start: float) -> tuple[Tensor, int]:
    """What is needed of an open sound, mono at its own rate, with a margin for resampling; and how
    much of the result to skip.
    """
    rate = sound.samplerate
    common = math.gcd(rate, sample_rate)
    period, new_period = rate // common, sample_rate // common  # the same time at both rates
    reach = math.ceil(2 * WIDTH * max(1.0, rate / sample_rate))  # of the filter, and more
    first, before = round(start * rate), 0
    if first:
        # whole periods, so that no sample moves
        before = min(math.ceil(reach / period), first // period)
        sound.seek(first - before * period)
    left = math.ceil(samples * rate / sample_rate) + reach + before * period
    parts = []
    while left > 0:
        block = sound.read(min(left, BLOCK), dtype="float32", always_2d=True)
        if not len(block):
            break
        parts.append(block.mean(axis=1))
        left -= len(block)
    decoded = np.concatenate(parts) if parts else np.zeros(0, np.float32)
    return torch.from_numpy(np.ascontiguousarray(decoded)), before * new_period


def resampled(waveform: Tensor, rate: int, wanted: int) -> Tensor:
    """A waveform `[T]` at another rate: torchaudio's windowed sinc, also where its table of filters
    would fill gigabytes.
    """
    if rate == wanted:
        return waveform
    common = math.gcd(rate, wanted)
    orig, new = rate // common, wanted // common
    if new * (2 * math.ceil(WIDTH * orig / (min(orig, new) * ROLLOFF)) + orig) <= KERNEL:
        from torchaudio.functional import resample

        return resample(waveform, rate, wanted)
    return _directly(waveform, orig, new)


def _directly(waveform: Tensor, orig: int, new: int) -> Tensor:
    """The same filter, worked out where it is needed: y[n] = Σ_k x[k] h(k − n · orig/new)."""
    scale = min(orig, new) * ROLLOFF / orig
    reach = math.ceil(WIDTH / scale)
    padded = torch.nn.functional.pad(waveform, (reach, reach + 2))
    taps, out = torch.arange(2 * reach + 2), []
    count = math.ceil(new * len(waveform) / orig)
    for begin in range(0, count, BLOCK):
        n = torch.arange(begin, min(begin + BLOCK, count), dtype=torch.int64)
        whole, part = n * orig // new, (n * orig % new).double() / new
        distance = (taps[None] - reach - part[:, None]) * scale
        window = torch.cos(distance.clamp(-WIDTH, WIDTH) * (math.pi / WIDTH / 2)).square()
        weights = (torch.sinc(distance.clamp(-WIDTH, WIDTH)) * window * scale).to(waveform.dtype)
        out.append((padded[whole[:, None] + taps[None]] * weights).sum(1))
    return torch.cat(out) if out else waveform[:0]


def _reason(file: Path | BinaryIO, error: Exception) -> str:
    size = file.stat().st_size if isinstance(file, Path) else file.seek(0, 2)
    if size == 0:
        return "empty file"
    said = str(error).rsplit(">: ", 1)[-1]  # without the file, where it is one in memory
    return f"not readable sound ({said or type(error).__name__})"
