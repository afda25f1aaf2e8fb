"""Sound: front ends, spectrograms, lengths, and what is refused with which words."""

from __future__ import annotations

import math

import pytest
import torch

from vpt.backbones.inputs import sound
from vpt.backbones.inputs.sound import Sound
from vpt.errors import InputError


def loud(waveform, lengths):
    """A front end of 4 frames × 2 bins: the quarter's sum, and the clip's length."""
    return torch.stack(
        [waveform.view(len(waveform), 4, -1).sum(2), lengths.float().view(-1, 1).expand(-1, 4)], 2
    )


SOUND = Sound(
    sample_rate=100,
    samples=8,
    frames=4,
    bins=2,
    front_end=loud,
    window=2,
    hop=2,
    mean=1.0,
    std=3.0,
    scale=2.0,
)
WAVE = torch.tensor([[0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8], [1.0, -1.0, 0.5, 0.25, 0, 0, 0, 0]])


def lengths(*values):
    return torch.tensor(values)


def test_waveforms_go_through_the_front_end():
    spectrogram, valid = SOUND.prepare((WAVE, lengths(8, 4)))
    torch.testing.assert_close(
        spectrogram[..., 0], torch.tensor([[0.3, 0.7, 1.1, 1.5], [0, 0.75, 0, 0]])
    )
    assert spectrogram[..., 1].tolist() == [[8] * 4, [4] * 4]
    assert valid.tolist() == [4, 2]
    torch.testing.assert_close(SOUND.normalize((WAVE, lengths(8, 4))), (spectrogram - 1) / 6)


def test_longer_waveforms_are_cut_and_shorter_ones_padded():
    longer = torch.cat([WAVE, torch.ones(2, 5)], 1)
    cut, valid = SOUND.prepare((longer, lengths(13, 9)))
    torch.testing.assert_close(cut[..., 0], torch.tensor([[0.3, 0.7, 1.1, 1.5], [0, 0.75, 0, 0]]))
    assert cut[:, 0, 1].tolist() == [8, 8]
    assert valid.tolist() == [4, 4]
    short, valid = SOUND.prepare((WAVE[:, :3], lengths(3, 2)))
    torch.testing.assert_close(short[..., 0], torch.tensor([[0.3, 0.3, 0, 0], [0, 0.5, 0, 0]]))
    assert valid.tolist() == [1, 1]


def test_a_waveform_that_is_heard_in_part_is_said_once(caplog):
    sound._said.clear()
    spec = SOUND
    for _ in range(2):
        spec.prepare((torch.zeros(2, 30), torch.tensor([8, 30])))
    assert caplog.text.count("A waveform of 0.3 s was given; the model hears its first 0.08 s") == 1
    sound._said.clear()
    caplog.clear()
    spec.prepare((torch.zeros(1, 30), torch.tensor([8])))
    assert caplog.text == ""


def test_spectrograms_are_padded_and_cut_in_time():
    x = torch.arange(12.0).view(1, 6, 2)
    cut, valid = SOUND.prepare(x)
    assert torch.equal(cut, x[:, :4])
    assert valid.tolist() == [4]
    padded, valid = SOUND.prepare(x[:, :3])
    assert padded.tolist() == [[[0, 1], [2, 3], [4, 5], [0, 0]]]
    assert valid.tolist() == [3]
    assert SOUND.prepare((x, lengths(2)))[1].tolist() == [2]
    torch.testing.assert_close(SOUND.normalize(x), (x[:, :4] - 1) / 6)


@pytest.mark.parametrize(
    ("samples", "frames"), [(1, 1), (400, 1), (559, 1), (560, 2), (1040, 5), (99999, 7)]
)
def test_only_whole_windows_are_valid_frames(samples, frames):
    spec = Sound(16000, 1600, 7, 16)
    assert spec.frame_lengths(lengths(samples)).tolist() == [frames]


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_other_float_waveforms_become_float32(dtype):
    spectrogram, _ = SOUND.prepare((WAVE.to(dtype), lengths(8, 4)))
    assert spectrogram.dtype == torch.float32
    torch.testing.assert_close(
        spectrogram, SOUND.prepare((WAVE, lengths(8, 4)))[0], atol=2e-3, rtol=0
    )


def test_waveforms_may_be_views():
    view = WAVE.repeat_interleave(2, 1)[:, ::2]
    assert not view.is_contiguous()
    assert torch.equal(
        SOUND.prepare((view, lengths(8, 4)))[0], SOUND.prepare((WAVE, lengths(8, 4)))[0]
    )


