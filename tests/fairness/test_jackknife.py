"""Each example's gradient against a loop, and the system against a solver."""

from __future__ import annotations

import pytest
import torch
from helpers import planted, tiny_model
from torch.nn import functional as F

from vpt.data import Examples
from vpt.fairness.jackknife import System, by_gradient, measure_gradient, per_example, root
from vpt.fairness.measure import Measure
from vpt.training.evaluation import accelerator_in


def test_each_examples_gradient_and_the_matrix_are_those_of_a_loop() -> None:
    fitted, train = tiny_model("stack"), planted(5, 0)
    train = Examples(train.get, train.labels, ["red", "green", "blue"])
    gradients, rows = per_example(fitted.eval(), train, progress=False)
    parameters = list(by_gradient(fitted).values())
    for i in range(5):
        logits = fitted(train[i][0][None])
        loss = F.cross_entropy(logits, torch.tensor([train[i][1]]))
        expected = torch.cat(
            [g.flatten() for g in torch.autograd.grad(loss, parameters, retain_graph=True)]
        )
        torch.testing.assert_close(gradients[i], expected, atol=1e-5, rtol=1e-4)
        jacobian = torch.stack(
            [
                torch.cat(
                    [
                        g.flatten()
                        for g in torch.autograd.grad(logits[0, c], parameters, retain_graph=True)
                    ]
                )
                for c in range(3)
            ]
        )
        p = logits.softmax(1)[0].detach()
        own = rows[3 * i : 3 * i + 3]
        torch.testing.assert_close(
            own.T @ own, jacobian.T @ (p.diag() - p.outer(p)) @ jacobian, atol=1e-5, rtol=1e-3
        )


@pytest.mark.parametrize("count", [3, 40])
def test_either_system_solves_it(count: int) -> None:
    rows, right = torch.randn(count, 12), torch.randn(12)
    expected = torch.linalg.solve(
        rows.double().T @ rows.double() + 0.3 * torch.eye(12), right.double()
    )
    torch.testing.assert_close(System(rows, 0.3).solve(right), expected, atol=1e-4, rtol=1e-4)


def test_one_row_says_it_for_two_classes() -> None:
    p, jacobian = torch.rand(4, 2).softmax(1), torch.randn(4, 2, 5)
    rows = root(p, jacobian)
    assert rows.shape == (4, 1, 5)
    for i in range(4):
        expected = jacobian[i].T @ (p[i].diag() - p[i].outer(p[i])) @ jacobian[i]
        torch.testing.assert_close(rows[i].T @ rows[i], expected)


def test_the_measures_gradient_is_that_of_one_pass() -> None:
    fitted, val = tiny_model().eval(), planted(40, 2)
    val = Examples(
        val.get,
        val.labels,
        ["red", "green", "blue"],
        groups=val.groups,
        group_names=val.group_names,
    )
    accelerator_in("no")  # whatever ran before
    measure = Measure("dp", val, None)
    value, slope = measure_gradient(fitted, val, measure)
    whole = measure(fitted(torch.stack([val[i][0] for i in range(40)])))
    expected = torch.autograd.grad(whole, list(by_gradient(fitted).values()))
    assert value == pytest.approx(whole.item(), abs=1e-5)
    torch.testing.assert_close(
        slope, torch.cat([g.flatten() for g in expected]), atol=1e-5, rtol=1e-3
    )
