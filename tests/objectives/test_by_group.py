"""What objectives by group have in common: gaps that fall, and groups that do not serve."""

from __future__ import annotations

import pytest
import torch
from by_group import GROUPS, bound
from helpers import planted, planted_model

import vpt
from vpt.data import Examples
from vpt.errors import TrainingError
from vpt.metrics.groups import count_table, rates
from vpt.training.evaluation import scores


def gap(model: vpt.PromptedModel, data: Examples) -> float:
    logits, y = scores(model, data)
    return float(
        rates(count_table(y, logits.argmax(1), data.groups, 2, 2))["average_odds_difference"]
    )


@pytest.mark.parametrize(
    "objective", [vpt.FairReprogram(0.5), vpt.GapPenalty(5.0), vpt.WorstGroup(0.3)]
)
def test_a_pattern_takes_off_some_of_the_gap(objective) -> None:
    train, test = planted(200, 0), planted(200, 1)
    backbone = vpt.load_backbone(planted_model())
    with vpt.PromptedModel(backbone, None, vpt.Identity()) as bare:
        before = gap(bare, test)
    model = vpt.PromptedModel(backbone, vpt.Full.like(backbone), vpt.Identity())
    vpt.fit(model, train, objective=objective, epochs=8, lr=0.003, readout_lr=0.0, progress=False)
    assert before > 0.3
    assert gap(model, test) < 0.9 * before
    assert vpt.evaluate(model, test)["accuracy"] > 0.8


@pytest.mark.parametrize("objective", [vpt.FairReprogram(), vpt.GapPenalty(), vpt.WorstGroup()])
def test_groups_that_do_not_serve(objective) -> None:
    with pytest.raises(TrainingError, match="have no groups"):
        objective.bind([0, 1], None, ["a", "b"], None)
    with pytest.raises(TrainingError, match="1 of 2 training examples have no group"):
        objective.bind([0, 1], [0, -1], ["a", "b"], GROUPS)
    with pytest.raises(TrainingError, match="of one group, 'w'"):
        objective.bind([0, 1], [1, 1], ["a", "b"], GROUPS)
    if objective.needs_cells:
        with pytest.raises(
            TrainingError, match=r"label 'b' in group 'm': equalized odds is not defined"
        ):
            objective.bind([0, 0, 1], [0, 1, 1], ["a", "b"], GROUPS)
    with pytest.raises(TrainingError, match="group of every example"):
        bound(objective).losses(torch.zeros(2, 3), torch.tensor([0, 1]))


def test_demographic_parity_needs_no_cell_of_every_label() -> None:
    objective = vpt.GapPenalty(1.0, "dp")
    objective.bind([0, 0, 1], [0, 1, 1], ["a", "b"], GROUPS)
    assert objective.shares.tolist() == [[pytest.approx(1 / 3), pytest.approx(2 / 3)]]
