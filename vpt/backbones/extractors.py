"""Whisper's and CLAP's log-mel spectrograms, made by transformers' own feature extractors."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from vpt.backbones.sound import Sound
from vpt.errors import BackboneError


class ExtractorFrontEnd(nn.Module):
    """A transformers feature extractor as front end: waveform `[B,T]`, lengths `[B]` → spectrogram `[B,frames,bins]`.

    options: for its call. bins_first: it gives `[B,bins,frames]` (Whisper) rather than `[B,1|4,frames,bins]` (CLAP).
    """

    def __init__(self, extractor: Any, bins_first: bool, **options: Any) -> None:
        super().__init__()
        self.extractor, self.bins_first, self.options = extractor, bins_first, options

    @torch.no_grad()
    def forward(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        """Waveform `[B,T]`, lengths `[B]` → log-mel energies `[B,frames,bins]`, each clip without its padding."""
        clips = [clip[:length].cpu().numpy() for clip, length in zip(waveform, lengths.tolist(), strict=True)]
        found = self.extractor(clips, sampling_rate=self.extractor.sampling_rate, return_tensors="pt", **self.options)
        features = found["input_features"].to(waveform)
        return features.mT if self.bins_first else features[:, 0]


def whisper_sound(config: Any, facts: dict[str, Any], seconds: float | None) -> Sound:
    """The input of a Whisper encoder, which takes exactly its length. Raises `BackboneError` for another one."""
    from transformers import WhisperFeatureExtractor

    frames, rate, hop = 2 * config.max_source_positions, int(facts.get("sampling_rate", 16000)), int(facts.get("hop_length", 160))
    samples = frames * hop
    if seconds is not None and round(seconds * rate) != samples:
        raise BackboneError(f"A Whisper encoder takes clips of exactly {samples / rate:g} s (found seconds={seconds:g}); shorter "
                            "ones are padded with silence. Leave seconds= out.")  # fmt: skip
    extractor = WhisperFeatureExtractor(feature_size=config.num_mel_bins, sampling_rate=rate, hop_length=hop)
    extractor.n_samples, extractor.nb_max_frames = samples, frames
    front_end = ExtractorFrontEnd(extractor, True, padding="max_length", max_length=samples, truncation=True)
    return Sound(rate, samples, frames, config.num_mel_bins, front_end, window=hop, hop=hop, layout="bins-frames")


def clap_sound(config: Any, facts: dict[str, Any], seconds: float | None) -> Sound:
    """The input of a CLAP audio tower: short clips are repeated to fill it, as it was trained. Raises `BackboneError`."""
    from transformers import ClapFeatureExtractor

    if seconds is not None:
        raise BackboneError("CLAP repeats short clips to fill its own length; leave seconds= out.")
    rate, hop = int(facts.get("sampling_rate", 48000)), int(facts.get("hop_length", 480))
    longest = config.spec_size * (config.spec_size // config.num_mel_bins) - 1  # the map that the model folds a clip into
    frames = min(int(facts.get("max_length_s", 10)) * rate // hop, longest) + 1
    extractor = ClapFeatureExtractor(feature_size=config.num_mel_bins, sampling_rate=rate, hop_length=hop)
    samples = (frames - 1) * hop
    extractor.nb_max_samples = samples
    front_end = ExtractorFrontEnd(extractor, False, padding="repeatpad", truncation="rand_trunc", max_length=samples)
    layout = "fusion" if config.enable_fusion else "channel"
    # decibels that the model normalises itself: σ is only the unit of a pixel prompt's bound
    return Sound(rate, samples, frames, config.num_mel_bins, front_end, 1, hop, std=20.0, scale=1 / 20, layout=layout)
