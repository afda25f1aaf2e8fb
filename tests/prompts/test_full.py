"""A pattern over the whole input: x + δ, not in the padding of a clip."""

from __future__ import annotations

import torch
from families import open_tiny

import vpt


def test_images_get_the_pattern_added_and_stay_unchanged_themselves() -> None:
    prompt = vpt.Full.like(open_tiny("timm ViT"), init="uniform")
    x = torch.rand(2, 3, 32, 32)
    before = x.clone()
    out, lengths = prompt.apply_to(x, None)
    assert lengths is None
    assert torch.allclose(out, x + torch.tanh(prompt.pixels))
    assert torch.equal(x, before)
    assert torch.equal(prompt.canvas(), torch.tanh(prompt.pixels.detach()))
    free = vpt.Full.like(open_tiny("timm ViT"), init="uniform", bound=None)
    assert torch.allclose(free.apply_to(x, None)[0], x + free.pixels)


def test_the_padding_of_a_clip_gets_nothing() -> None:
    backbone = open_tiny("user's keyword transformer")
    prompt = vpt.Full.like(backbone, init="uniform")
    x = backbone.inputs.example(2)
    out, lengths = prompt.apply_to(x, torch.tensor([20, 12]))
    assert lengths.tolist() == [20, 12]
    delta = 3 * 2.0 * torch.tanh(prompt.pixels)  # three σ of 2
    assert torch.allclose(out[0], x[0] + delta)
    assert torch.allclose(out[1, :12], x[1, :12] + delta[:12])
    assert torch.equal(out[1, 12:], x[1, 12:])


def test_every_picture_of_a_video_gets_it() -> None:
    backbone = open_tiny("transformers VideoMAE")
    prompt = vpt.Full.like(backbone, init="uniform")
    x = torch.rand(2, 4, 3, 32, 32)
    assert prompt.pixels.shape == (3, 32, 32)
    assert torch.allclose(prompt.apply_to(x, None)[0], x + torch.tanh(prompt.pixels))
