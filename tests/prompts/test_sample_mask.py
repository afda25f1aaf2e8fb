"""SMM: the pattern under masks of each sample, against the equation written out."""

from __future__ import annotations

import pytest
import torch
from families import open_tiny
from torch.nn import functional as F

import vpt
from vpt.errors import PromptError


def test_the_equation_written_out_with_blocks_copied_one_by_one() -> None:
    prompt = vpt.SampleMask.like(open_tiny("timm ViT"), pools=2, init="uniform", seed=3).eval()
    x = torch.rand(2, 3, 32, 32)
    found, _ = prompt.apply_to(x, None)
    z, layers = x, list(prompt.network)
    convolutions = [layer for layer in layers if isinstance(layer, torch.nn.Conv2d)]
    norms = [layer for layer in layers if isinstance(layer, torch.nn.BatchNorm2d)]
    assert [c.out_channels for c in convolutions] == [8, 16, 32, 64, 3]
    for i, convolution in enumerate(convolutions[:-1]):
        z = F.conv2d(z, convolution.weight, padding=1)
        mean, variance = norms[i].running_mean.view(-1, 1, 1), norms[i].running_var.view(-1, 1, 1)
        z = (z - mean) / (variance + norms[i].eps).sqrt() * norms[i].weight.view(-1, 1, 1) + norms[
            i
        ].bias.view(-1, 1, 1)
        z = z.clamp(min=0)
        z = F.max_pool2d(z, 2) if i < 2 else z
    small = F.conv2d(z, convolutions[-1].weight, convolutions[-1].bias, padding=1)
    masks = torch.zeros_like(x)
    for row in range(32):
        for column in range(32):
            masks[:, :, row, column] = small[:, :, row // 4, column // 4]
    assert torch.allclose(found, x + torch.tanh(prompt.pixels) * masks, atol=1e-5)
    assert not torch.allclose(masks[0], masks[1])


def test_a_prediction_never_depends_on_its_batch_mates() -> None:
    backbone = open_tiny("timm ViT")
    model = vpt.PromptedModel(
        backbone, vpt.SampleMask.like(backbone, init="uniform"), vpt.Identity()
    ).eval()
    x = backbone.inputs.example(4)
    assert torch.allclose(model(x)[1:2], model(x[1:2]), atol=1e-5)


def test_it_learns_and_its_running_statistics_are_kept(tmp_path: object) -> None:
    backbone = open_tiny("timm ViT")
    torch.manual_seed(0)
    x, y = torch.rand(16, 3, 32, 32), torch.arange(16) % 2
    data = list(zip(x, y.tolist(), strict=True))
    model = vpt.PromptedModel(
        backbone, vpt.SampleMask.like(backbone, pools=2), vpt.Linear(32, ["a", "b"])
    )
    vpt.fit(model, data, epochs=3, lr=0.02, readout_lr=1.0, progress=False)
    assert model.prompt.pixels.abs().sum() > 0
    assert model.prompt.network[1].running_mean.abs().sum() > 0
    scores = model(x)
    vpt.save(tmp_path / "smm.vpt", model)
    model.close()
    assert torch.equal(vpt.load(tmp_path / "smm.vpt", backbone)(x), scores)


def test_seeds_and_sound_and_small_inputs() -> None:
    image, sound = open_tiny("timm ViT"), open_tiny("user's keyword transformer")
    first, second = vpt.SampleMask.like(image, seed=1), vpt.SampleMask.like(image, seed=1)
    assert all(
        torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True)
    )
    prompt = vpt.SampleMask.like(sound, pools=2, init="uniform").eval()
    x = sound.inputs.example(2)
    out, _ = prompt.apply_to(x, torch.tensor([20, 9]))
    assert torch.equal(out[1, 9:], x[1, 9:])
    assert not torch.allclose(out[0], x[0])
    with pytest.raises(PromptError, match="at least 32 in both directions"):
        vpt.SampleMask.like(sound, pools=4)
    with pytest.raises(PromptError, match="at most 4"):
        vpt.SampleMask.like(image, pools=5)
