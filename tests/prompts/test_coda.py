"""CODA-Prompt by hand: weights, sum, penalty; components that grow orthonormal to the old, which
learn no more.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import vpt
from vpt.prompts.coda import orthonormal


def by_hand(penalty_weight: float = 0.0) -> vpt.CODAPrompt:
    prompt = vpt.CODAPrompt(
        2, length=2, heads=1, head_dim=2, blocks=[0], width=2, penalty_weight=penalty_weight
    )
    with torch.no_grad():
        prompt.attention[0].copy_(torch.tensor([[1.0, 0.0], [1.0, 1.0]]))
        prompt.keys[0].copy_(torch.tensor([[2.0, 0.0], [0.0, 3.0]]))
        prompt.prompts[0].copy_(
            torch.tensor([[[1.0, 2.0], [3.0, 4.0]], [[10.0, 20.0], [30.0, 40.0]]])
        )
    prompt._receive(torch.tensor([[3.0, 4.0]]))
    return prompt


def test_weights_and_sum() -> None:
    prompt = by_hand()  # q ⊙ A = [3,0] and [3,4]; cos with [2,0] and [0,3] = 1 and 0.8
    assert torch.allclose(prompt.weights(0, prompt.query(0)), torch.tensor([[1.0, 0.8]]))
    keys, values, _ = prompt.make(0, torch.zeros(1, 1, 1, 2), torch.zeros(1, 1, 1, 2))
    assert torch.allclose(keys[0, 0], torch.tensor([[1 + 8.0, 2 + 16.0]]))
    assert torch.allclose(values[0, 0], torch.tensor([[3 + 24.0, 4 + 32.0]]))
    assert prompt.penalty() is None


def test_penalty() -> None:
    def off(rows: list[list[float]]) -> float:
        t = torch.tensor(rows)
        return float((t @ t.T - torch.eye(2)).square().mean())

    needed = off([[2, 0], [0, 3]]) + off([[1, 0], [1, 1]]) + off([[1, 2, 3, 4], [10, 20, 30, 40]])
    assert by_hand(0.1).penalty().item() == pytest.approx(0.1 * needed, rel=1e-5)


def gram_schmidt(rows: Tensor, old: Tensor) -> Tensor:
    """The slow, obvious way: row by row."""
    done = list(gram_schmidt(old, old[:0])) if len(old) else []
    found = []
    for row in rows.double():
        for other in done:
            row = row - (row @ other) * other
        done.append(row / row.norm())
        found.append(done[-1])
    return torch.stack(found) if found else rows.double()


@pytest.mark.parametrize("before", [0, 4])
def test_the_start_is_gram_schmidts(before: int) -> None:
    old = torch.randn(before, 9, generator=torch.Generator().manual_seed(5))
    found = orthonormal(3, 9, old if before else None, torch.Generator().manual_seed(1))
    drawn = torch.randn(3, 9, generator=torch.Generator().manual_seed(1))
    assert torch.allclose(found.double(), gram_schmidt(drawn, old), atol=1e-5)


def test_without_room_the_rest_is_random_but_of_length_one() -> None:
    old = torch.randn(3, 4, generator=torch.Generator().manual_seed(5))
    found = orthonormal(3, 4, old, torch.Generator().manual_seed(1))
    assert torch.allclose(found.norm(dim=1), torch.ones(3))
    assert (old @ found[0]).abs().max() < 1e-5  # the one place that was left


def test_growing() -> None:
    prompt = vpt.CODAPrompt(3, length=2, heads=2, head_dim=8, blocks=[0, 1], width=16)
    for p in prompt.parameters():
        p.data += 0.1
    old = [p.detach().clone() for p in prompt.parameters()]
    prompt.grow(4)
    assert prompt.tasks == 2
    for parts in (prompt.prompts, prompt.keys, prompt.attention):
        assert [p.requires_grad for p in parts] == [False, False, True, True]
        # new rows to old ones of the same block
        for before, after in zip(parts[:2], parts[2:], strict=True):
            assert (after.flatten(1) @ before.flatten(1).T).abs().max() < 1e-5
            assert torch.allclose(after.flatten(1) @ after.flatten(1).T, torch.eye(3), atol=1e-5)
    kept = [*prompt.prompts[:2], *prompt.keys[:2], *prompt.attention[:2]]
    assert all(torch.equal(a, b) for a, b in zip(kept, old, strict=True))
    prompt._receive(torch.randn(2, 16))
    assert prompt.weights(0, prompt.query(0)).shape == (2, 6)  # the old ones still count
