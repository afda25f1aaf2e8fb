"""Flat gradients by loss and part equal autograd's own; silence is noticed."""

from __future__ import annotations

import pytest
import torch
from helpers import colours, tiny_model

import vpt
from vpt.training.gradients import add_gradients, check_reach, no_gradients


def losses(model: vpt.PromptedModel, x: torch.Tensor) -> dict[str, torch.Tensor]:
    out = model(x)
    return {"a": out.square().mean(), "b": out[:, 0].sum()}


def test_sums_over_micro_batches_equal_one_weighted_backward() -> None:
    model, data = tiny_model("stack"), colours(6)
    parts = model.trained_parameters()
    x = torch.stack([data[i][0] for i in range(6)])
    total: dict = {}
    for chunk, weight in ((x[:2], 0.25), (x[2:], 0.75)):
        add_gradients(total, losses(model, chunk), parts, weight)
    for name in ("a", "b"):
        loss = 0.25 * losses(model, x[:2])[name] + 0.75 * losses(model, x[2:])[name]
        for part, values in parts.items():
            expected = torch.cat(
                [g.flatten() for g in torch.autograd.grad(loss, values, retain_graph=True)]
            )
            assert torch.allclose(total[name][part], expected, rtol=1e-4, atol=1e-6)
    empty = no_gradients(["a", "b"], parts)
    assert all(
        empty[n][p].shape == total[n][p].shape and not empty[n][p].any()
        for n in total
        for p in parts
    )
    assert all(p.grad is None for p in model.parameters())


def test_reach() -> None:
    model, data = tiny_model("stack"), colours(4)
    x = torch.stack([data[i][0] for i in range(4)])
    # a fresh readout hides the prompt from the loss, not from the check
    torch.nn.init.zeros_(model.readout.weight)
    check_reach(model, x)
    border = model.prompt.prompts[0]
    border.delta = lambda pixels: torch.zeros_like(pixels)
    with pytest.raises(vpt.errors.PromptError, match=r"'prompts\.0\.pixels' has no influence"):
        check_reach(model, x)
