"""Thresholds by group, and where there are none."""

from __future__ import annotations

import torch
from helpers import planted, planted_prompted, regrouped

from vpt.data import Examples
from vpt.fairness.thresholds import group_thresholds
from vpt.fairness.tradeoff import frontier
from vpt.training.evaluation import scores

QUICK = {"epochs": 1, "lr": 0.003, "progress": False}


def test_a_group_that_was_not_learned_from_is_tested_without_thresholds() -> None:
    train, val, test = planted(60, 0), planted(60, 2), planted(60, 1)
    names = ["plain", "blue", "third"]
    other = regrouped(test, groups=[2, *test.groups[1:]], group_names=names)
    found = frontier(
        planted_prompted(),
        regrouped(train, group_names=names),
        regrouped(val, group_names=names),
        other,
        strengths=[1.0],
        **QUICK,
    )
    assert "third" in found.chosen.test.per_group
    assert found.thresholds is None


def test_they_close_the_gap_and_need_what_can_be_learned() -> None:
    model, parts = planted_prompted(), {"train": planted(200, 0), "val": planted(100, 2)}
    with model.prompts_off():
        logits = {name: scores(model, part)[0] for name, part in parts.items()}
    found = group_thresholds(logits, parts, "dp", None)
    assert found.test is None
    assert found.note == "needs the group when predicting"
    assert found.value("demographic_parity_difference") < 0.3
    train = parts["train"]
    of_one = train.subset([i for i in range(200) if train.targets[i] != train.grouped[i]])
    lone = {"train": of_one, "val": parts["val"]}
    kept = {"train": logits["train"][: len(of_one)], "val": logits["val"]}
    assert group_thresholds(kept, lone, "eo", None) is None
    three = Examples(train.get, train.labels, ["a", "b", "c"], groups=train.groups)
    assert group_thresholds({"train": torch.zeros(200, 3)}, {"train": three}, "eo", None) is None
