"""AST: its front end against transformers' own feature extractor, and its position grid."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from transformers import ASTConfig, ASTFeatureExtractor, ASTModel

from vpt.backbones.inputs.ast import AUDIOSET, KaldiFbank, ast_sound, is_ast, resized_positions
from vpt.errors import BackboneError

FRAMES = 96


def config(**more):
    tiny = {
        "hidden_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 8,
    }
    return ASTConfig(**tiny, **{"num_mel_bins": 32, "max_length": FRAMES, **more})


def clip(length, seed=0, rate=16000):
    """A chirp in noise, in [-1,1]."""
    t = np.arange(length) / rate
    noise = np.random.default_rng(seed).standard_normal(length) * 0.05
    return (0.4 * np.sin(2 * np.pi * (200 + 800 * t) * t) + noise).clip(-1, 1).astype("float32")


def batch(clips):
    waveform = torch.zeros(len(clips), max(map(len, clips)))
    for row, one in zip(waveform, clips, strict=True):
        row[: len(one)] = torch.from_numpy(one)
    return waveform, torch.tensor([len(one) for one in clips])


@pytest.mark.parametrize(
    ("rate", "bins", "facts"),
    [(16000, 128, {}), (16000, 32, {"mean": -2.0, "std": 1.5}), (8000, 40, {})],
)
def test_the_front_end_is_the_models_own_feature_extractor(rate, bins, facts):
    sound = ast_sound(config(num_mel_bins=bins), {"sampling_rate": rate, **facts}, None)
    extractor = ASTFeatureExtractor(
        sampling_rate=rate, num_mel_bins=bins, max_length=FRAMES, **facts
    )
    window = rate // 40
    clips = [
        clip(n, seed, rate)
        for seed, n in enumerate(
            [window, window + 1, 3000, sound.samples - 1, sound.samples, 2 * rate]
        )
    ]
    expected = extractor(clips, sampling_rate=rate, return_tensors="pt")["input_values"]
    found = sound.normalize(batch(clips))
    assert found.shape == (6, FRAMES, bins)
    assert (found - expected).abs().max() < 1e-5
    assert (found[2] - found[3]).abs().max() > 0.1


def test_what_stands_behind_a_clip_does_not_matter():
    front = KaldiFbank(16000, 20, 32)
    waveform, lengths = batch([clip(1000), clip(3000, 1)])
    dirty = waveform.clone()
    dirty[0, 1000:] = 0.7
    assert torch.equal(front(waveform, lengths), front(dirty, lengths))


def test_frames_behind_a_clip_are_zero_and_counted():
    sound = ast_sound(config(), {}, None)
    spectrogram, valid = sound.prepare(
        batch([clip(n) for n in (400, 559, 560, 5000, sound.samples)])
    )
    for one, count in zip(spectrogram, valid.tolist(), strict=True):
        assert not one[count:].any()
        assert one[:count].abs().sum(1).min() > 0
    assert valid.tolist() == [1, 1, 2, 29, FRAMES]


@pytest.mark.parametrize("length", [1, 100, 399])
def test_clips_shorter_than_a_window_are_padded_to_one(length):
    short, full = clip(length), np.zeros(400, "float32")
    full[:length] = short
    front = KaldiFbank(16000, 4, 32)
    assert torch.equal(front(*batch([short])), front(*batch([full])))
    assert front(*batch([short])).isfinite().all()


def test_facts_of_a_checkpoint_are_used_and_audiosets_otherwise():
    defaults = ASTFeatureExtractor()
    assert {
        "mean": defaults.mean,
        "std": defaults.std,
        "sampling_rate": defaults.sampling_rate,
    } == AUDIOSET
    sound = ast_sound(ASTConfig(), {}, None)
    assert (sound.sample_rate, sound.frames, sound.bins, sound.samples) == (
        16000,
        1024,
        128,
        1023 * 160 + 400,
    )
    assert (sound.mean, sound.std, sound.scale, sound.window, sound.hop) == (
        defaults.mean,
        defaults.std,
        2.0,
        400,
        160,
    )
    other = ast_sound(ASTConfig(), {"mean": -1, "std": 2, "sampling_rate": 8000}, None)
    assert (other.mean, other.std, other.sample_rate, other.window, other.hop) == (
        -1.0,
        2.0,
        8000,
        200,
        80,
    )


@pytest.mark.parametrize(("seconds", "frames"), [(1.0, 98), (5.0, 498), (0.175, 16)])
def test_clips_of_another_length(seconds, frames):
    sound = ast_sound(ASTConfig(), {}, seconds)
    assert (sound.samples, sound.frames) == (round(seconds * 16000), frames)
    wave = torch.from_numpy(clip(sound.samples))[None]
    spectrogram, valid = sound.prepare((wave, torch.tensor([sound.samples])))
    assert spectrogram.shape == (1, frames, 128)
    assert valid.tolist() == [frames]
    assert spectrogram[0, -1].any()


@pytest.mark.parametrize("seconds", [0.16, 0.05, 0.0, -1.0])
def test_clips_that_are_too_short_are_refused(seconds):
    with pytest.raises(
        BackboneError,
        match=rf"clips of {seconds} s, .* frames; needed are at least 16 frames \(0\.185 s\)",
    ):
        ast_sound(ASTConfig(), {}, seconds)


def test_is_ast():
    assert is_ast(SimpleNamespace(config=ASTConfig()))
    for other in (
        nn.Linear(1, 1),
        SimpleNamespace(config=SimpleNamespace(model_type="vit")),
        SimpleNamespace(config=None),
        None,
    ):
        assert not is_ast(other)


# --- positions --------------------------------------------------------------------------


class Model(nn.Module):
    """Only the positions of an AST: 2 special ones, then `freq` rows of `time` columns."""

    def __init__(self, grid):
        super().__init__()
        freq, time, width = grid.shape
        self.config = SimpleNamespace(
            num_mel_bins=16 * freq,
            patch_size=16,
            frequency_stride=16,
            time_stride=16,
            max_length=16 * time,
        )
        self.embeddings = nn.Module()
        table = torch.cat(
            [torch.tensor([[7.0] * width, [8.0] * width]), grid.reshape(freq * time, width)]
        )
        self.embeddings.position_embeddings = nn.Parameter(table[None])


def test_the_trained_length_changes_nothing():
    model = ASTModel(config())
    assert resized_positions(model, FRAMES) == {}
    assert resized_positions(model, FRAMES + 9) == {}  # not a patch more at a stride of 10
    assert resized_positions(model, FRAMES + 10) != {}


def test_positions_are_interpolated_in_time_by_hand():
    # 2 rows of frequency, 2 columns of time
    grid = torch.tensor([[[0.0], [8.0]], [[100.0], [180.0]]])
    model = Model(grid)
    before = model.embeddings.position_embeddings.clone()
    (name, table), *rest = resized_positions(model, 64).items()
    assert (name, rest) == ("embeddings.position_embeddings", [])
    # bilinear, half-pixel centres
    assert table.flatten().tolist() == [7, 8, 0, 2, 6, 8, 100, 120, 160, 180]
    assert torch.equal(model.embeddings.position_embeddings, before)
    assert not table.requires_grad
    assert resized_positions(model, 16)["embeddings.position_embeddings"].flatten().tolist() == [
        7,
        8,
        4,
        140,
    ]


@pytest.mark.parametrize("new", [1, 3, 4, 7, 12])
def test_every_row_and_channel_is_interpolated_alone(new):
    grid = torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(0))
    table = resized_positions(Model(grid), 16 * new)["embeddings.position_embeddings"]
    assert table.shape == (1, 2 + 3 * new, 4)
    places = (np.arange(new) + 0.5) * 5 / new - 0.5
    expected = [
        [np.interp(places, np.arange(5), grid[f, :, c]) for c in range(4)] for f in range(3)
    ]
    np.testing.assert_allclose(
        table[0, 2:].view(3, new, 4), np.array(expected).transpose(0, 2, 1), atol=1e-5
    )


def test_half_precision_positions_stay_so():
    model = Model(torch.randn(2, 3, 4)).half()
    assert resized_positions(model, 64)["embeddings.position_embeddings"].dtype == torch.float16


@pytest.mark.parametrize("frames", [60, 200])
def test_a_real_ast_runs_with_resized_positions(frames):
    torch.manual_seed(0)
    model = ASTModel(config()).eval()
    resized = resized_positions(model, frames)
    assert set(resized) <= set(dict(model.named_parameters()))
    x = torch.randn(2, frames, 32)
    with torch.no_grad():
        out = torch.func.functional_call(model, resized, (x,)).last_hidden_state
    assert out.shape == (2, 2 + 2 * ((frames - 16) // 10 + 1), 8)
