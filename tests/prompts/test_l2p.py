"""L2P by hand: which prompts are taken, how they are split, and what the loss draws together."""

from __future__ import annotations

import torch
from families import open_tiny

import vpt


def by_hand() -> vpt.L2P:
    """Three prompts of 4 rows and width 2 (one head), the two nearest are taken; keys point right,
    up and left.
    """
    prompt = vpt.L2P(pool=3, length=4, top=2, heads=1, head_dim=2, blocks=[0], width=2, pull=0.5)
    with torch.no_grad():
        prompt.keys[0].copy_(torch.tensor([[2.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]))
        prompt.prompts[0].copy_(torch.arange(24.0).view(3, 4, 2))
    return prompt


def test_selection_split_and_penalty() -> None:
    prompt = by_hand()
    # cosines 0.6, 0.8, −0.6 and −0.8, 0.6, 0.8
    prompt._receive(torch.tensor([[3.0, 4.0], [-4.0, 3.0]]))
    keys, values, bias = prompt.make(0, torch.zeros(2, 1, 1, 2), torch.zeros(2, 1, 1, 2))
    p = prompt.prompts[0]
    # prompt 1 is the nearest, then prompt 0
    assert torch.equal(keys[0, 0], torch.cat([p[1, :2], p[0, :2]]))
    assert torch.equal(values[0, 0], torch.cat([p[1, 2:], p[0, 2:]]))
    assert torch.equal(keys[1, 0], torch.cat([p[2, :2], p[1, :2]]))
    assert bias is None
    assert torch.equal(
        prompt.weights(0, prompt.query(0)), torch.tensor([[1.0, 1.0, 0.0], [0.0, 1.0, 1.0]])
    )
    assert torch.allclose(prompt.penalty(), torch.tensor(-0.5 * (0.8 + 0.6 + 0.8 + 0.6) / 2))
    assert torch.equal(prompt.usage()[0], torch.tensor([0.5, 1.0, 0.5]))


def test_keys_learn_from_the_penalty_prompts_from_the_loss() -> None:
    prompt = by_hand()
    prompt._receive(torch.tensor([[3.0, 4.0]]))
    keys, values, _ = prompt.make(0, torch.zeros(1, 1, 1, 2), torch.zeros(1, 1, 1, 2))
    (keys.sum() + values.sum()).backward()
    assert prompt.keys[0].grad is None
    assert prompt.prompts[0].grad.flatten(1).abs().sum(1).tolist() == [8.0, 8.0, 0.0]
    prompt.penalty().backward()
    assert prompt.keys[0].grad.abs().sum(1)[0] > 0
    assert prompt.keys[0].grad.abs().sum(1)[2] == 0


def test_the_usual_sizes_are_the_published_ones() -> None:
    """L2P++ in CODA-Prompt's commands: --prompt_param 30 20, five of them for each sample."""
    prompt = vpt.L2P.like(open_tiny("timm ViT"))
    assert (prompt.pool, prompt.length, prompt.top) == (30, 20, 5)
    assert vpt.L2P.like(open_tiny("timm ViT"), 3).top == 3
