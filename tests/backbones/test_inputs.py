"""Raw input: what is taken, what becomes of it, and what is refused with which words."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from vpt.backbones.inputs import Images, Sound
from vpt.errors import InputError

IMAGES = Images(size=(4, 6), mean=(0.1, 0.2, 0.3), std=(1.0, 0.5, 0.25))
GOOD = torch.rand(2, 3, 4, 6, generator=torch.Generator().manual_seed(0))


# --- Images -----------------------------------------------------------------------------------------------------------


def test_images_are_normalised_channel_by_channel():
    expected = torch.stack([GOOD[:, 0] - 0.1, (GOOD[:, 1] - 0.2) * 2, (GOOD[:, 2] - 0.3) * 4], 1)
    torch.testing.assert_close(IMAGES.normalize(GOOD), expected)
    torch.testing.assert_close(IMAGES.standardize(GOOD - 5), expected - torch.tensor([5.0, 10, 20]).view(3, 1, 1))


def test_prepare_hands_images_on_without_lengths():
    x, lengths = IMAGES.prepare(GOOD)
    assert torch.equal(x, GOOD)
    assert lengths is None


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_floats_become_float32(dtype):
    x, _ = IMAGES.prepare(GOOD.to(dtype))
    assert x.dtype == torch.float32
    assert torch.equal(x, GOOD.to(dtype).float())


@pytest.mark.parametrize("change", [
    lambda x: x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2),
    lambda x: x.repeat_interleave(2, 3)[..., ::2],
    lambda x: x.contiguous(memory_format=torch.channels_last),
])  # fmt: skip
def test_the_layout_in_memory_does_not_matter(change):
    x = change(GOOD)
    assert not x.is_contiguous()
    assert torch.equal(IMAGES.normalize(x), IMAGES.normalize(GOOD))


def test_gradients_pass():
    x = GOOD.clone().requires_grad_()
    IMAGES.normalize(x).sum().backward()
    torch.testing.assert_close(x.grad, torch.tensor([1.0, 2.0, 4.0]).view(3, 1, 1).expand(2, 3, 4, 6))


def test_no_images_are_images_too():
    assert IMAGES.normalize(GOOD[:0]).shape == (0, 3, 4, 6)


@pytest.mark.parametrize(("dtype", "by"), [(torch.uint8, "255"), (torch.int16, "32768"), (torch.int64, "the largest value"),
                                           (torch.bool, "the largest value")])  # fmt: skip
def test_integers_are_refused_with_the_number_to_divide_by(dtype, by):
    with pytest.raises(InputError, match=rf"images of type {dtype}; needed are floats.*Divide by {by}"):
        IMAGES.prepare(torch.ones(2, 3, 4, 6, dtype=dtype))


@pytest.mark.parametrize("x", [np.zeros((2, 3, 4, 6), np.float32), [[0.0]], None, (GOOD, GOOD)])
def test_only_tensors_are_images(x):
    with pytest.raises(
        InputError, match=rf"Found {type(x).__name__} where images should be; needed is images \[B,3,4,6\] in \[0,1\]"
    ):
        IMAGES.prepare(x)


@pytest.mark.parametrize(
    ("shape", "hint"),
    [((3, 4, 6), r"Add a batch dimension: x\[None\]"), ((2, 1, 4, 6), "repeat a grey channel"), ((2, 4, 4, 6), "alpha"),
     ((2, 3, 6, 4), "Resize"), ((2, 3, 8, 12), "Resize"), ((2, 4, 6, 3), "permute"), ((6,), "Resize"),
     ((1, 2, 3, 4, 6), "Resize")],
)  # fmt: skip
def test_other_shapes_are_refused(shape, hint):
    with pytest.raises(
        InputError, match=rf"Found images of shape \[{', '.join(map(str, shape))}\]; needed are .*\[B,3,4,6\].*{hint}"
    ):
        IMAGES.prepare(torch.zeros(shape))


@pytest.mark.parametrize("value", [-0.01, 1.01, 255.0, math.nan, math.inf, -math.inf])
def test_values_outside_the_range_are_refused(value):
    x = GOOD.clone()
    x[1, 2, 3, 4] = value
    with pytest.raises(
        InputError, match=r"needed are finite values in \[0, 1\]. Divide 0–255 images by 255; do not subtract mean"
    ):
        IMAGES.prepare(x)


def test_rounding_beyond_the_range_is_forgiven():
    IMAGES.prepare(GOOD.clone().clamp(0, 1) * 1.0005)


def test_images_describe_themselves():
    spec = Images(size=7, mean=0.5, std=0.25)
    assert (spec.size, spec.shape, spec.mean, spec.std) == ((7, 7), (3, 7, 7), (0.5,) * 3, (0.25,) * 3)
    assert spec.describe() == {"kind": "image", "size": [7, 7], "channels": 3, "mean": [0.5] * 3, "std": [0.25] * 3,
                               "crop_pct": 1.0, "interpolation": "bicubic"}  # fmt: skip
    assert (spec.base, spec.unit) == (0.0, 1.0)


@pytest.mark.parametrize("spec", [IMAGES, Sound(16000, 1600, 8, 16, mean=-4.0, std=3.0)])
def test_examples_repeat_and_fit(spec):
    assert torch.equal(spec.example(3), spec.example(3))
    x, _ = spec.prepare(spec.example(3))
    assert x.shape == (3, *spec.shape)


@pytest.mark.parametrize(("given", "message"), [
    ({"mean": (0.5, 0.5)}, r"mean=\(0.5, 0.5\); needed is one number per channel \(3\)"),
    ({"std": (1.0, 0.0, 1.0)}, "needed is one positive number per channel"),
    ({"std": -1.0}, r"std=-1.0; needed is one positive number"),
    ({"std": math.nan}, "positive"),
    ({"channels": 1, "mean": 0.5, "std": (1.0, 1.0, 1.0)}, r"per channel \(1\)"),
])  # fmt: skip
def test_statistics_must_fit_the_channels(given, message):
    with pytest.raises(InputError, match=message):
        Images(size=4, **given)


def test_one_channel_needs_no_more_words():
    assert Images(size=4, channels=1).shape == (1, 4, 4)


@pytest.mark.parametrize("mean", [np.array([0.1, 0.2, 0.3]), torch.tensor([0.1, 0.2, 0.3])])
def test_statistics_may_be_arrays(mean):
    assert Images(size=4, mean=mean).mean == pytest.approx((0.1, 0.2, 0.3))


# --- Sound ------------------------------------------------------------------------------------------------------------


def loud(waveform, lengths):
    """A front end of 4 frames × 2 bins: the quarter's sum, and the clip's length."""
    return torch.stack([waveform.view(len(waveform), 4, -1).sum(2), lengths.float().view(-1, 1).expand(-1, 4)], 2)


SOUND = Sound(sample_rate=100, samples=8, frames=4, bins=2, front_end=loud, window=2, hop=2, mean=1.0, std=3.0, scale=2.0)
WAVE = torch.tensor([[0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8], [1.0, -1.0, 0.5, 0.25, 0, 0, 0, 0]])


def lengths(*values):
    return torch.tensor(values)


def test_waveforms_go_through_the_front_end():
    spectrogram, valid = SOUND.prepare((WAVE, lengths(8, 4)))
    torch.testing.assert_close(spectrogram[..., 0], torch.tensor([[0.3, 0.7, 1.1, 1.5], [0, 0.75, 0, 0]]))
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


@pytest.mark.parametrize(("samples", "frames"), [(1, 1), (400, 1), (559, 1), (560, 2), (1040, 5), (99999, 7)])
def test_only_whole_windows_are_valid_frames(samples, frames):
    spec = Sound(16000, 1600, 7, 16)
    assert spec.frame_lengths(lengths(samples)).tolist() == [frames]


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_other_float_waveforms_become_float32(dtype):
    spectrogram, _ = SOUND.prepare((WAVE.to(dtype), lengths(8, 4)))
    assert spectrogram.dtype == torch.float32
    torch.testing.assert_close(spectrogram, SOUND.prepare((WAVE, lengths(8, 4)))[0], atol=2e-3, rtol=0)


def test_waveforms_may_be_views():
    view = WAVE.repeat_interleave(2, 1)[:, ::2]
    assert not view.is_contiguous()
    assert torch.equal(SOUND.prepare((view, lengths(8, 4)))[0], SOUND.prepare((WAVE, lengths(8, 4)))[0])


@pytest.mark.parametrize(
    ("x", "message"),
    [
        ((WAVE * 32768).short(), r"sound of type torch.int16; .*Divide by 32768 first"),
        (WAVE * 2, r"waveform with values from -2 to 2; needed are finite values in \[-1, 1\]. Divide 16-bit"),
        (WAVE.clone().fill_(math.nan), "needed are finite values"),
        (WAVE.clone().fill_(math.inf), "needed are finite values"),
        (WAVE[0], r"Found sound of shape \[8\]; needed is \(waveform \[B,T\] in \[-1,1\] at 100 Hz, lengths \[B\]\)"),
        (WAVE[:, None], r"Found sound of shape \[2, 1, 8\]"),
        (WAVE.numpy(), "Found ndarray where sound should be"),
    ],
)
def test_wrong_waveforms_are_refused(x, message):
    with pytest.raises(InputError, match=message):
        SOUND.prepare((x, lengths(8, 4)))


@pytest.mark.parametrize(("given", "message"), [
    (lengths(0, 4), "clip lengths from 0 to 4; needed are 1 to 8 samples"),
    (lengths(9, 4), "clip lengths from 4 to 9; needed are 1 to 8"),
    (lengths(-3, 4), "clip lengths from -3 to 4"),
    (lengths(8), r"waveform \[2, 8\] without one length per clip"),
    (lengths(8, 8, 8), "without one length per clip"),
    (torch.tensor(8), "without one length per clip"),
    ([8, 4], "without one length per clip"),
    (None, "without one length per clip"),
])  # fmt: skip
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


@pytest.mark.parametrize("given", [[3, 4], lengths(3, 4, 4), lengths(-1, 4), lengths(3, 99), torch.tensor(3)])
def test_wrong_lengths_of_a_spectrogram_are_refused(given):
    with pytest.raises(InputError):
        SOUND.prepare((torch.zeros(2, 4, 2), given))


def test_sound_describes_itself():
    assert SOUND.describe() == {"kind": "sound", "sample_rate": 100, "samples": 8, "frames": 4, "bins": 2, "window": 2, "hop": 2,
                                "mean": 1.0, "std": 3.0, "scale": 2.0}  # fmt: skip
    assert (SOUND.shape, SOUND.base, SOUND.unit) == ((4, 2), 1.0, 3.0)
