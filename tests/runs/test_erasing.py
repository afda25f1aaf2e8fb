"""Parts of a border erased, against a border without them."""

from __future__ import annotations

import pytest
import torch
from families import open_tiny

import vpt
from vpt.errors import PromptError


def test_a_part_is_worth_what_the_score_loses_without_it() -> None:
    torch.manual_seed(0)
    backbone = open_tiny("timm ViT")
    border = vpt.Border.like(backbone, 3, init="uniform")
    deep = vpt.DeepTokens.like(backbone, 1)
    for prompt in (border, vpt.Stack([border, deep])):
        with vpt.PromptedModel(backbone, prompt, vpt.Linear(32, 3)) as model:
            torch.nn.init.normal_(model.readout.weight)
            x = backbone.inputs.example(2)
            found = vpt.erasing(model, x, 1, rows=3, columns=3)
            assert torch.equal(found[:, 1, 1], torch.zeros(2))  # no border there
            plain = model.eval()(x)
            kept, canvas = border.pixels.detach().clone(), border.canvas()
            marks = torch.zeros_like(canvas)
            size = canvas.shape[-1]
            marks[:, : size // 3, : size // 3] = 1  # the corner, as the border lays it out
            order = _laid_out(border)
            with torch.no_grad():
                border.pixels[:, marks[0][order[0], order[1]] == 1] = 0
            less = model(x)
            expected = (plain[:, 1] - plain.mean(1)) - (less[:, 1] - less.mean(1))
            with torch.no_grad():
                border.pixels.copy_(kept)
            assert torch.allclose(found[:, 0, 0], expected.detach(), atol=1e-4)
            assert model.prompt is prompt
            assert torch.equal(model(x), plain)


def _laid_out(border: vpt.Border) -> tuple[torch.Tensor, torch.Tensor]:
    """Row and column of each number of a border."""
    numbers = torch.arange(border.pixels.shape[1], dtype=torch.float32) + 1
    kept, bound = border.pixels.detach().clone(), border.bound
    with torch.no_grad():
        border.bound = None
        border.pixels.copy_(numbers.expand_as(border.pixels))
        canvas = border.canvas()[0]
        border.pixels.copy_(kept)
    border.bound = bound
    place = {int(value): divmod(i, canvas.shape[1]) for i, value in enumerate(canvas.flatten())}
    found = torch.tensor([place[int(number)] for number in numbers])
    return found[:, 0], found[:, 1]


def test_other_prompts_are_refused() -> None:
    backbone = open_tiny("timm ViT")
    with (
        vpt.PromptedModel(backbone, vpt.DeepTokens.like(backbone, 1), vpt.Linear(32, 3)) as model,
        pytest.raises(PromptError, match="one border, patch or pattern"),
    ):
        vpt.erasing(model, backbone.inputs.example(1))
