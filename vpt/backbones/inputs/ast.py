"""The audio spectrogram transformer (Gong et al., Interspeech 2021): its mel front end and its
position grid.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vpt.backbones.inputs.sound import Sound, up_to_hundredth
from vpt.errors import BackboneError
from vpt.sites import Config

# of AudioSet, as in the model's own feature extractor; used where a checkpoint says nothing else
AUDIOSET = {"mean": -4.2677393, "std": 4.5689974, "sampling_rate": 16000}
WINDOW_SECONDS, HOP_SECONDS = 0.025, 0.010


class KaldiFbank(nn.Module):
    """Log-mel filter bank energies as AST was trained on: 25 ms Hanning windows every 10 ms, zeros
    behind the clip.

    forward: waveform `[B,T]` in [-1,1] and lengths `[B]` (samples) → `[B,frames,bins]`. torchaudio
        is loaded on first use.
    """

    def __init__(self, sample_rate: int, frames: int, bins: int) -> None:
        super().__init__()
        self.sample_rate = sample_rate
        self.frames = frames
        self.bins = bins

    @torch.no_grad()
    def forward(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        """Waveform `[B,T]`, lengths `[B]` → log energies `[B,frames,bins]`."""
        # only sound needs it, so pictures never fail for it
        from torchaudio.compliance import kaldi

        window = round(WINDOW_SECONDS * self.sample_rate)
        out = waveform.new_zeros(len(waveform), self.frames, self.bins)
        for i, (clip, length) in enumerate(zip(waveform, lengths.tolist(), strict=True)):
            clip = F.pad(clip[:length], (0, max(0, window - length)))
            mel = kaldi.fbank(
                clip[None],
                sample_frequency=self.sample_rate,
                window_type="hanning",
                num_mel_bins=self.bins,
            )[: self.frames]
            out[i, : len(mel)] = mel
        return out


def is_ast(model: object) -> bool:
    """Whether a model is transformers' AST, by its config."""
    return (
        getattr(getattr(model, "config", None), "model_type", None)
        == "audio-spectrogram-transformer"
    )


def ast_sound(config: Any, facts: Config, seconds: float | None) -> Sound:
    """The input of an AST: its trained length, or clips of `seconds`. Raises `BackboneError` for
    one too short.
    """
    rate = int(facts.get("sampling_rate", AUDIOSET["sampling_rate"]))
    window, hop = round(WINDOW_SECONDS * rate), round(HOP_SECONDS * rate)
    frames = config.max_length if seconds is None else 1 + (round(seconds * rate) - window) // hop
    if frames < config.patch_size:
        raise BackboneError(
            f"Found clips of {seconds} s, {frames} frames; needed are at least {config.patch_size}"
            f" frames ({config.patch_size * HOP_SECONDS + WINDOW_SECONDS:.3f} s)."
        )
    mean, std, scale = (
        float(facts.get("mean", AUDIOSET["mean"])),
        float(facts.get("std", AUDIOSET["std"])),
        2.0,
    )
    if not facts.get("do_normalize", True):  # it takes the energies as they are
        mean, scale = 0.0, 1 / std
    return Sound(
        sample_rate=rate,
        samples=(frames - 1) * hop + window if seconds is None else round(seconds * rate),
        frames=frames,
        bins=config.num_mel_bins,
        front_end=KaldiFbank(rate, frames, config.num_mel_bins),
        window=window,
        hop=hop,
        mean=mean,
        std=std,
        scale=scale,
    )


def ast_length(config: Any, facts: Config, clips: float) -> float | None:
    """The length, in seconds, for `clips` of another: its own, but for clips of less than half of
    it, which so cost far less.
    """
    own, least = (config.max_length * HOP_SECONDS, config.patch_size * HOP_SECONDS + WINDOW_SECONDS)
    return max(up_to_hundredth(clips), up_to_hundredth(least)) if clips < own / 2 else None


def resized_positions(model: nn.Module, frames: int) -> dict[str, Tensor]:
    """Position embeddings `[1, 2 + freq·time, D]` for clips of `frames`, their grid interpolated in
    time (bilinear).

    Returned by parameter name, to be used instead of the model's own during a forward; the model is
    not changed. Empty when the length is the trained one.
    """
    config: Any = model.config
    freq = (config.num_mel_bins - config.patch_size) // config.frequency_stride + 1
    old = (config.max_length - config.patch_size) // config.time_stride + 1
    new = (frames - config.patch_size) // config.time_stride + 1
    if old == new:
        return {}
    name, own = next(
        (n, p) for n, p in model.named_parameters() if n.endswith("embeddings.position_embeddings")
    )
    special, grid = own.detach()[:, :2], own.detach()[:, 2:]
    grid = grid.reshape(1, freq, old, -1).permute(0, 3, 1, 2)
    grid = F.interpolate(grid.float(), size=(freq, new), mode="bilinear", align_corners=False).to(
        own.dtype
    )
    return {name: torch.cat([special, grid.flatten(2).transpose(1, 2)], dim=1)}
