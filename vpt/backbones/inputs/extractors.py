"""Whisper's and CLAP's log-mel spectrograms, made by transformers' own feature extractors."""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from torch import Tensor, nn

from vpt.backbones.inputs.sound import Sound, up_to_hundredth
from vpt.errors import BackboneError
from vpt.sites import Config, Settings

STRIDE = 2  # of Whisper's convolutions together: frames per position
SHORTEST = 0.1  # seconds, where the length follows the data
LOWEST = 50  # Hz: the published CLAP models' frequency_min, where the class has 0


class ExtractorFrontEnd(nn.Module):
    """A transformers feature extractor as front end: waveform `[B,T]`, lengths `[B]` → spectrogram
    `[B,frames,bins]`.

    frames: how many of those that it gives are kept. bins_first: it gives `[B,bins,frames]`
        (Whisper) rather than `[B,1|4,frames,bins]` (CLAP). options: for its call.
    """

    def __init__(self, extractor: Any, frames: int, bins_first: bool, **options: Any) -> None:
        super().__init__()
        self.extractor = extractor
        self.frames = frames
        self.bins_first = bins_first
        self.options = options

    @torch.no_grad()
    def forward(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        """Waveform `[B,T]`, lengths `[B]` → log-mel energies `[B,frames,bins]`, each clip without
        its padding.
        """
        clips = [
            clip[:length].cpu().numpy()
            for clip, length in zip(waveform, lengths.tolist(), strict=True)
        ]
        found = self.extractor(
            clips, sampling_rate=self.extractor.sampling_rate, return_tensors="pt", **self.options
        )
        features = found["input_features"].to(waveform)
        return (features.mT if self.bins_first else features[:, 0])[:, : self.frames]


def whisper_sound(config: Any, facts: Config, seconds: float | None) -> Sound:
    """The input of a Whisper encoder: 30 s, padded with silence, or clips of `seconds`, of which it
    sees nothing but themselves.

    Its positions are sinusoids, so that the first of them serve a shorter clip (`short_whisper`).
    Raises `BackboneError` for a longer one.
    """
    from transformers import WhisperFeatureExtractor

    known = _known(facts, "sampling_rate", "hop_length", "n_fft", "dither", "padding_value")
    extractor = WhisperFeatureExtractor(feature_size=config.num_mel_bins, **known)
    rate, hop, most = extractor.sampling_rate, extractor.hop_length, config.max_source_positions
    positions = most if seconds is None else math.ceil(round(seconds * rate) / (STRIDE * hop))
    if not 2 <= positions <= most:
        raise BackboneError(
            f"Found seconds={seconds:g}; a Whisper encoder of this size takes"
            f" {2 * STRIDE * hop / rate:g} to {most * STRIDE * hop / rate:g} s."
        )
    frames, samples = STRIDE * positions, STRIDE * positions * hop
    # a shorter clip gets silence behind it as in 30 s, so that its last frames are the same; those
    # of the silence are cut off
    padded = samples if positions == most else samples + math.ceil(extractor.n_fft / hop) * hop
    options = {"padding": "max_length", "max_length": padded, "truncation": True}
    options |= {"do_normalize": True} if facts.get("do_normalize") else {}
    front_end = ExtractorFrontEnd(extractor, frames, True, **options)
    return Sound(
        rate,
        samples,
        frames,
        config.num_mel_bins,
        front_end,
        window=hop,
        hop=hop,
        layout="bins-frames",
    )


def whisper_length(config: Any, facts: Config, clips: float) -> float | None:
    """The length, in seconds, for `clips` of another: theirs, up to its own."""
    step = STRIDE * int(facts.get("hop_length") or 160) / int(facts.get("sampling_rate") or 16000)
    return (
        max(up_to_hundredth(clips), SHORTEST)
        if clips < config.max_source_positions * step
        else None
    )


def is_whisper(model: nn.Module) -> bool:
    """Whether a model is a Whisper encoder, or has one."""
    return _whisper_encoder(model) is not None


def _whisper_encoder(model: nn.Module) -> str | None:
    """The path of a Whisper encoder in a model, "" for the model itself."""
    return next(
        (
            path
            for path, module in model.named_modules()
            if type(module).__name__ == "WhisperEncoder"
        ),
        None,
    )


def short_whisper(model: nn.Module, frames: int) -> tuple[dict[str, Tensor], Settings]:
    """What a Whisper encoder is given during a forward of clips of `frames`: (tensors, settings),
    by the names of their places.

    Empty for its own length.
    """
    path = _whisper_encoder(model) or ""
    encoder, prefix = model.get_submodule(path), f"{path}." if path else ""
    config: Any = encoder.config
    positions, own = frames // STRIDE, config.max_source_positions
    if positions == own:
        return {}, {}
    weight = dict(encoder.named_parameters())["embed_positions.weight"].detach()
    shorter = copy.copy(config)
    shorter.max_source_positions = positions
    settings = {
        (path, "config"): shorter,
        (f"{prefix}embed_positions", "num_embeddings"): positions,
    }
    return {f"{prefix}embed_positions.weight": weight[:positions]}, settings


def clap_sound(config: Any, facts: Config, seconds: float | None) -> Sound:
    """The input of a CLAP audio tower: short clips are repeated to fill it, as it was trained.
    Raises `BackboneError`.

    Its two kinds have two mel filter banks: torchaudio's (HTK) with fusion, librosa's (Slaney)
    without.
    """
    from transformers import ClapFeatureExtractor

    if seconds is not None:
        raise BackboneError("CLAP repeats short clips to fill its own length; leave seconds= out.")
    known = _known(
        facts,
        "sampling_rate",
        "hop_length",
        "max_length_s",
        "fft_window_size",
        "padding_value",
        "frequency_min",
        "frequency_max",
        "top_db",
        "padding",
    )
    settings: Config = {"frequency_min": LOWEST} | known
    extractor = ClapFeatureExtractor(feature_size=config.num_mel_bins, **settings)
    rate, hop = extractor.sampling_rate, extractor.hop_length
    # the map that the model folds a clip into
    longest = config.spec_size * (config.spec_size // config.num_mel_bins) - 1
    frames = min(int(extractor.max_length_s) * rate // hop, longest) + 1
    samples = (frames - 1) * hop
    extractor.nb_max_samples = samples
    truncation = "fusion" if config.enable_fusion else "rand_trunc"
    front_end = ExtractorFrontEnd(
        extractor, frames, False, truncation=truncation, max_length=samples
    )
    layout = "fusion" if config.enable_fusion else "channel"
    # decibels that the model normalises itself: σ is only the unit of a pixel prompt's bound
    return Sound(
        rate,
        samples,
        frames,
        config.num_mel_bins,
        front_end,
        1,
        hop,
        std=20.0,
        scale=1 / 20,
        layout=layout,
    )


def clap_length(config: Any, facts: Config, clips: float) -> None:
    """Its own length whatever the clips: shorter ones are repeated."""


def _known(facts: Config, *names: str) -> Config:
    """Those of a checkpoint's words that an extractor is made with."""
    return {name: facts[name] for name in names if facts.get(name) is not None}
