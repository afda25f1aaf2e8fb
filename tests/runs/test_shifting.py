"""Corrections of scores, against the loss that they are to minimise."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from runs.test_moments import examples
from torch import Tensor
from torch.nn import functional as F

from vpt.runs import shifting
from vpt.runs.moments import LEVEL, Moments
from vpt.runs.shifting import Shift, shifts


@pytest.fixture(autouse=True)
def _to_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shifting, "STEPS", 2000)
    monkeypatch.setattr(shifting, "STRENGTHS", (0.01, 3.0))


def given() -> tuple[Moments, Tensor, Tensor, Tensor]:
    """(what is remembered, features, scores, labels) of seven mistakes: all are to be 2."""
    x, said, y = examples()
    wrong = (said.argmax(1) != 2).nonzero()[:7, 0]
    found = Moments.of(x, said, y)
    return found, found.standardised(x[wrong]), said[wrong], torch.full((7,), 2)


def loss(found: Moments, z: Tensor, said: Tensor, y: Tensor, strength: float, moved: Tensor):
    """As the docstring says it. moved: along each whitened example, `[k,C]`."""
    directions = found.whitened(z)
    weight, bias = moved.T @ directions.double(), moved.sum(0) / (1 + LEVEL)
    drawn, along, _ = found.drawn(directions)
    elsewhere = drawn.double() + along.double() @ moved + bias
    now = said.double() + z.double() @ weight.T + bias
    kept = -(drawn.double().softmax(1) * elsewhere.log_softmax(1)).sum(1).mean()
    return kept + strength * F.cross_entropy(now, y)


def test_it_is_the_least_of_the_loss() -> None:
    found, z, said, y = given()
    for shift in shifts(found, z, said, y):
        directions = found.whitened(z)
        moved = torch.linalg.lstsq(directions.T.double(), shift.weight.T.double()).solution
        moved.requires_grad_(True)
        value = loss(found, z, said, y, shift.strength, moved)
        (slope,) = torch.autograd.grad(value, moved)
        assert float(slope.abs().max()) < 2e-4
        after = said + z @ shift.weight.T + shift.bias
        assert torch.allclose(after, shift.said, atol=1e-4)
        assert (after.argmax(1) == y).tolist() == shift.right.tolist()


def test_more_strength_mends_more_and_turns_more() -> None:
    found, z, said, y = given()
    weak, strong = shifts(found, z, said, y)
    assert strong.right.sum() >= weak.right.sum()
    assert strong.right.all()
    assert strong.lost > weak.lost


def test_what_is_held_out_was_not_learned_from() -> None:
    found, z, said, y = given()
    units = [0, 0, 1, 1, 2, 3, 3]
    _, shift = shifts(found, z, said, y, units)
    assert shift.folds == 4
    for unit in range(4):
        kept = torch.tensor([u != unit for u in units])
        *_, part = shifts(found, z[kept], said[kept], y[kept])
        after = said[~kept] + z[~kept] @ part.weight.T + part.bias
        assert (after.argmax(1) == 2).tolist() == shift.held_out[~kept.numpy()].tolist()
    *_, alone = shifts(found, z, said, y, [5] * 7)
    assert alone.folds == 1
    assert not alone.held_out.any()


def test_what_is_remembered_moves_with_the_scores() -> None:
    found, z, said, y = given()
    shift: Shift
    *_, shift = shifts(found, z, said, y)
    after = shift.remembered(found, z, y)
    assert torch.allclose(after.centre[-1], z.mean(0), atol=1e-5)
    assert torch.allclose(after.scores[-1], shift.said.mean(0), atol=1e-4)
    assert after.y.tolist() == [0, 1, 2, 2]
    # the scores of what was there are those of its features, corrected
    old = found.scores + found.centre @ shift.weight.T + shift.bias
    assert torch.allclose(after.scores[:-1], old, atol=1e-5)
    spread = [m.scores_factor.T @ m.factor for m in (found, after)]
    moved = shift.weight @ found.factor.T @ found.factor
    assert torch.allclose(spread[1] - spread[0], moved, atol=1e-3 * float(moved.abs().max()))
    assert np.isclose(float(after.weight.sum()), 1 + float(found.weight.min()), atol=1e-5)
