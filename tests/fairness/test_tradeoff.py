"""The trade-off: every strength from one start, chosen on validation by the stated rule, stopped
where a model breaks.
"""

from __future__ import annotations

import pytest
import torch
from helpers import planted, planted_model

import vpt
from vpt.data import Examples
from vpt.errors import DataError, DivergedError, TrainingError
from vpt.fairness.tradeoff import Point, audit_model, choose, frontier, suspicion
from vpt.files import learned
from vpt.objectives import GapPenalty

QUICK = {"epochs": 3, "lr": 0.003, "progress": False}


def model() -> vpt.PromptedModel:
    backbone = vpt.load_backbone(planted_model())
    return vpt.PromptedModel(
        backbone, vpt.Full.like(backbone), vpt.Identity(["dull", "red"], [0, 1])
    )


def point(accuracy: float, gap: float | None, strength: float = 0.0, note: str = "") -> Point:
    values = {"accuracy": accuracy, "average_odds_difference": gap}
    return Point(
        repr(strength),
        strength,
        {"metrics": {name: {"value": value} for name, value in values.items()}},
        None,
        None,
        note,
    )


# the rule -------------------------------------------------------------------------------
def test_the_fairest_within_the_budget() -> None:
    base, points = point(0.9, 0.4), [point(0.9, 0.35, 0), point(0.89, 0.2, 1), point(0.8, 0.05, 2)]
    assert choose(base, points, "average_odds_difference", 0.01, None)[0].strength == 1
    assert choose(base, points, "average_odds_difference", 0.005, None)[0].strength == 0
    assert choose(base, points, "average_odds_difference", 0.2, None)[0].strength == 2
    chosen, rule = choose(point(0.99, 0.4), points, "average_odds_difference", 0.01, None)
    assert (chosen.strength, rule[:32]) == (0, "the most accurate, since none is")


def test_the_most_accurate_under_the_bound() -> None:
    base, points = point(0.9, 0.4), [point(0.9, 0.35, 0), point(0.89, 0.2, 1), point(0.8, 0.05, 2)]
    assert choose(base, points, "average_odds_difference", 0.01, 0.3)[0].strength == 1
    chosen, rule = choose(base, points, "average_odds_difference", 0.01, 0.01)
    assert (chosen.strength, rule[:26]) == (2, "the fairest, since none is")


def test_what_broke_or_cannot_be_said_is_not_chosen() -> None:
    points = [point(0.9, 0.3, 0), point(0.9, None, 1), point(0.9, 0.0, 2, note="broken")]
    assert choose(point(0.9, 0.4), points, "average_odds_difference", 0.01, None)[0].strength == 0


# the whole ------------------------------------------------------------------------------
def test_points_are_what_the_model_gave_and_the_chosen_one_is_left_in_it() -> None:
    train, val, test = planted(200, 0), planted(100, 2), planted(200, 1)
    bare = model()
    with bare.prompts_off():
        before = audit_model(bare, val)
    said: list[str] = []
    settings = QUICK | {"epochs": 6}
    found = frontier(
        bare, train, val, test, strengths=[20.0, 1.0], budget=0.05, say=said.append, **settings
    )
    # accuracy alone first, then rising
    assert [p.strength for p in found.points] == [None, 1.0, 20.0]
    assert said == ["accuracy alone", "strength 1", "strength 20"]
    assert found.base.val == before
    assert audit_model(bare, test) == found.chosen.test
    assert found.picture("a title")[:4] == b"\x89PNG"
    for name, value in learned(bare).items():
        assert torch.equal(value, found.chosen.learned[name])
    gap = "average_odds_difference"
    assert found.points[2].value(gap, "test") < 0.9 * found.points[0].value(gap, "test")
    assert found.base.value(gap, "test") > 0.3
    assert found.thresholds.value(gap, "test") < found.base.value(gap, "test")
    # every strength starts where accuracy alone ended
    alone = model()
    vpt.fit(alone, train, val, **settings)
    vpt.fit(alone, train, val, objective=GapPenalty(20.0), **settings)
    for name, value in learned(alone).items():
        torch.testing.assert_close(value, found.points[2].learned[name])


def test_a_model_that_breaks_ends_the_row() -> None:
    said: list[str] = []
    found = frontier(
        model(),
        planted(200, 0),
        planted(60, 2),
        method="adversary",
        strengths=[5.0, 50.0],
        say=said.append,
        **(QUICK | {"lr": 0.3, "epochs": 6}),
    )
    assert found.points[-1].strength in (None, 5.0)
    assert "larger ones were not tried" in said[-1]
    assert said[-1] in found.notes
    assert found.chosen.note == ""


def test_a_prompt_that_gains_nothing_is_not_recommended() -> None:
    found = frontier(
        model(),
        planted(60, 0),
        planted(60, 2),
        strengths=[1.0],
        **(QUICK | {"epochs": 1, "lr": 1e-6}),
    )
    gap = "average_odds_difference"
    assert found.chosen.value(gap) == found.base.value(gap)
    assert any(
        note.startswith("do not use the chosen prompt: it is no fairer") for note in found.notes
    )


def test_divergence_ends_the_row_and_keeps_what_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    from vpt.fairness import tradeoff as module

    real = module.fit

    def diverging(*args, **kwargs):
        if kwargs.get("objective") is not None and kwargs["objective"].strength > 1:
            raise DivergedError("too much")
        return real(*args, **kwargs)

    monkeypatch.setattr(module, "fit", diverging)
    found = frontier(
        model(),
        planted(60, 0),
        planted(60, 2),
        strengths=[1.0, 2.0, 3.0],
        **(QUICK | {"epochs": 1}),
    )
    assert [p.strength for p in found.points] == [None, 1.0]
    assert "strength 2: it diverged, and larger ones were not tried" in found.notes


