"""Raw input: what is taken, what becomes of it, and what is refused with which words."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from vpt.backbones.inputs.images import Images
from vpt.backbones.inputs.sound import Sound
from vpt.errors import InputError

IMAGES = Images(size=(4, 6), mean=(0.1, 0.2, 0.3), std=(1.0, 0.5, 0.25))
GOOD = torch.rand(2, 3, 4, 6, generator=torch.Generator().manual_seed(0))


def test_images_are_normalised_channel_by_channel():
    expected = torch.stack([GOOD[:, 0] - 0.1, (GOOD[:, 1] - 0.2) * 2, (GOOD[:, 2] - 0.3) * 4], 1)
    torch.testing.assert_close(IMAGES.normalize(GOOD), expected)
    torch.testing.assert_close(
        IMAGES.standardize(GOOD - 5), expected - torch.tensor([5.0, 10, 20]).view(3, 1, 1)
    )


def test_prepare_hands_images_on_without_lengths():
    x, lengths = IMAGES.prepare(GOOD)
    assert torch.equal(x, GOOD)
    assert lengths is None


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_floats_become_float32(dtype):
    x, _ = IMAGES.prepare(GOOD.to(dtype))
    assert x.dtype == torch.float32
    assert torch.equal(x, GOOD.to(dtype).float())


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2),
        lambda x: x.repeat_interleave(2, 3)[..., ::2],
        lambda x: x.contiguous(memory_format=torch.channels_last),
    ],
)
def test_the_layout_in_memory_does_not_matter(change):
    x = change(GOOD)
    assert not x.is_contiguous()
    assert torch.equal(IMAGES.normalize(x), IMAGES.normalize(GOOD))


def test_gradients_pass():
    x = GOOD.clone().requires_grad_()
    IMAGES.normalize(x).sum().backward()
    torch.testing.assert_close(
        x.grad, torch.tensor([1.0, 2.0, 4.0]).view(3, 1, 1).expand(2, 3, 4, 6)
    )


def test_no_images_are_images_too():
    assert IMAGES.normalize(GOOD[:0]).shape == (0, 3, 4, 6)


@pytest.mark.parametrize(
    ("dtype", "by"),
    [
        (torch.uint8, "255"),
        (torch.int16, "32768"),
        (torch.int64, "the largest value"),
        (torch.bool, "the largest value"),
    ],
)
def test_integers_are_refused_with_the_number_to_divide_by(dtype, by):
    with pytest.raises(
        InputError, match=rf"images of type {dtype}; needed are floats.*Divide by {by}"
    ):
        IMAGES.prepare(torch.ones(2, 3, 4, 6, dtype=dtype))


@pytest.mark.parametrize("x", [np.zeros((2, 3, 4, 6), np.float32), [[0.0]], None, (GOOD, GOOD)])
def test_only_tensors_are_images(x):
    with pytest.raises(
        InputError,
        match=(
            rf"Found {type(x).__name__} where images should be; needed is images \[B,3,4,6\] in"
            r" \[0,1\]"
        ),
    ):
        IMAGES.prepare(x)


@pytest.mark.parametrize(
    ("shape", "hint"),
    [
        ((3, 4, 6), r"Add a batch dimension: x\[None\]"),
        ((2, 1, 4, 6), "repeat a grey channel"),
        ((2, 4, 4, 6), "alpha"),
        ((2, 3, 6, 4), "Resize"),
        ((2, 3, 8, 12), "Resize"),
        ((2, 4, 6, 3), "permute"),
        ((6,), "Resize"),
        ((1, 2, 3, 4, 6), "Resize"),
    ],
)
def test_other_shapes_are_refused(shape, hint):
    with pytest.raises(
        InputError,
        match=(
            rf"Found images of shape \[{', '.join(map(str, shape))}\]; needed are"
            rf" .*\[B,3,4,6\].*{hint}"
        ),
    ):
        IMAGES.prepare(torch.zeros(shape))


@pytest.mark.parametrize("value", [-0.01, 1.01, 255.0, math.nan, math.inf, -math.inf])
def test_values_outside_the_range_are_refused(value):
    x = GOOD.clone()
    x[1, 2, 3, 4] = value
    with pytest.raises(
        InputError,
        match=(
            r"needed are finite values in \[0, 1\]. Divide 0–255 images by 255; do not subtract"
            r" mean"
        ),
    ):
        IMAGES.prepare(x)


def test_rounding_beyond_the_range_is_forgiven():
    IMAGES.prepare(GOOD.clone().clamp(0, 1) * 1.0005)


def test_images_describe_themselves():
    spec = Images(size=7, mean=0.5, std=0.25)
    assert (spec.size, spec.shape, spec.mean, spec.std) == (
        (7, 7),
        (3, 7, 7),
        (0.5,) * 3,
        (0.25,) * 3,
    )
    assert spec.describe() == {
        "kind": "image",
        "size": [7, 7],
        "channels": 3,
        "mean": [0.5] * 3,
        "std": [0.25] * 3,
        "crop_pct": 1.0,
        "interpolation": "bicubic",
        "fit": "cover",
        "like": "timm",
        "resize_to": [7, 7],
    }
    assert Images.described(spec.describe()) == spec
    assert str(spec) == "7 × 7 pixels (covered, bicubic), mean 0.5, std 0.25"
    assert (spec.base, spec.unit) == (0.0, 1.0)


@pytest.mark.parametrize("spec", [IMAGES, Sound(16000, 1600, 8, 16, mean=-4.0, std=3.0)])
def test_examples_repeat_and_fit(spec):
    assert torch.equal(spec.example(3), spec.example(3))
    x, _ = spec.prepare(spec.example(3))
    assert x.shape == (3, *spec.shape)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"mean": (0.5, 0.5)}, r"mean=\(0.5, 0.5\); needed is one number per channel \(3\)"),
        ({"std": (1.0, 0.0, 1.0)}, "needed is one positive number per channel"),
        ({"std": -1.0}, r"std=-1.0; needed is one positive number"),
        ({"std": math.nan}, "positive"),
        ({"channels": 1, "mean": 0.5, "std": (1.0, 1.0, 1.0)}, r"per channel \(1\)"),
    ],
)
def test_statistics_must_fit_the_channels(given, message):
    with pytest.raises(InputError, match=message):
        Images(size=4, **given)


def test_one_channel_needs_no_more_words():
    assert Images(size=4, channels=1).shape == (1, 4, 4)


@pytest.mark.parametrize("mean", [np.array([0.1, 0.2, 0.3]), torch.tensor([0.1, 0.2, 0.3])])
def test_statistics_may_be_arrays(mean):
    assert Images(size=4, mean=mean).mean == pytest.approx((0.1, 0.2, 0.3))


@pytest.mark.parametrize(
    ("given", "message"),
    [({"interpolation": "foo"}, "interpolation='foo'"), ({"crop_pct": 0}, "crop_pct=0")],
)
def test_what_cannot_be_read_so_is_refused(given, message):
    with pytest.raises(InputError, match=message):
        Images(size=(4, 6), **given)


def test_videos_have_frames_first():
    spec = Images(size=(4, 6), frames=2)
    assert spec.shape == (2, 3, 4, 6)
    assert spec.normalize(torch.rand(5, 2, 3, 4, 6)).shape == (5, 2, 3, 4, 6)
    assert spec.describe()["frames"] == 2
    assert "frames" not in IMAGES.describe()
    with pytest.raises(InputError, match=r"videos \[B,2,3,4,6\]"):
        spec.prepare(torch.rand(2, 3, 4, 6)[:, :, :, :5])
