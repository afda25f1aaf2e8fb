"""Both constrained forms against the constrained optimum that scipy finds, and what they refuse."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from by_group import Y, Z, bound
from helpers import planted, planted_prompted
from scipy.optimize import minimize
from torch.nn import functional as F

import vpt
from vpt.errors import TrainingError
from vpt.objectives.constrained import Constrained

N, WIDTH, CLASSES = 60, 3, 2


def examples() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Features, labels that go with the first of them, and groups that go with labels."""
    draw = torch.Generator().manual_seed(1)
    y = torch.arange(N) % CLASSES
    z = torch.where(torch.rand(N, generator=draw) < 0.8, y, 1 - y)
    x = torch.randn(N, WIDTH, generator=draw, dtype=torch.float64)
    x[:, 0] += 1.2 * (2 * y - 1)
    x[:, 1] += 1.5 * (2 * z - 1)
    return x, y, z


def loss_of(w: np.ndarray) -> float:
    x, y, _ = examples()
    return float(F.cross_entropy(x @ torch.from_numpy(w).view(WIDTH, CLASSES), y))


def gap_of(w: np.ndarray) -> float:
    """The squared gaps within each label over the number of classes, by their definition."""
    x, y, z = examples()
    soft, total = (x @ torch.from_numpy(w).view(WIDTH, CLASSES)).softmax(1), 0.0
    for label in range(CLASSES):
        apart = soft[(y == label) & (z == 0)].mean(0) - soft[(y == label) & (z == 1)].mean(0)
        total += float(apart.square().sum())
    return total / CLASSES


def descended(objective: Constrained, start: np.ndarray) -> np.ndarray:
    """Weights that steps of the whole set lead to, with the multiplier as it moves."""
    x, y, z = examples()
    objective.memory = 0.0  # nothing is forgotten of a set that is seen whole
    objective.rate = 0.05  # an update is a pass
    objective.bind(y.tolist(), z.tolist(), ["a", "b"], ["m", "w"])
    w = torch.tensor(start, requires_grad=True)
    for _ in range(3000):
        objective.batch = torch.arange(N)
        losses = objective.losses(x @ w.view(WIDTH, CLASSES), y, z)
        gradients = {
            name: {"prompt": torch.autograd.grad(loss, w, retain_graph=True)[0]}
            for name, loss in losses.items()
        }
        with torch.no_grad():
            w -= 0.1 * objective.combine(gradients)["prompt"]
    return w.detach().numpy()


@pytest.fixture(scope="module")
def start() -> np.ndarray:
    """The least loss, with the weights held small by their count of steps."""
    found = minimize(loss_of, np.zeros(WIDTH * CLASSES), options={"maxiter": 30})
    return np.asarray(found.x)


def test_the_least_loss_with_half_of_the_gap_gone(start: np.ndarray) -> None:
    allowed = 0.25 * gap_of(start)  # half of a gap, squared
    best = minimize(
        loss_of,
        start,
        method="SLSQP",
        constraints={"type": "ineq", "fun": lambda w: allowed - gap_of(w)},
    )
    found = descended(vpt.GapBound(0.5), start)
    assert gap_of(found) == pytest.approx(allowed, rel=0.02)
    assert loss_of(found) == pytest.approx(best.fun, abs=2e-3)
    assert loss_of(found) > loss_of(start) + 5e-3  # it costs something


def test_the_least_gap_for_so_much_more_loss(start: np.ndarray) -> None:
    allowed = loss_of(start) + 0.01
    best = minimize(
        lambda w: 100 * gap_of(w),
        start,
        method="SLSQP",
        constraints={"type": "ineq", "fun": lambda w: allowed - loss_of(w)},
    )
    found = descended(vpt.LossBound(0.01), start)
    assert loss_of(found) == pytest.approx(allowed, abs=1e-3)
    assert gap_of(found) == pytest.approx(best.fun / 100, abs=2e-3)
    assert gap_of(found) < 0.8 * gap_of(start)


def test_the_first_pass_is_one_of_cross_entropy_alone() -> None:
    objective = bound(vpt.GapBound(1.0))
    assert isinstance(objective, Constrained)
    logits = torch.randn(12, 3, generator=torch.Generator().manual_seed(0))
    for part in (slice(0, 6), slice(6, 12)):
        objective.batch = torch.arange(12)[part]
        assert objective.losses(logits[part], Y[part], Z[part])["gap"] == 0
        assert not objective.known
        objective.combine({})
    assert objective.known
    assert objective.weight == 1.0
    expected = F.cross_entropy(logits, Y, reduction="none")
    torch.testing.assert_close(objective.first, expected)
    objective.batch = torch.arange(6)
    assert objective.losses(logits[:6], Y[:6], Z[:6])["gap"] != 0
    objective.combine({})
    assert objective.weight > 1.0  # of the gap all is left, and none may be


def test_one_epoch_would_do_nothing() -> None:
    model = planted_prompted()
    with pytest.raises(TrainingError, match="GapBound needs 2 epochs or more; found epochs=1"):
        vpt.fit(model, planted(20, 0), objective=vpt.GapBound(), epochs=1, progress=False)


def test_settings_that_are_none() -> None:
    for make in (
        lambda: vpt.GapBound(1.5),
        lambda: vpt.GapBound(0.5, rate=0),
        lambda: vpt.LossBound(-1),
    ):
        with pytest.raises(TrainingError, match="needed is"):
            make()
    objective = bound(vpt.LossBound())
    with pytest.raises(TrainingError, match="positions"):
        objective.losses(torch.zeros(12, 3), Y, Z)
