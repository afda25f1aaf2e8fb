"""Sound that a model reads sample by sample (wav2vec2, HuBERT), without a spectrogram."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from vpt.backbones.inputs.images import Images, Raw, check_range, floats
from vpt.backbones.inputs.sound import Sound, check_lengths, fit_time, say_cut, up_to_hundredth
from vpt.errors import InputError
from vpt.sites import Config

SECONDS = 2.0  # of a clip, where nobody says
# where the length follows the data: these models were trained on clips of up to 15 s
MOST_SECONDS = 15.0


@dataclass(frozen=True)
class Waveform:
    """Sound as samples: `(waveform [B,T], lengths [B])` in [-1,1], prepared as `[B,samples,1]`, a
    spectrogram of one bin.

    sample_rate: Hz. samples: length of a full clip; shorter ones are padded with zeros, longer ones
        cut. normalized: each clip gets mean 0 and variance 1 over its valid samples
        (Wav2Vec2FeatureExtractor's do_normalize). masked: the model is given `attention_mask`
        `[B,samples]`. kernels, strides: of the convolutions before the tokens. std: of a usual
        waveform, σ, the unit of a pixel prompt's bound. A pixel prompt's "frames" are samples here.
        Raises `InputError` on use.
    """

    sample_rate: int
    samples: int
    normalized: bool = True
    masked: bool = True
    kernels: tuple[int, ...] = ()
    strides: tuple[int, ...] = ()
    std: float = 0.1
    kind: Literal["sound"] = field(default="sound", init=False)
    base: float = field(default=0.0, init=False)

    @property
    def unit(self) -> float:
        """One σ: the unit of a pixel prompt's bound."""
        return self.std

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one prepared input: `(samples, 1)`."""
        return (self.samples, 1)

    def prepare(self, x: Raw) -> tuple[Tensor, Tensor]:
        """Raw sound → (`[B,samples,1]`, valid samples `[B]`). Raises `InputError`."""
        x, lengths = x if isinstance(x, (tuple, list)) and len(x) == 2 else (x, None)
        expected = f"(waveform [B,T] in [-1,1] at {self.sample_rate} Hz, lengths [B])"
        x = floats(x, "sound", expected)
        if x.ndim == 3 and x.shape[2] == 1:
            x = x.squeeze(2)
        if x.ndim != 2:
            raise InputError(f"Found sound of shape {list(x.shape)}; needed is {expected}.")
        whole = torch.full((x.shape[0],), x.shape[1], device=x.device)
        lengths = whole if lengths is None else check_lengths(lengths, x, expected)
        check_range(x, -1.0, 1.0, "a waveform", "Divide 16-bit integers by 32768.")
        say_cut(lengths, self.samples, self.sample_rate)
        return fit_time(x, self.samples).unsqueeze(2), lengths.clamp(max=self.samples)

    def _valid(self, x: Tensor, lengths: Tensor) -> Tensor:
        return torch.arange(x.shape[1], device=x.device) < lengths.view(-1, 1)

    def arguments(self, x: Tensor, lengths: Tensor | None) -> tuple[Tensor, dict[str, Tensor]]:
        """Prepared `[B,samples,1]` → the model's samples `[B,samples]`, normalized where it wants
        that, and its mask.
        """
        x = x.squeeze(2)
        lengths = (
            torch.full((x.shape[0],), x.shape[1], device=x.device) if lengths is None else lengths
        )
        valid = self._valid(x, lengths)
        if self.normalized:
            count = lengths.view(-1, 1)
            mean = (x * valid).sum(1, keepdim=True) / count
            variance = ((x - mean).square() * valid).sum(1, keepdim=True) / count
            x = (x - mean) / (variance + 1e-7).sqrt() * valid
        return x, {"attention_mask": valid.long()} if self.masked else {}

    def normalize(self, x: Raw) -> Tensor:
        """Raw input → the samples `[B,samples]` that the model itself wants. Raises
        `InputError`.
        """
        return self.arguments(*self.prepare(x))[0]

    def token_lengths(self, lengths: Tensor, count: int) -> Tensor:
        """How many of `count` tokens `[B]` come from valid samples, of clips with `lengths` samples
        `[B]`.
        """
        if not self.kernels:
            return (lengths / self.samples * count).ceil()
        for kernel, stride in zip(self.kernels, self.strides, strict=True):
            lengths = torch.div(lengths - kernel, stride, rounding_mode="floor") + 1
        return lengths.clamp(1, count)

    def example(self, batch: int = 2) -> tuple[Tensor, Tensor]:
        """Random raw clips of different lengths, the same on every call."""
        noise = (
            torch.randn(batch, self.samples, generator=torch.Generator().manual_seed(0))
            .mul(self.std)
            .clamp(-1, 1)
        )
        lengths = torch.tensor([self.samples - (i % 2) * (self.samples // 4) for i in range(batch)])
        return noise * (torch.arange(self.samples) < lengths.view(-1, 1)), lengths

    def witness(self) -> tuple[Tensor, Tensor]:
        """One fixed raw clip, of which a model's answer shows what it computes."""
        return self.example(1)

    def __str__(self) -> str:
        """For people: the rate and the length of a clip."""
        each = ", each clip with mean 0 and variance 1" if self.normalized else ""
        return f"{self.samples / self.sample_rate:.4g} s at {self.sample_rate:,} Hz (samples{each})"

    def describe(self) -> Config:
        """Plain values for a file's header."""
        names = ("sample_rate", "samples", "normalized", "masked", "std")
        lists = {"kernels": list(self.kernels), "strides": list(self.strides)}
        return {"kind": "sound", **{name: getattr(self, name) for name in names}, **lists}


InputSpec = Images | Sound | Waveform


def wave_input(config: Any, facts: Config, seconds: float | None) -> Waveform:
    """What a wav2vec2 or HuBERT wants: by its feature extractor's facts, or what its papers' models
    have.

    Models whose first convolution has a group norm were trained without a mask (transformers'
    documentation of both).
    """
    rate, seconds = int(facts.get("sampling_rate", 16000)), SECONDS if seconds is None else seconds
    masked = bool(facts.get("return_attention_mask", config.feat_extract_norm == "layer"))
    kernels, strides, shortest = (
        tuple(config.conv_kernel),
        tuple(config.conv_stride),
        _shortest(config),
    )
    if round(seconds * rate) < 2 * shortest:
        raise InputError(
            f"Found clips of {seconds} s; this model needs at least {2 * shortest / rate:.3f} s"
            " (seconds=…)."
        )
    normalized = bool(facts.get("do_normalize", True))
    return Waveform(rate, round(seconds * rate), normalized, masked, kernels, strides)


def wave_length(config: Any, facts: Config, clips: float) -> float:
    """The length, in seconds, for `clips`: theirs, up to what such models were trained on."""
    return up_to_hundredth(
        max(
            2 * _shortest(config) / int(facts.get("sampling_rate", 16000)), min(clips, MOST_SECONDS)
        )
    )


def _shortest(config: Any) -> int:
    """Samples that the convolutions need for one token."""
    found = 1
    for kernel, stride in reversed(list(zip(config.conv_kernel, config.conv_stride, strict=True))):
        found = (found - 1) * stride + kernel
    return found
