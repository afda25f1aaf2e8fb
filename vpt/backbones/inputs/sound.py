"""Sound as a backbone wants it: a waveform goes through the front end, a spectrogram is checked and
standardised.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor
from torch._C._functorch import is_functorch_wrapped_tensor

from vpt.backbones.inputs.images import Raw, check_range, floats
from vpt.errors import InputError
from vpt.sites import Config

LOGGER = logging.getLogger("vpt")

FrontEnd = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Sound:
    """Sound: `(waveform [B,T], lengths [B])` in [-1,1], or a spectrogram `[B,frames,bins]` (or with
    frame lengths).

    sample_rate: Hz. samples: length of a full clip; shorter ones are padded, longer ones cut, as
        the models' own feature extractors do. frames, bins: shape of the spectrogram. front_end:
        (waveform `[B,samples]`, lengths `[B]`) → spectrogram `[B,frames,bins]` in its own units.
        window, hop: of a frame, in samples. mean, std: of the spectrogram;
    scale: the model divides by scale · std (2 for AST). layout: what the model is given,
        "frames-bins" `[B,frames,bins]`, "bins-frames" (Whisper), "channel" `[B,1,frames,bins]`
        (CLAP), or "fusion" (CLAP with fusion: four times the same). Raises `InputError` on use.
    """

    sample_rate: int
    samples: int
    frames: int
    bins: int
    front_end: FrontEnd | None = None
    window: int = 400
    hop: int = 160
    mean: float = 0.0
    std: float = 1.0
    scale: float = 1.0
    layout: str = "frames-bins"
    kind: Literal["sound"] = field(default="sound", init=False)

    def __post_init__(self) -> None:
        sizes = {
            n: getattr(self, n)
            for n in ("sample_rate", "samples", "frames", "bins", "window", "hop")
        }
        if min(sizes.values()) < 1 or not self.std > 0:
            raise InputError(
                f"Found {sizes}, std={self.std}; needed are numbers of at least 1, and a positive"
                " std."
            )

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one prepared input: `(frames, bins)`."""
        return (self.frames, self.bins)

    @property
    def base(self) -> float:
        """The level at which a pixel prompt starts: 0 in the model's own units."""
        return self.mean

    @property
    def unit(self) -> float:
        """One σ of the spectrogram: the unit of a pixel prompt's bound."""
        return self.std

    def frame_lengths(self, lengths: Tensor) -> Tensor:
        """Number of valid frames `[B]` of clips that hold `lengths` samples `[B]` (whole windows
        only, at least one).
        """
        frames = torch.div(lengths - self.window, self.hop, rounding_mode="floor") + 1
        return frames.clamp(1, self.frames)

    def prepare(self, x: Raw) -> tuple[Tensor, Tensor]:
        """Raw sound → (spectrogram `[B,frames,bins]` in the front end's units, valid frames `[B]`).
        Raises `InputError`.
        """
        x, lengths = x if isinstance(x, (tuple, list)) and len(x) == 2 else (x, None)
        expected = (
            f"(waveform [B,T] in [-1,1] at {self.sample_rate} Hz, lengths [B]) or a spectrogram "
            f"[B,{self.frames},{self.bins}]"
        )
        x = floats(x, "sound", expected)
        if x.ndim == 2:
            return self._from_waveform(x, lengths, expected)
        if x.ndim != 3 or x.shape[2] != self.bins:
            raise InputError(f"Found sound of shape {list(x.shape)}; needed is {expected}.")
        if not torch.compiler.is_compiling() and not bool(torch.isfinite(x).all()):
            raise InputError(
                "Found NaN or infinite values in a spectrogram; needed are finite ones."
            )
        whole = torch.full((x.shape[0],), x.shape[1], device=x.device)
        lengths = whole if lengths is None else check_lengths(lengths, x, expected)
        return fit_time(x, self.frames), lengths.clamp(1, self.frames)

    def _from_waveform(
        self, x: Tensor, lengths: Tensor | None, expected: str
    ) -> tuple[Tensor, Tensor]:
        if self.front_end is None:
            raise InputError(
                "Found a waveform, but this backbone has no front end; needed is a spectrogram "
                f"[B,{self.frames},{self.bins}], or vpt.Sound(..., front_end=...)."
            )
        lengths = check_lengths(lengths, x, expected)
        if x.shape[0] == 0:
            return x.new_zeros(0, self.frames, self.bins), lengths
        check_range(x, -1.0, 1.0, "a waveform", "Divide 16-bit integers by 32768.")
        say_cut(lengths, self.samples, self.sample_rate)
        lengths = lengths.clamp(max=self.samples)
        with torch.no_grad():
            spectrogram = self.front_end(fit_time(x, self.samples), lengths)
        if tuple(spectrogram.shape[1:]) != self.shape:
            raise InputError(
                f"The front end gave {list(spectrogram.shape)}; needed is"
                f" [B,{self.frames},{self.bins}]."
            )
        return spectrogram, self.frame_lengths(lengths)

    def standardize(self, x: Tensor) -> Tensor:
        """(x − mean) / (scale · std), `[B,frames,bins]`."""
        return (x - self.mean) / (self.scale * self.std)

    def arguments(self, x: Tensor, lengths: Tensor | None) -> tuple[Tensor, dict[str, Tensor]]:
        """Prepared spectrograms `[B,frames,bins]` → the model's first argument in its layout, and
        its named ones.
        """
        x = self.standardize(x)
        if self.layout == "fusion":
            return x.unsqueeze(1).expand(-1, 4, -1, -1), {
                "is_longer": x.new_zeros(x.shape[0], 1, dtype=torch.bool)
            }
        return {"bins-frames": x.mT, "channel": x.unsqueeze(1)}.get(self.layout, x), {}

    def token_lengths(self, lengths: Tensor, count: int) -> Tensor:
        """How many of `count` tokens `[B]` see valid frames, of clips with `lengths` frames
        `[B]`.
        """
        return (lengths / self.frames * count).ceil()

    def normalize(self, x: Raw) -> Tensor:
        """Raw input → what the model itself wants. Raises `InputError`."""
        return self.standardize(self.prepare(x)[0])

    def example(self, batch: int = 2) -> Tensor:
        """Random raw spectrograms `[batch,frames,bins]`, the same on every call."""
        noise = torch.randn(batch, *self.shape, generator=torch.Generator().manual_seed(0))
        return self.mean + self.std * noise

    def witness(self) -> Raw:
        """One fixed raw clip, of which a model's answer shows what it computes, front end
        included.
        """
        if self.front_end is None:
            return self.example(1)
        noise = (
            torch.randn(1, self.samples, generator=torch.Generator().manual_seed(0))
            .mul(0.1)
            .clamp(-1, 1)
        )
        return noise, torch.tensor([self.samples])

    def __str__(self) -> str:
        """For people: the rate, the length of a clip, and the spectrogram."""
        clip = f"{self.samples / self.sample_rate:.4g} s at {self.sample_rate:,} Hz"
        return (
            f"{clip} ({self.frames:,} frames of {self.bins} mel bins), mean {self.mean:.3g}, std"
            f" {self.std:.3g}"
        )

    def describe(self) -> Config:
        """Plain values for a file's header."""
        names = (
            "sample_rate",
            "samples",
            "frames",
            "bins",
            "window",
            "hop",
            "mean",
            "std",
            "scale",
        )
        layout = {} if self.layout == "frames-bins" else {"layout": self.layout}
        return {"kind": "sound", **{name: getattr(self, name) for name in names}, **layout}


