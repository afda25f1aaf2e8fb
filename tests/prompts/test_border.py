"""Borders on images and on sound, against what the equations say."""

from __future__ import annotations

import pytest
import torch
from families import open_tiny
from torchvision.transforms.v2 import functional as tvf

import vpt
from vpt.errors import PromptError


def border(**kwargs) -> vpt.Border:
    made = vpt.Border(**({"width": 2, "shape": [3, 8, 10]} | kwargs))
    torch.nn.init.normal_(made.pixels)
    return made


def test_shrink_keeps_the_whole_image_inside_and_tanh_around() -> None:
    prompt, x = border(), torch.rand(4, 3, 8, 10)
    out, lengths = prompt.apply_to(x, None)
    assert lengths is None
    assert torch.equal(out[:, :, 2:-2, 2:-2], tvf.resize(x, [4, 6], antialias=True))
    frame = torch.ones(8, 10, dtype=torch.bool)
    frame[2:-2, 2:-2] = False
    assert prompt.pixels.shape == (3, int(frame.sum()))
    ring = out[0][:, frame].sort().values
    assert torch.allclose(ring, torch.tanh(prompt.pixels).sort().values)
    assert torch.equal(out[0][:, frame], out[3][:, frame])
    # the top comes first
    assert torch.equal(out[0][:, :2], torch.tanh(prompt.pixels[:, :20]).view(3, 2, 10))


def test_cover_adds_over_the_edge_and_leaves_the_rest() -> None:
    prompt, x = border(fit="cover", bound=0.5), torch.rand(2, 3, 8, 10)
    out, _ = prompt.apply_to(x, None)
    assert torch.equal(out[:, :, 2:-2, 2:-2], x[:, :, 2:-2, 2:-2])
    assert torch.allclose(
        out[:, :, :2] - x[:, :, :2],
        (0.5 * torch.tanh(prompt.pixels[:, :20])).view(3, 2, 10),
        atol=1e-6,
    )
    assert float((out - x).detach().abs().max()) <= 0.5 + 1e-6


def test_free_border_is_not_bounded_and_zeros_start_neutral() -> None:
    prompt = border(bound=None)
    prompt.pixels.data.fill_(7.0)
    assert float(prompt.apply_to(torch.rand(1, 3, 8, 10), None)[0].detach().max()) == 7.0
    backbone = open_tiny("timm ViT")
    x = backbone.inputs.example(2)
    assert torch.equal(vpt.Border.like(backbone, width=2, fit="cover").apply_to(x, None)[0], x)


def test_number_of_parameters_is_the_papers() -> None:
    assert vpt.Border(30, [3, 224, 224]).pixels.numel() == 69_840  # Bahng et al. 2022


def test_width_and_share_are_said() -> None:
    prompt = vpt.Border(8, [3, 64, 64])
    assert prompt.covered == pytest.approx(1 - 48 * 48 / 64**2)
    assert "8 pixels wide, 44% of the 64×64 input, the image shrunk to 48×48" in prompt.describe()


def test_sound_moves_a_short_clip_into_its_padding() -> None:
    prompt = border(shape=[12, 4], base=-3.0, unit=2.0, bound=3.0)
    x = torch.randn(2, 12, 4)
    x[:, 5:] = 9.0  # padding
    out, lengths = prompt.apply_to(x, torch.tensor([5, 5]))
    rows = -3.0 + 2.0 * 3.0 * torch.tanh(prompt.pixels)
    assert lengths.tolist() == [9, 9]
    assert torch.equal(out[:, 2:7], x[:, :5])  # nothing is shrunk
    assert torch.allclose(out[0, :2], rows[:2])
    assert torch.allclose(out[0, 7:9], rows[2:])
    assert (out[:, 9:] == 9.0).all()


def test_sound_shrinks_only_as_far_as_it_must() -> None:
    prompt, x = border(shape=[12, 1]), torch.arange(12.0).view(1, 12, 1)
    for length, kept in ((8, 8), (9, 8), (12, 8)):
        out, lengths = prompt.apply_to(x, torch.tensor([length]))
        assert lengths.tolist() == [12]
        inside = out[0, 2:10, 0]
        expected = torch.nn.functional.interpolate(
            x[:, :length].transpose(1, 2), kept, mode="linear", align_corners=False
        )[0, 0]
        assert torch.allclose(inside, expected, atol=1e-5)
    mixed, lengths = prompt.apply_to(x.expand(2, -1, -1), torch.tensor([3, 12]))
    assert lengths.tolist() == [7, 12]
    assert torch.equal(mixed[0, 2:5, 0], torch.arange(3.0))


def test_sound_cover_adds_at_the_clips_own_ends() -> None:
    prompt, x = border(shape=[12, 4], fit="cover"), torch.randn(1, 12, 4)
    out, lengths = prompt.apply_to(x, torch.tensor([7]))
    rows = torch.tanh(prompt.pixels)
    assert lengths.tolist() == [7]
    assert torch.allclose((out - x)[0, :2], rows[:2], atol=1e-6)
    assert torch.allclose((out - x)[0, 5:7], rows[2:], atol=1e-6)
    assert torch.equal(out[0, 2:5], x[0, 2:5])
    assert torch.equal(out[0, 7:], x[0, 7:])


def test_gradients_reach_every_number() -> None:
    for kwargs in ({}, {"fit": "cover"}, {"shape": [12, 4]}, {"shape": [12, 4], "fit": "cover"}):
        prompt = border(**kwargs)
        x = torch.rand(2, *prompt.shape)
        prompt.apply_to(x, None)[0].square().sum().backward()
        assert (prompt.pixels.grad != 0).all()


def test_bound_on_sound_is_in_sigmas() -> None:
    backbone = open_tiny("user's keyword transformer")
    prompt = vpt.Border.like(backbone, width=3)
    prompt.pixels.data.fill_(100.0)
    out, _ = prompt.apply_to(backbone.inputs.example(1), None)
    assert float(backbone.inputs.standardize(out)[0, 0].detach().max()) == pytest.approx(3.0)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"width": 4}, "leaves nothing"),
        ({"width": 0}, "width=0"),
        ({"fit": "squeeze"}, "'shrink'"),
        ({"bound": -1.0}, "bound=-1"),
        ({"shape": [8]}, "shape"),
        ({"shape": [12, 4], "width": 6}, "frames wide leaves nothing"),
    ],
)
def test_wrong_input(kwargs, message: str) -> None:
    with pytest.raises(PromptError, match=message):
        border(**kwargs)


def test_wrong_init_and_wrong_shape() -> None:
    backbone = open_tiny("timm ViT")
    with pytest.raises(PromptError, match="'zeros' or 'uniform'"):
        vpt.Border.like(backbone, width=2, init="data")
    with pytest.raises(PromptError, match="made for"):
        border().apply_to(torch.rand(1, 3, 9, 10), None)


def test_a_border_on_sound_says_frames_or_samples():
    assert (
        "of 2 time frames before and behind, 10% of 40 frames" in vpt.Border(2, [40, 8]).describe()
    )
    assert (
        "of 80 samples before and behind, 10% of 1600 samples"
        in vpt.Border(80, [1600, 1]).describe()
    )
