"""Models of several towers are opened at the one that fits the input."""

from __future__ import annotations

import logging

import pytest
import torch
import transformers
from families import HF_CLAP, HF_VISION, HF_WHISPER, hf
from torch import nn

import vpt
from vpt.errors import BackboneError

TEXT = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "vocab_size": 32,
}


def clip() -> nn.Module:
    torch.manual_seed(0)
    return transformers.CLIPModel(
        transformers.CLIPConfig(text_config=TEXT, vision_config=HF_VISION, projection_dim=8)
    )


def clap() -> nn.Module:
    torch.manual_seed(0)
    config = transformers.ClapConfig(
        text_config=TEXT | {"pad_token_id": 0}, audio_config=HF_CLAP, projection_dim=8
    )
    return transformers.ClapModel(config)


def test_clip_is_opened_at_its_vision_tower_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    model = clip().eval()
    with caplog.at_level(logging.WARNING, "vpt"):
        backbone = vpt.load_backbone(model)
    assert "vision_model was opened" in caplog.text
    assert backbone.model is model.vision_model
    assert backbone.identity["tower"] == "vision_model"
    x = backbone.inputs.example(2)
    expected = model.vision_model(backbone.inputs.normalize(x)).pooler_output
    assert torch.equal(backbone.features(x), expected)
    prompted = vpt.PromptedModel(
        backbone, vpt.DeepTokens.like(backbone, 2), vpt.Linear(backbone.out_features, 2)
    )
    assert prompted(x).shape == (2, 2)


def test_clap_is_opened_at_its_audio_tower_and_takes_waveforms() -> None:
    model = clap().eval()
    backbone = vpt.load_backbone(model)
    assert backbone.model is model.audio_model
    rate = backbone.inputs.sample_rate
    waveform = torch.sin(torch.linspace(0, 400, rate // 2))[None].repeat(2, 1) * 0.5
    x = (waveform, torch.tensor([rate // 4, rate // 8]))
    extractor = backbone.inputs.front_end.extractor
    clips = [waveform[i, : int(x[1][i])].numpy() for i in range(2)]
    given = extractor(
        clips,
        sampling_rate=rate,
        return_tensors="pt",
        padding="repeatpad",
        truncation="rand_trunc",
        max_length=backbone.inputs.samples,
    )["input_features"]
    assert torch.allclose(
        backbone.features(x), model.audio_model(given.float()).pooler_output, atol=1e-5
    )


def test_a_model_without_the_tower_that_the_input_needs_is_refused() -> None:
    with pytest.raises(BackboneError, match="no tower for sound; it has one for image"):
        vpt.load_backbone(clip(), inputs=vpt.Sound(16000, 16000, 98, 32))


def test_two_towers_that_fit_are_named() -> None:
    both = clip()
    both.audio_model = clap().audio_model
    with pytest.raises(
        BackboneError,
        match=r"towers for image and sound. Pass the one you mean: model\.vision_model",
    ):
        vpt.load_backbone(both)


def test_whisper_is_opened_at_its_encoder_and_takes_up_to_its_length() -> None:
    model = hf("WhisperModel", "WhisperConfig", HF_WHISPER).eval()
    backbone = vpt.load_backbone(model)
    assert backbone.model is model.encoder
    spec = backbone.inputs
    assert (spec.frames, spec.samples, spec.sample_rate) == (50, 8000, 16000)
    waveform = torch.randn(2, 8000).mul(0.1).clamp(-1, 1)
    lengths = torch.tensor([8000, 5000])
    clips = [waveform[i, : int(lengths[i])].numpy() for i in range(2)]
    extractor = spec.front_end.extractor
    mel = extractor(
        clips, sampling_rate=16000, return_tensors="pt", max_length=8000, padding="max_length"
    ).input_features
    # 25 tokens; the second clip has 31 valid frames, 16 tokens
    tokens = model.encoder(mel).last_hidden_state
    expected = torch.stack([tokens[0].mean(0), tokens[1, :16].mean(0)])
    assert torch.allclose(backbone.features((waveform, lengths)), expected, atol=1e-5)
    with pytest.raises(BackboneError, match=r"takes 0\.04 to 0\.5 s"):
        vpt.load_backbone(model, seconds=3)


def test_whisper_with_a_classifier_is_opened_whole() -> None:
    model = hf("WhisperForAudioClassification", "WhisperConfig", HF_WHISPER)
    backbone = vpt.load_backbone(model)
    assert backbone.model is model
    assert backbone.classes == 4
