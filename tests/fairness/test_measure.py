"""What influence is on, by hand."""

from __future__ import annotations

import pytest
import torch
from helpers import planted, regrouped

from vpt.errors import DataError
from vpt.fairness.measure import KINK, Measure


def test_gaps_and_loss_by_hand() -> None:
    val = planted(8, 2)
    p = torch.rand(8, generator=torch.Generator().manual_seed(0))
    logits = torch.stack([1 - p, p], 1).log()
    y, group = torch.tensor(val.targets), torch.tensor(val.grouped)

    def gap(keep: torch.Tensor) -> torch.Tensor:
        return (p[keep & (group == 0)].mean() - p[keep & (group == 1)].mean()).abs()

    # of both classes alike, halved
    assert float(Measure("dp", val, None)(logits)) == pytest.approx(float(gap(y >= 0)), abs=KINK)
    loss = torch.nn.functional.cross_entropy(logits, y)
    assert torch.equal(Measure("loss", val, None)(logits), loss)


def test_what_cannot_be_compared() -> None:
    val = planted(8, 2)
    with pytest.raises(DataError, match="of one group"):
        Measure("dp", regrouped(val, groups=[0] * 8), None)
    with pytest.raises(DataError, match="positive='green'; the classes are dull, red"):
        Measure("eopp", val, "green")
