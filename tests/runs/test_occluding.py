"""What covering a part of a picture costs, against covering it by hand."""

from __future__ import annotations

import pytest
import torch
from families import open_tiny

import vpt
from vpt.errors import PromptError


def test_each_part_is_covered_alone() -> None:
    torch.manual_seed(0)
    backbone = open_tiny("timm ViT")
    with vpt.PromptedModel(backbone, None, vpt.Linear(32, 3)) as model:
        torch.nn.init.normal_(model.readout.weight)
        x = backbone.inputs.example(2)
        found = vpt.occlusion(model, x, 1, rows=3, columns=2, batch_size=4)
        covered = x[1:].clone()
        third = x.shape[-2] // 3
        covered[0, :, third : x.shape[-2] * 2 // 3, : x.shape[-1] // 2] = x[1].mean((1, 2))[
            :, None, None
        ]
        plain, without = model(x[1:])[0], model(covered)[0]
        expected = (plain[1] - plain.mean()) - (without[1] - without.mean())
        assert torch.allclose(found[1, 1, 0], expected, atol=1e-5)
        black = vpt.occlusion(model, x, torch.tensor([0, 2]), rows=1, columns=1, fill=0.0)
        plain, without = model(x)[1], model(torch.zeros_like(x))[1]
        expected = (plain[2] - plain.mean()) - (without[2] - without.mean())
        assert torch.allclose(black[1, 0, 0], expected, atol=1e-5)
        with pytest.raises(PromptError, match="covers parts of pictures"):
            vpt.occlusion(model, torch.rand(3, 4))
        with pytest.raises(PromptError, match="rows=0"):
            vpt.occlusion(model, x, rows=0)


def test_it_works_on_a_cnn() -> None:
    backbone = open_tiny("CNN")
    with vpt.PromptedModel(backbone, None, vpt.Linear(backbone.out_features, 2)) as model:
        found = vpt.occlusion(model, backbone.inputs.example(1), rows=2, columns=2)
    assert found.shape == (1, 2, 2)


def test_gradient_times_input_is_the_derivative() -> None:
    torch.manual_seed(0)
    backbone = open_tiny("timm ViT")
    prompt = vpt.Border.like(backbone, 2)
    with vpt.PromptedModel(backbone, prompt, vpt.Linear(32, 3)) as model:
        torch.nn.init.normal_(model.readout.weight)
        x = 0.9 * backbone.inputs.example(2)
        found = vpt.gradient_input(model, x, 1)
        assert found.shape == (2, *x.shape[-2:])

        def score(part: torch.Tensor) -> torch.Tensor:
            with torch.no_grad():
                out = model(part)
            return out[:, 1] - out.mean(1)

        step = 1e-2  # all pixels grow by a hundredth: their sum says by how much the score does
        expected = (score(x * (1 + step)) - score(x * (1 - step))) / (2 * step)
        assert torch.allclose(found.sum((1, 2)), expected, rtol=0.02, atol=1e-3)
        with pytest.raises(PromptError, match="explains pictures"):
            vpt.gradient_input(model, torch.rand(3, 4))
