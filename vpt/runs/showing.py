"""Examples as a page can show them: a small picture, or a spectrogram and a player."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass

import soundfile
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from vpt.data.examples import Examples
from vpt.data.readers import RawInput
from vpt.errors import VptError

SIDE = 176  # pixels of a small picture
SECONDS = 8.0  # of sound that a page carries
BANDS = 64
DATA = re.compile(r"data:(image/jpeg|audio/wav);base64,[A-Za-z0-9+/=]*")


@dataclass(frozen=True)
class Shown:
    """picture, sound: as data URIs; sound is "" for a picture."""

    picture: str
    sound: str = ""


Show = Callable[[str, str], Shown | None]  # part and name of an example → how it looks
# where an example of each part of the answers comes from
ORIGINS = {"test": ("test",), "val": ("val",), "out_of_fold": ("train", "val")}


def from_parts(parts: Mapping[str, Examples]) -> Show:
    """What the examples of a run look like, as the model is given them; None for a name that two
    could have, and for what cannot be drawn.
    """
    places: dict[tuple[str, str], list[tuple[Examples, int]]] = {}
    for answers, origins in ORIGINS.items():
        for origin in origins:
            if (part := parts.get(origin)) is None:
                continue
            for i in range(len(part)):
                places.setdefault((answers, part.name(i)), []).append((part, i))

    def show(part: str, name: str) -> Shown | None:
        found = places.get((part, name), [])
        if len(found) != 1:
            return None
        examples, i = found[0]
        try:
            return _raw(examples[i][0], examples.sample_rate)
        except (VptError, OSError, RuntimeError, ValueError):  # a file that is gone by now
            return None

    return show


def noted(show: Show, notes: dict[str, dict[str, str]]) -> Show:
    """The same, each noted as what a file can hold."""

    def noting(part: str, name: str) -> Shown | None:
        found = show(part, name)
        if found is not None:
            notes[f"{part}/{name}"] = asdict(found)
        return found

    return noting


def from_notes(notes: Mapping[str, Mapping[str, str]]) -> Show:
    """What was noted."""

    def show(part: str, name: str) -> Shown | None:
        found = notes.get(f"{part}/{name}")
        if found is None or not all(is_data(found.get(kind)) for kind in ("picture", "sound")):
            return None
        return Shown(str(found["picture"]), str(found["sound"]))

    return show


def is_data(uri: object) -> bool:
    """Whether this is a picture or a sound by itself, that leads nowhere."""
    return isinstance(uri, str) and (not uri or bool(DATA.fullmatch(uri)))


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
    wave = F.pad(wave, (0, max(0, 64 - len(wave))))
    window = min(512, len(wave))
    spectrum = torch.stft(
        wave, window, window // 4, window=torch.hann_window(window), return_complex=True
    ).abs()
    level = 20 * torch.log10(spectrum + 1e-5)
    level = ((level - level.max()) / 70 + 1).clamp(0, 1)
    small = F.interpolate(level[None, None], (BANDS, 2 * BANDS), mode="area")
    pixels = (small[0, 0].flip(0) * 255).byte().numpy()
    out = io.BytesIO()
    soundfile.write(out, wave.clamp(-1, 1).numpy(), rate, format="WAV", subtype="PCM_16")
    return Shown(_jpeg(Image.fromarray(pixels).convert("RGB")), _uri("audio/wav", out.getvalue()))


def _uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
