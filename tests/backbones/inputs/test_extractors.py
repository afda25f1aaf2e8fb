"""Whisper's and CLAP's front ends: what transformers' own extractors make, clip by clip."""

from __future__ import annotations

import families
import pytest
import torch
import transformers
from families import HF_CLAP, HF_WHISPER, hf, open_tiny
from torch.nn import functional as F

import vpt
from vpt.backbones.inputs.ast import ast_sound
from vpt.backbones.inputs.extractors import clap_sound, whisper_sound
from vpt.errors import BackboneError


def test_whispers_own_numbers() -> None:
    config = transformers.WhisperConfig(num_mel_bins=80, max_source_positions=1500)
    spec = whisper_sound(config, {}, None)
    assert (spec.sample_rate, spec.samples, spec.frames, spec.bins, spec.layout) == (
        16000,
        480000,
        3000,
        80,
        "bins-frames",
    )
    extractor = transformers.WhisperFeatureExtractor()
    clip = torch.sin(torch.linspace(0, 900, 12000)) * 0.4
    needed = extractor(clip.numpy(), sampling_rate=16000, return_tensors="pt").input_features
    found, lengths = spec.prepare((clip[None], torch.tensor([12000])))
    assert torch.allclose(found.mT, needed, atol=1e-5)
    assert lengths.tolist() == [75]
    assert whisper_sound(config, {}, 30.0).samples == 480000
    for seconds in (31.0, 0.01):
        with pytest.raises(BackboneError, match=r"takes 0\.04 to 30 s"):
            whisper_sound(config, {}, seconds)


