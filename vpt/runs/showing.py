"""Examples as a page can show them: a small picture, or a spectrogram and a player."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import torch
from PIL import Image
from torch import Tensor

from vpt.data.examples import Examples
from vpt.data.readers import RawInput, kind_of, open_image, require_file
from vpt.errors import VptError

SIDE = 176  # pixels of a small picture
SECONDS = 8.0  # of sound that a page carries
BANDS = 64


@dataclass(frozen=True)
class Shown:
    """picture, sound: as data URIs; sound is "" for a picture."""

    picture: str
    sound: str = ""


Show = Callable[[str], Shown | None]  # name of an example → how it looks


def from_files(name: str) -> Shown | None:
    """What a file at this path looks like; None where there is none."""
    path = Path(name)
    try:
        require_file(path)
        if kind_of(path) == "sound":
            with soundfile.SoundFile(str(path)) as file:
                rate = file.samplerate
                wave = file.read(int(SECONDS * rate), dtype="float32", always_2d=True).mean(1)
            return _sound(torch.from_numpy(np.ascontiguousarray(wave)), rate)
        return Shown(_jpeg(open_image(path).convert("RGB")))
    except (VptError, OSError, RuntimeError, ValueError):
        return None


def from_parts(parts: list[Examples]) -> Show:
    """What the examples of a run look like, as the model is given them."""
    places = {part.name(i): (part, i) for part in parts for i in range(len(part))}

    def show(name: str) -> Shown | None:
        if name not in places:
            return None
        part, i = places[name]
        return _raw(part[i][0], part.sample_rate)

    return show


def _raw(value: RawInput, rate: int | None) -> Shown | None:
    if isinstance(value, tuple):
        wave, length = value
        return _sound(wave[: int(length)], rate or 16000) if wave.ndim == 1 else None
    if value.ndim == 4:  # of a video, its first picture
        value = value[0]
    if value.ndim != 3 or value.shape[0] not in (1, 3):
        return None
    pixels = (value.detach().cpu().clamp(0, 1) * 255).round().byte()
    picture = Image.fromarray(pixels.expand(3, -1, -1).movedim(0, -1).contiguous().numpy())
    return Shown(_jpeg(picture))


def _jpeg(picture: Image.Image) -> str:
    scale = SIDE / max(picture.size)
    size = [max(1, round(side * scale)) for side in picture.size]
    resample = Image.Resampling.NEAREST if scale > 2 else Image.Resampling.LANCZOS
    out = io.BytesIO()
    picture.resize((size[0], size[1]), resample).save(out, "JPEG", quality=82)
    return _uri("image/jpeg", out.getvalue())


def _sound(wave: Tensor, rate: int) -> Shown:
    """A spectrogram in decibels, low tones below, and the sound itself as 16-bit WAV."""
    wave = wave[: int(SECONDS * rate)].float()
    window = min(512, max(16, len(wave)))
    spectrum = torch.stft(
        wave, window, window // 4, window=torch.hann_window(window), return_complex=True
    ).abs()
    level = 20 * torch.log10(spectrum + 1e-5)
    level = ((level - level.max()) / 70 + 1).clamp(0, 1)
    small = torch.nn.functional.interpolate(level[None, None], (BANDS, 2 * BANDS), mode="area")
    pixels = (small[0, 0].flip(0) * 255).byte().numpy()
    out = io.BytesIO()
    soundfile.write(out, wave.clamp(-1, 1).numpy(), rate, format="WAV", subtype="PCM_16")
    return Shown(_jpeg(Image.fromarray(pixels).convert("RGB")), _uri("audio/wav", out.getvalue()))


def _uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