@pytest.mark.parametrize(
    ("x", "message"),
    [
        ((WAVE * 32768).short(), r"sound of type torch.int16; .*Divide by 32768 first"),
        (
            WAVE * 2,
            (
                r"waveform with values from -2 to 2; needed are finite values in \[-1, 1\]. Divide"
                r" 16-bit"
            ),
        ),
        (WAVE.clone().fill_(math.nan), "needed are finite values"),
        (WAVE.clone().fill_(math.inf), "needed are finite values"),
        (
            WAVE[0],
            (
                r"Found sound of shape \[8\]; needed is \(waveform \[B,T\] in \[-1,1\] at 100 Hz,"
                r" lengths \[B\]\)"
            ),
        ),
        (WAVE[:, None], r"Found sound of shape \[2, 1, 8\]"),
        (WAVE.numpy(), "Found ndarray where sound should be"),
    ],
)
def test_wrong_waveforms_are_refused(x, message):
    with pytest.raises(InputError, match=message):
        SOUND.prepare((x, lengths(8, 4)))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (lengths(0, 4), "clip lengths from 0 to 4; needed are 1 to 8 samples"),
        (lengths(9, 4), "clip lengths from 4 to 9; needed are 1 to 8"),
        (lengths(-3, 4), "clip lengths from -3 to 4"),
        (lengths(8), r"waveform \[2, 8\] without one length per clip"),
        (lengths(8, 8, 8), "without one length per clip"),
        (torch.tensor(8), "without one length per clip"),
        ([8, 4], "without one length per clip"),
        (None, "without one length per clip"),
    ],
)
def test_wrong_lengths_are_refused(given, message):
    with pytest.raises(InputError, match=message):
        SOUND.prepare((WAVE, given))


def test_a_waveform_without_lengths_or_front_end_is_refused():
    with pytest.raises(InputError, match="without one length per clip"):
        SOUND.prepare(WAVE)
    with pytest.raises(InputError, match=r"no front end; needed is a spectrogram \[B,4,2\]"):
        Sound(100, 8, 4, 2).prepare((WAVE, lengths(8, 4)))
    wrong = Sound(100, 8, 4, 3, front_end=loud)
    with pytest.raises(InputError, match=r"front end gave \[2, 4, 2\]; needed is \[B,4,3\]"):
        wrong.prepare((WAVE, lengths(8, 4)))


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_wrong_spectrograms_are_refused(value):
    with pytest.raises(InputError, match=r"sound of shape \[1, 4, 5\]"):
        SOUND.prepare(torch.zeros(1, 4, 5))
    with pytest.raises(InputError, match="NaN or infinite values in a spectrogram"):
        SOUND.prepare(torch.full((1, 4, 2), value))


def test_no_clips_are_sound_too():
    assert SOUND.prepare((WAVE[:0], lengths().long()))[0].shape == (0, 4, 2)


def test_fractional_lengths_are_refused():
    with pytest.raises(InputError):
        SOUND.prepare((WAVE, torch.tensor([7.5, 4.0])))


@pytest.mark.parametrize(
    "given", [[3, 4], lengths(3, 4, 4), lengths(-1, 4), lengths(3, 99), torch.tensor(3)]
)
def test_wrong_lengths_of_a_spectrogram_are_refused(given):
    with pytest.raises(InputError):
        SOUND.prepare((torch.zeros(2, 4, 2), given))


def test_sound_describes_itself():
    assert SOUND.describe() == {
        "kind": "sound",
        "sample_rate": 100,
        "samples": 8,
        "frames": 4,
        "bins": 2,
        "window": 2,
        "hop": 2,
        "mean": 1.0,
        "std": 3.0,
        "scale": 2.0,
    }
    assert (SOUND.shape, SOUND.base, SOUND.unit) == ((4, 2), 1.0, 3.0)


def test_layouts_are_what_the_models_take():
    x = torch.randn(2, 4, 2)
    given = {
        name: Sound(100, 8, 4, 2, layout=name).arguments(x, None)
        for name in ("frames-bins", "bins-frames", "channel", "fusion")
    }
    assert torch.equal(given["frames-bins"][0], x)
    assert torch.equal(given["bins-frames"][0], x.mT)
    assert torch.equal(given["channel"][0], x[:, None])
    assert torch.equal(given["fusion"][0], x[:, None].repeat(1, 4, 1, 1))
    assert given["fusion"][1]["is_longer"].shape == (2, 1)


@pytest.mark.parametrize("given", [{"sample_rate": 0}, {"bins": 0}, {"std": 0.0}, {"hop": 0}])
def test_sizes_that_nothing_can_have_are_refused(given):
    with pytest.raises(InputError, match="numbers of at least 1"):
        Sound(**({"sample_rate": 100, "samples": 8, "frames": 4, "bins": 2} | given))
