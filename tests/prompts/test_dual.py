"""DualPrompt by hand: the newest expert in training, the nearest key's at test, and what the loss
draws together.
"""

from __future__ import annotations

import torch
from families import open_tiny

import vpt


def by_hand() -> vpt.DualPrompt:
    prompt = vpt.DualPrompt(length=2, heads=1, head_dim=2, blocks=[0, 1], width=2, tasks=2)
    with torch.no_grad():
        prompt.keys[0].copy_(torch.tensor([1.0, 0.0]))
        prompt.keys[1].copy_(torch.tensor([0.0, 2.0]))
        for i, expert in enumerate(prompt.experts):  # task 0: blocks 0 and 1, then task 1
            expert.copy_(torch.tensor([[10.0 * i, 1.0], [2.0, 3.0]]))
    prompt._receive(torch.tensor([[4.0, 3.0], [3.0, 4.0]]))  # nearest: task 0, task 1
    return prompt


def test_selection_split_and_penalty() -> None:
    prompt = by_hand()
    own = torch.zeros(2, 1, 1, 2), torch.zeros(2, 1, 1, 2)
    keys, values, _ = prompt.eval().make(1, *own)
    # block 1's expert of task 0, of task 1
    assert keys[:, 0, 0].tolist() == [[10.0, 1.0], [30.0, 1.0]]
    assert values[:, 0, 0].tolist() == [[2.0, 3.0], [2.0, 3.0]]
    keys, _, _ = prompt.train().make(0, *own)
    assert keys[:, 0, 0].tolist() == [[20.0, 1.0]]  # of task 1 for all
    assert torch.allclose(prompt.penalty(), torch.tensor(((1 - 0.6) + (1 - 0.8)) / 2))
    assert torch.equal(prompt.weights(0, prompt.query(0)), torch.eye(2))


def test_growing_freezes_what_was_learned() -> None:
    prompt = vpt.DualPrompt.like(open_tiny("timm ViT"), 4)
    general = prompt.general
    assert general is not None
    first = [p.detach().clone() for p in prompt.parameters()]
    prompt.grow(3)
    assert prompt.tasks == 2
    # one block for experts in a model of three
    assert [p.requires_grad for p in prompt.experts] == [False, True]
    assert [p.requires_grad for p in prompt.keys] == [False, True]
    assert all(p.requires_grad for p in general.parameters())
    now = [*general.parameters(), prompt.experts[0], prompt.keys[0]]
    assert all(torch.equal(a, b) for a, b in zip(now, first, strict=True))


def test_a_model_of_one_block_has_experts_only() -> None:
    prompt = vpt.DualPrompt.like(open_tiny("timm ViT"), 4, general=0)
    assert prompt.general is None
    assert prompt.blocks == [0, 1, 2]
