"""Probes on shares of classes: scikit-learn's where each row has one class, and rows counted by
their weights where not.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from vpt.runs.soft_probe import SoftProbes, soft_regression


def rows(count: int = 60, width: int = 5, classes: int = 3) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    y = np.arange(count) % classes
    return generator.normal(size=(count, width)) + y[:, None] * 0.7, y


@pytest.mark.parametrize("strength", [0.01, 1.0])
def test_with_one_class_a_row_it_is_scikit_learns(strength: float) -> None:
    x, y = rows()
    found = soft_regression(x, np.eye(3)[y], strength)
    known = LogisticRegression(C=strength, tol=1e-8, max_iter=5000).fit(x, y)
    assert np.abs(found[:, :-1] - known.coef_).max() < 2e-3
    assert np.abs(found[:, -1] - known.intercept_).max() < 2e-3


def test_shares_are_rows_that_come_once_for_each_class_with_that_weight() -> None:
    x, y = rows()
    shares = np.random.default_rng(1).dirichlet([1, 1, 1], len(y)) * 0.5
    found = soft_regression(x, shares, 0.1)
    many, labels = np.repeat(x, 3, 0), np.tile(np.arange(3), len(y))
    known = LogisticRegression(C=0.1, tol=1e-8, max_iter=5000)
    known.fit(many, labels, sample_weight=shares.ravel())
    assert np.abs(found[:, :-1] - known.coef_).max() < 2e-3


@pytest.mark.parametrize("width", [5, 90])  # fewer numbers than rows, and more
def test_the_readout_says_of_raw_features_what_the_probe_said(width: int) -> None:
    x, y = rows(width=width)
    features = torch.from_numpy(x).float() * 3 + 2
    probes = SoftProbes(features, "blocks")
    shares = torch.eye(3)[torch.from_numpy(y)] * 0.8 + 0.2 / 3
    weights = probes.fit(shares, 0.1)
    said = probes.scores(weights, slice(None))
    readout = probes.readout(weights, ["a", "b", "c"])
    assert torch.allclose(torch.log_softmax(readout(features), 1), said.float(), atol=1e-4)


def test_rows_that_are_told_nothing_do_not_count() -> None:
    x, y = rows()
    told = torch.eye(3)[torch.from_numpy(y)]
    told[::4] = 0
    probes = SoftProbes(torch.from_numpy(x), "cls")
    weights = probes.fit(told, 0.1)
    some = told.sum(1).numpy() > 0
    alone = soft_regression(probes.rows[some], told.numpy()[some], 0.1)
    assert np.abs(weights - alone).max() < 1e-3
    # and begins where the last one ended, which changes nothing but the time
    assert np.abs(probes.fit(told, 0.1) - weights).max() < 1e-3
