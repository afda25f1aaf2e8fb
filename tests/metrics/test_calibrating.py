"""Calibration, by hand and on scores whose truth is known."""

from __future__ import annotations

import pytest
import torch

from vpt.metrics.calibrating import SLOPES, calibration_error, slope_of


def test_calibration_error_by_hand():
    """Two of three that are sure to 0.9 are right; the one that is sure to 0.6 is."""
    shares = torch.tensor([[0.9, 0.1], [0.1, 0.9], [0.9, 0.1], [0.6, 0.4]])
    found = calibration_error(shares, torch.tensor([0, 1, 1, 0]))
    assert found == pytest.approx((abs(3 * 0.9 - 2) + abs(0.6 - 1)) / 4)
    generator = torch.Generator().manual_seed(0)
    sure = torch.rand(20000, generator=generator, dtype=torch.float64) / 2 + 0.5
    right = torch.rand(20000, generator=generator) < sure
    assert calibration_error(torch.stack([sure, 1 - sure], 1), (~right).long()) < 0.02


def test_the_slope_undoes_a_known_one() -> None:
    generator = torch.Generator().manual_seed(0)
    true = 2 * torch.randn(4000, 3, generator=generator, dtype=torch.float64)
    y = torch.multinomial(torch.softmax(true, 1), 1, generator=generator)[:, 0]
    assert slope_of(true, y) == pytest.approx(1, rel=0.2)
    assert slope_of(4 * true, y) == pytest.approx(0.25, rel=0.2)
    assert calibration_error(torch.softmax(4 * true, 1), y) > 0.1
    assert calibration_error(torch.softmax(4 * true * slope_of(4 * true, y), 1), y) < 0.03


def test_a_few_right_ones_do_not_make_it_certain() -> None:
    scores = torch.eye(3)[[0, 1, 2, 0]]
    sure = torch.softmax(scores * slope_of(scores, torch.tensor([0, 1, 2, 0])), 1).max(1).values
    assert 0.7 < float(sure.min()) < 0.9  # of four examples, not 1 − 1e-27
    absent = torch.full((4, 1), -1e4)
    assert slope_of(torch.cat([scores, absent], 1), torch.tensor([0, 1, 2, 0])) == slope_of(
        scores, torch.tensor([0, 1, 2, 0])
    )
    none = torch.cat([absent * float("inf"), scores], 1)  # a class without examples comes first
    assert slope_of(none, torch.tensor([1, 2, 3, 1])) > 1
    assert slope_of(torch.zeros(0, 3), torch.zeros(0, dtype=torch.long)) == 1
    assert min(SLOPES) < 0.1 < 10 < max(SLOPES)
