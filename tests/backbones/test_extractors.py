"""Whisper's and CLAP's front ends: what transformers' own extractors make, clip by clip."""

from __future__ import annotations

import pytest
import torch
import transformers
from families import HF_CLAP, HF_WHISPER, hf, open_tiny

import vpt
from vpt.backbones.extractors import clap_sound, whisper_sound
from vpt.errors import BackboneError


def test_whispers_own_numbers() -> None:
    config = transformers.WhisperConfig(num_mel_bins=80, max_source_positions=1500)
    spec = whisper_sound(config, {}, None)
    assert (spec.sample_rate, spec.samples, spec.frames, spec.bins, spec.layout) == (16000, 480000, 3000, 80, "bins-frames")
    extractor = transformers.WhisperFeatureExtractor()
    clip = torch.sin(torch.linspace(0, 900, 12000)) * 0.4
    needed = extractor(clip.numpy(), sampling_rate=16000, return_tensors="pt").input_features
    found, lengths = spec.prepare((clip[None], torch.tensor([12000])))
    assert torch.allclose(found.mT, needed, atol=1e-5)
    assert lengths.tolist() == [75]
    assert whisper_sound(config, {}, 30.0).samples == 480000
    with pytest.raises(BackboneError, match="exactly 30 s"):
        whisper_sound(config, {}, 5.0)


def test_claps_own_numbers() -> None:
    config = transformers.ClapAudioConfig()
    spec = clap_sound(config, {}, None)
    assert (spec.sample_rate, spec.samples, spec.frames, spec.bins, spec.layout) == (48000, 480000, 1001, 64, "channel")
    extractor = transformers.ClapFeatureExtractor(truncation="rand_trunc")
    clip = torch.sin(torch.linspace(0, 900, 60000)) * 0.4
    needed = extractor(clip.numpy(), sampling_rate=48000, return_tensors="pt").input_features[:, 0]
    found, _ = spec.prepare((clip[None], torch.tensor([60000])))
    assert torch.allclose(found, needed, atol=1e-4)
    assert torch.allclose(spec.standardize(found), found)  # the model normalises itself
    with pytest.raises(BackboneError, match="seconds="):
        clap_sound(config, {}, 5.0)


def test_clap_with_fusion_takes_clips_that_are_not_longer() -> None:
    torch.manual_seed(0)
    model = hf("ClapAudioModel", "ClapAudioConfig", HF_CLAP | {"enable_fusion": True, "fusion_type": "aff_2d"}).eval()
    backbone = vpt.load_backbone(model)
    assert backbone.inputs.layout == "fusion"
    x = backbone.inputs.example(2)
    given = backbone.inputs.standardize(x)[:, None].repeat(1, 4, 1, 1)
    needed = model(given, is_longer=torch.zeros(2, 1, dtype=torch.bool)).pooler_output
    assert torch.equal(backbone.features(x), needed)


def test_one_clip_does_not_change_another() -> None:
    for name in ("transformers Whisper encoder", "transformers CLAP audio"):
        spec = open_tiny(name).inputs
        waveform = torch.randn(2, spec.samples // 2).mul(0.1).clamp(-1, 1)
        lengths = torch.tensor([spec.samples // 2, spec.samples // 4])
        both, _ = spec.prepare((waveform, lengths))
        alone, _ = spec.prepare((waveform[1:], lengths[1:]))
        assert torch.allclose(both[1], alone[0], atol=1e-4), name
    assert HF_WHISPER["num_mel_bins"] == 16