def test_it_goes_on_where_it_was_stopped(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vpt.training import loop as training

    train, val = planted(60, 0), planted(60, 2)
    settings = {"strengths": [1.0], **(QUICK | {"epochs": 2})}
    whole = frontier(model(), train, val, out=tmp_path / "whole", **settings)
    real, calls = training._Run._step, [0]

    def step(self, *args):
        calls[0] += 1
        if calls[0] == 7:  # in the second run
            raise KeyboardInterrupt
        real(self, *args)

    monkeypatch.setattr(training._Run, "_step", step)
    with pytest.raises(KeyboardInterrupt):
        frontier(model(), train, val, out=tmp_path / "cut", **settings)
    again = frontier(model(), train, val, out=tmp_path / "cut", resume=True, **settings)
    assert [p.val for p in again.points] == [p.val for p in whole.points]
    assert calls[0] < 7 + 8


# wrong and unusual input ----------------------------------------------------------------
def without(data: Examples, **changes) -> Examples:
    given = {"groups": data.groups, "group_names": data.group_names} | changes
    return Examples(data.get, data.labels, data.classes, **given)


def test_misfits_are_said_before_anything_is_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    from vpt.fairness import tradeoff as module

    monkeypatch.setattr(module, "fit", lambda *a, **k: pytest.fail("it began to train"))
    train, val = planted(60, 0), planted(60, 2)
    with pytest.raises(TrainingError, match="method='magic'"):
        frontier(model(), train, val, method="magic")
    with pytest.raises(DataError, match="The validation examples have no groups"):
        frontier(model(), train, without(val, groups=None, group_names=None))
    with pytest.raises(DataError, match="1 of 60 validation examples have no group"):
        frontier(model(), train, without(val, groups=[-1, *val.groups[1:]]))
    with pytest.raises(TrainingError, match="of one group"):
        frontier(model(), without(train, groups=[0] * 60), val)
    with pytest.raises(TrainingError, match="strength=-1"):
        frontier(model(), train, val, strengths=[-1.0])
    for strengths in ([], [1.0, 1]):
        with pytest.raises(TrainingError, match="needed are one or more, all different"):
            frontier(model(), train, val, strengths=strengths)
    for settings in ({"budget": 1}, {"budget": float("nan")}, {"bound": -0.1}, {"bound": "0.1"}):
        with pytest.raises(TrainingError, match=r"needed is a number in \[0, 1\)"):
            frontier(model(), train, val, **settings)
    with pytest.raises(
        DataError,
        match=(
            "average odds difference is not defined on the 60 validation examples: dull, plain: 30"
        ),
    ):
        frontier(model(), train, without(val, groups=[0] * 60))
    with pytest.raises(DataError, match="positive='green'"):
        frontier(model(), train, val, positive="green")


def test_a_group_that_was_not_learned_from_is_tested_without_thresholds() -> None:
    train, val, test = planted(60, 0), planted(60, 2), planted(60, 1)
    names = ["plain", "blue", "third"]
    other = without(test, groups=[2, *test.groups[1:]], group_names=names)
    found = frontier(
        model(),
        without(train, group_names=names),
        without(val, group_names=names),
        other,
        strengths=[1.0],
        **(QUICK | {"epochs": 1}),
    )
    assert "third" in found.chosen.test["per_group"]
    assert found.thresholds is None


def test_a_model_that_knows_the_group_only_is_warned_of() -> None:
    def audited(accuracy: float, balanced: float, groups: str = "ab") -> dict:
        values = {"accuracy": {"value": accuracy}, "balanced_accuracy": {"value": balanced}}
        return {
            "metrics": values,
            "cells": {label: dict.fromkeys(groups) for label in ("dull", "red")},
        }

    assert "seems to know the group only" in suspicion(audited(0.85, 0.52))
    assert "all examples are of one group, 'a'" in suspicion(audited(0.85, 0.52, "a"))
    assert suspicion(audited(0.85, 0.7)) == ""
    assert suspicion(audited(0.52, 0.51)) == ""
    assert "no better than chance" in suspicion(audited(0.4, 0.41))


def test_groups_are_matched_by_name() -> None:
    train, val = planted(60, 0), planted(60, 2)
    turned = without(val, groups=[1 - g for g in val.groups], group_names=["blue", "plain"])
    one, two = (
        frontier(model(), train, v, strengths=[1.0], **(QUICK | {"epochs": 1}))
        for v in (val, turned)
    )
    assert one.base.val["per_group"] == two.base.val["per_group"]
    assert one.thresholds.val["metrics"] == two.thresholds.val["metrics"]
    assert turned.group_names == ["blue", "plain"]  # the caller's own are left alone


def test_worst_group_begins_with_balance_beside_accuracy_alone(tmp_path) -> None:
    found = frontier(
        model(),
        planted(60, 0),
        planted(60, 2),
        method="worst",
        strengths=[0, 0.1],
        out=tmp_path,
        **(QUICK | {"epochs": 1}),
    )
    assert [p.name for p in found.points] == ["alone", "0.0", "0.1"]
    assert {p.name for p in tmp_path.iterdir()} == {"alone", "0.0", "0.1"}