def up_to_hundredth(seconds: float) -> float:
    """A length in whole hundredths of a second, not shorter."""
    return math.ceil(round(seconds * 100, 6)) / 100


def check_lengths(lengths: object, x: Tensor, expected: str) -> Tensor:
    """Valid lengths `[B]`, on the device of `x` `[B,T,…]`. Raises `InputError`."""
    if (
        not isinstance(lengths, Tensor)
        or lengths.shape != (x.shape[0],)
        or lengths.is_floating_point()
    ):
        kind = "a waveform" if x.ndim == 2 else "a spectrogram"
        raise InputError(
            f"Found {kind} {list(x.shape)} without one length per clip (a whole number); needed is"
            f" {expected}."
        )
    if (
        not torch.compiler.is_compiling()
        and len(x)
        and (int(lengths.min()) < 1 or int(lengths.max()) > x.shape[1])
    ):
        raise InputError(
            f"Found clip lengths from {int(lengths.min())} to {int(lengths.max())}; needed are 1 to"
            f" {x.shape[1]} {'samples' if x.ndim == 2 else 'frames'}."
        )
    return lengths.to(x.device)


def say_cut(lengths: Tensor, samples: int, sample_rate: int) -> None:
    """Once for each length: that waveforms in hand are heard in part only. Of files every window is
    heard.
    """
    if torch.compiler.is_compiling() or is_functorch_wrapped_tensor(lengths) or not len(lengths):
        return
    longest = int(lengths.max())
    if longest > samples and samples not in _said:
        _said.add(samples)
        LOGGER.warning(
            "A waveform of %.3g s was given; the model hears its first %.4g s. Give it in windows,"
            " open the model with seconds=…, or use files, which are heard in windows.",
            longest / sample_rate,
            samples / sample_rate,
        )


_said: set[int] = set()  # lengths of which it was said


def fit_time(x: Tensor, size: int) -> Tensor:
    """Pad dimension 1 with zeros at its end, or cut it, to `size`."""
    if x.shape[1] >= size:
        return x[:, :size]
    return torch.cat([x, x.new_zeros(x.shape[0], size - x.shape[1], *x.shape[2:])], dim=1)