@pytest.mark.parametrize("seconds", [0.2, 1.0, 1.013, 5.0, 29.99])
def test_whispers_short_clips_are_the_first_frames_of_thirty_seconds(seconds: float) -> None:
    config = transformers.WhisperConfig(num_mel_bins=80, max_source_positions=1500)
    spec, extractor = whisper_sound(config, {}, seconds), transformers.WhisperFeatureExtractor()
    assert 0 <= spec.samples - seconds * 16000 < 320
    assert spec.frames == spec.samples // 160
    for length in (spec.samples, spec.samples // 3):
        clip = torch.randn(length).mul(0.1).clamp(-1, 1)
        needed = extractor(clip.numpy(), sampling_rate=16000, return_tensors="pt").input_features
        found, _ = spec.prepare((clip[None], torch.tensor([length])))
        assert torch.allclose(found.mT, needed[..., : spec.frames], atol=1e-5)


def test_whispers_words_are_read() -> None:
    words = {"n_fft": 512, "hop_length": 200}
    config = transformers.WhisperConfig(num_mel_bins=16, max_source_positions=100)
    spec, extractor = (
        whisper_sound(config, words, None),
        transformers.WhisperFeatureExtractor(feature_size=16, chunk_length=4, **words),
    )
    clip = torch.randn(9000).mul(0.1).clamp(-1, 1)
    needed = extractor(
        clip.numpy(), sampling_rate=16000, return_tensors="pt", max_length=200 * 200
    ).input_features
    assert torch.allclose(spec.prepare((clip[None], torch.tensor([9000])))[0].mT, needed, atol=1e-5)


def test_a_whisper_encoder_takes_the_clips_own_length_and_stays_as_it_was() -> None:
    """A second cost as much as thirty."""
    model = families.make("transformers Whisper encoder").get_encoder()
    whole = vpt.load_backbone(model)
    config, weights = model.config, whole.fingerprint()
    whole.release()
    short = vpt.load_backbone(model, seconds=0.2)  # 10 of its 25 positions
    assert (short.inputs.frames, short.inputs.samples) == (20, 3200)
    clip = torch.randn(2, 3200).mul(0.1).clamp(-1, 1), torch.tensor([3200, 1600])
    seen: list[int] = []
    handle = model.layers[0].register_forward_pre_hook(
        lambda module, args: seen.append(args[0].shape[1])
    )
    features = short.features(clip)
    handle.remove()
    assert seen == [10]
    assert model.config is config
    assert model.embed_positions.num_embeddings == 25
    assert short.fingerprint() == weights
    # by hand: convolutions, the first positions, blocks, norm, the mean over what is valid
    given = short.inputs.arguments(*short.inputs.prepare(clip))[0]
    with torch.no_grad():
        x = F.gelu(model.conv2(F.gelu(model.conv1(given)))).mT + model.embed_positions.weight[:10]
        for layer in model.layers:
            x = layer(x, None)
        x = model.layer_norm(x)
    assert torch.allclose(features[0], x[0].mean(0), atol=1e-5)
    assert torch.allclose(features[1], x[1, :5].mean(0), atol=1e-5)
    assert vpt.check(short).ok
    for form in ("deep", "prefix", "shallow"):
        with vpt.PromptedModel(
            short, families.FORMS[form](short), vpt.Linear(short.out_features, 2)
        ) as model_:
            model_(clip).sum().backward()
            assert model.config is config


def test_a_whisper_with_a_classifier_takes_short_clips_too() -> None:
    model = hf("WhisperForAudioClassification", "WhisperConfig", HF_WHISPER).eval()
    backbone = vpt.load_backbone(model, seconds=0.2)
    assert backbone.logits(backbone.inputs.example(2)).shape == (2, 4)
    assert model.encoder.config is model.config


def test_settings_are_put_back_after_an_exception() -> None:
    model = families.make("transformers Whisper encoder").get_encoder()
    config, short = model.config, vpt.load_backbone(model, seconds=0.2)
    model.layers[1].register_forward_pre_hook(lambda module, args: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        short.features(short.inputs.example(1))
    assert model.config is config


@pytest.mark.parametrize("fusion", [False, True])
@pytest.mark.parametrize(
    "words",
    [
        {},
        {"frequency_min": 50, "frequency_max": 14000, "fft_window_size": 1024},
        {"frequency_min": 0},
    ],
)
def test_claps_two_filter_banks(fusion: bool, words: dict) -> None:
    """Published ones leave out what is below 50 Hz, and those with fusion have another bank: up to
    23 dB were off.
    """
    config = transformers.ClapAudioConfig(enable_fusion=fusion)
    spec = clap_sound(config, words, None)
    extractor = transformers.ClapFeatureExtractor(
        truncation="fusion" if fusion else "rand_trunc", **({"frequency_min": 50} | words)
    )
    for length in (60_000, 200_001, 480_000):
        clip = torch.randn(length).mul(0.1).clamp(-1, 1)
        needed = extractor(clip.numpy(), sampling_rate=48000, return_tensors="pt").input_features[0]
        found = spec.prepare((clip[None], torch.tensor([length])))[0]
        given = spec.arguments(found, None)[0][0]
        assert given.shape == needed.shape
        assert torch.allclose(given, needed.float(), atol=1e-4)


@pytest.mark.parametrize(
    "words",
    [{}, {"do_normalize": False}, {"mean": -6.0, "std": 2.0}, {"do_normalize": True, "mean": 1.0}],
)
def test_asts_words_are_read(words: dict) -> None:
    spec, extractor = (
        ast_sound(transformers.ASTConfig(), words, None),
        transformers.ASTFeatureExtractor(**words),
    )
    clip = torch.randn(16000).mul(0.1).clamp(-1, 1)
    needed = extractor(clip.numpy(), sampling_rate=16000, return_tensors="pt").input_values
    assert torch.allclose(spec.normalize((clip[None], torch.tensor([16000]))), needed, atol=1e-4)
    assert spec.unit > 0


def test_claps_own_numbers() -> None:
    config = transformers.ClapAudioConfig()
    spec = clap_sound(config, {}, None)
    assert (spec.sample_rate, spec.samples, spec.frames, spec.bins, spec.layout) == (
        48000,
        480000,
        1001,
        64,
        "channel",
    )
    extractor = transformers.ClapFeatureExtractor(truncation="rand_trunc", frequency_min=50)
    clip = torch.sin(torch.linspace(0, 900, 60000)) * 0.4
    needed = extractor(clip.numpy(), sampling_rate=48000, return_tensors="pt").input_features[:, 0]
    found, _ = spec.prepare((clip[None], torch.tensor([60000])))
    assert torch.allclose(found, needed, atol=1e-4)
    assert torch.allclose(spec.standardize(found), found)  # the model normalises itself
    with pytest.raises(BackboneError, match="seconds="):
        clap_sound(config, {}, 5.0)


def test_clap_with_fusion_takes_clips_that_are_not_longer() -> None:
    torch.manual_seed(0)
    model = hf(
        "ClapAudioModel",
        "ClapAudioConfig",
        HF_CLAP | {"enable_fusion": True, "fusion_type": "aff_2d"},
    ).eval()
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
