"""Corrections on kept features: against their definition, numerical gradients and each example's
absence.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import check_grad

import vpt
from vpt.fairness import heads
from vpt.fairness.heads import Cells, Head, correction, gap_of


def problem(n: int = 60, width: int = 4, seed: int = 0) -> tuple[np.ndarray, ...]:
    """Features of which one says the label, one the group; the model's scores follow the group."""
    draw = np.random.default_rng(seed)
    y, group = draw.integers(0, 2, (2, n))
    x = draw.normal(size=(n, width))
    x[:, 0] += 1.5 * y
    x[:, 1] += 1.5 * group
    bare = np.stack([-x[:, 0] - 1.5 * group, x[:, 0] + 1.5 * group], 1) / 2
    return x, bare, y, group


@pytest.fixture
def unpulled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heads, "SHRINK", 0.0)


@pytest.mark.usefixtures("unpulled")
@pytest.mark.parametrize("criterion", ["eo", "dp"])
def test_the_gap_is_that_of_the_penalty(criterion: str) -> None:
    """`GapPenalty` with all examples in one update, of three classes and three groups."""
    draw = np.random.default_rng(0)
    y, group = draw.integers(0, 3, (2, 200))
    logits = torch.from_numpy(draw.normal(size=(200, 3)))
    penalty = vpt.GapPenalty(3.0, criterion, memory=0.0)
    penalty.bind(y.tolist(), group.tolist(), ["a", "b", "c"], ["p", "q", "r"])
    own = [torch.from_numpy(part) for part in (y, group)]
    penalty.losses(logits, *own)
    penalty.combine({})
    expected = penalty.losses(logits, *own)["gap"]
    stratum = y if criterion == "eo" else np.zeros_like(y)
    shares = logits.softmax(1).numpy()
    value, slope = gap_of(shares, Cells(stratum, group).means())
    # its value is of the gaps themselves; each pair counts in both orders there
    gaps = penalty.gaps().square().sum() / 2
    assert value == pytest.approx(float(gaps), rel=1e-5)
    assert float(expected) == pytest.approx(3.0 / 3 * value, rel=1e-4)
    step = 1e-5 * draw.normal(size=shares.shape)
    moved = gap_of(shares + step, Cells(stratum, group).means())[0]
    assert moved - value == pytest.approx(float((slope * step).sum()), rel=1e-3)


def test_a_small_group_is_pulled_towards_all() -> None:
    stratum, group = np.zeros(101, int), np.array([0] * 100 + [1])
    shares = np.concatenate([np.zeros((100, 1)), np.ones((1, 1))])
    value, _ = gap_of(shares, Cells(stratum, group).means())
    assert value < 0.05  # and 1 as it stands
    alone = gap_of(np.ones((5, 2)), Cells(np.zeros(5, int), np.zeros(5, int)).means())
    assert alone[0] == 0


def test_the_gradient_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    x, bare, y, group = problem()
    seen = {}

    def look(loss, begin, **options):  # type: ignore[no-untyped-def]
        seen["loss"] = loss
        return minimize(loss, begin, **options)

    minimize = heads.minimize
    monkeypatch.setattr(heads, "minimize", look)
    correction(x, bare, y, Cells(y, group), 3.0, 0.1)
    at = np.random.default_rng(1).normal(size=10)
    error = check_grad(lambda v: seen["loss"](v)[0], lambda v: seen["loss"](v)[1], at)
    assert error < 1e-5


def test_without_a_penalty_it_is_regression_from_the_model() -> None:
    """Of scores of nothing: scikit-learn's."""
    from sklearn.linear_model import LogisticRegression

    x, bare, y, group = problem()
    found = correction(x, np.zeros_like(bare), y, Cells(y, group), 0.0, 0.1)
    # two rows of weights ±w/2 decay by half of what one row of w does
    one = LogisticRegression(C=0.2, tol=1e-8, max_iter=1000).fit(x, y)
    assert np.allclose(found[:-1, 1] - found[:-1, 0], one.coef_[0], atol=2e-3)


def test_decay_keeps_the_model_and_strength_closes_the_gap() -> None:
    x, bare, y, group = problem(400)
    cells = Cells(y, group)

    def said(strength: float, decay: float) -> np.ndarray:
        found = correction(x, bare, y, cells, strength, decay)
        return bare + x @ found[:-1] + found[-1]

    gaps = []
    for strength in (0.0, 1.0, 30.0):
        scores = torch.from_numpy(said(strength, 1.0)).softmax(1).numpy()
        gaps.append(gap_of(scores, cells.means())[0])
    assert gaps[0] > 2 * gaps[1] > 4 * gaps[2]
    still = said(0.0, 1e-9) - bare
    assert np.allclose(still - still.mean(0), 0, atol=1e-4)  # but for the bias


def test_what_was_held_out_was_not_learned_from() -> None:
    x, bare, y, group = problem(80)
    folds = [(np.arange(20, 80), np.arange(20)), (np.arange(60), np.arange(60, 80))]
    head = Head("cls", x, bare, y, Cells(y, group), folds)
    found = head.held_out(3.0)
    assert np.array_equal(found[20:60], bare[20:60])  # held out by no fold
    for kept, held in folds:
        mean, std = x[kept].mean(0), x[kept].std(0)
        own = correction(
            (x[kept] - mean) / std,
            bare[kept],
            y[kept],
            Cells(y, group).take(kept),
            3.0,
            head.decay(3.0),
        )
        expected = bare[held] + (x[held] - mean) / std @ own[:-1] + own[-1]
        assert np.allclose(found[held], expected, atol=1e-3)


def test_more_features_than_examples_are_solved_in_their_span() -> None:
    x, bare, y, group = problem(40, width=90)
    folds = [(np.arange(20, 40), np.arange(20)), (np.arange(20), np.arange(20, 40))]
    head = Head("cls", x, bare, y, Cells(y, group), folds)
    weights, bias, scaler = head.fit(1.0)
    z = scaler.transform(x)
    slow = correction(z, bare, y, Cells(y, group), 1.0, head.decay(1.0))
    assert np.allclose(z @ weights.T + bias, z @ slow[:-1] + slow[-1], atol=1e-3)
