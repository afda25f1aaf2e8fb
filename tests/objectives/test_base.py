"""How objectives are found, and how named losses combine by default."""

from __future__ import annotations

import pytest
import torch

import vpt
from vpt import objectives
from vpt.errors import TrainingError
from vpt.objectives import METHODS, OBJECTIVES, Objective


def test_gradients_of_several_losses_are_summed_part_by_part():
    given = {
        "one": {"prompt": torch.tensor([1.0, 2.0]), "readout": torch.tensor([3.0])},
        "two": {"prompt": torch.tensor([10.0, -2.0])},
    }
    kept = {loss: {part: g.clone() for part, g in parts.items()} for loss, parts in given.items()}
    total = Objective().combine(given)
    assert {part: gradient.tolist() for part, gradient in total.items()} == {
        "prompt": [11.0, 0.0],
        "readout": [3.0],
    }
    assert all(
        torch.equal(given[loss][part], kept[loss][part]) for loss in kept for part in kept[loss]
    )
    assert Objective().losses(torch.zeros(2, 3), torch.tensor([0, 2])) == {}


def test_every_objective_of_the_folder_is_known_by_its_name() -> None:
    assert set(OBJECTIVES.classes) >= {
        "Classification",
        "Distillation",
        "FairReprogram",
        "GapPenalty",
        "WorstGroup",
    }
    for name, objective in OBJECTIVES.classes.items():
        assert getattr(objectives, name) is objective is getattr(vpt, name)
    assert set(dir(objectives)) >= set(OBJECTIVES.classes)
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        objectives.Nothing


def test_every_method_makes_an_objective_of_its_strengths() -> None:
    assert {
        "penalty": vpt.GapPenalty,
        "adversary": vpt.FairReprogram,
        "adversary-logits": vpt.FairReprogramOfScores,
        "gap-bound": vpt.GapBound,
        "loss-bound": vpt.LossBound,
        "worst": vpt.WorstGroup,
    } == METHODS
    for objective in METHODS.values():
        assert list(objective.strengths) == sorted(objective.strengths)
        assert all(objective.of(s, "dp").config() for s in objective.strengths)
        with pytest.raises(TrainingError):
            objective.of(-1.0, "eo")
