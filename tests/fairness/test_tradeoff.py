"""The trade-off: every strength from one start, chosen on validation by the stated rule, stopped
where a model breaks.
"""

from __future__ import annotations

import pytest
import torch
from helpers import planted, planted_prompted, regrouped, stop_at

import vpt
from vpt.errors import DataError, DivergedError, TrainingError
from vpt.fairness.auditing import audit_model
from vpt.fairness.tradeoff import frontier
from vpt.files import learned
from vpt.objectives.gap_penalty import GapPenalty
from vpt.training import update

QUICK = {"epochs": 3, "lr": 0.003, "progress": False}


def test_points_are_what_the_model_gave_and_the_chosen_one_is_left_in_it() -> None:
    train, val, test = planted(200, 0), planted(100, 2), planted(200, 1)
    bare = planted_prompted()
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
    alone = planted_prompted()
    vpt.fit(alone, train, val, **settings)
    vpt.fit(alone, train, val, objective=GapPenalty(20.0), **settings)
    for name, value in learned(alone).items():
        torch.testing.assert_close(value, found.points[2].learned[name])


def test_a_model_that_breaks_ends_the_row() -> None:
    said: list[str] = []
    found = frontier(
        planted_prompted(),
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
        planted_prompted(),
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
        planted_prompted(),
        planted(60, 0),
        planted(60, 2),
        strengths=[1.0, 2.0, 3.0],
        **(QUICK | {"epochs": 1}),
    )
    assert [p.strength for p in found.points] == [None, 1.0]
    assert "strength 2: it diverged, and larger ones were not tried" in found.notes


def test_it_goes_on_where_it_was_stopped(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    train, val = planted(60, 0), planted(60, 2)
    settings = {"strengths": [1.0], **(QUICK | {"epochs": 2})}
    whole = frontier(planted_prompted(), train, val, out=tmp_path / "whole", **settings)
    with monkeypatch.context() as patch:
        stop_at(patch, "step", 7)  # in the second run
        with pytest.raises(KeyboardInterrupt):
            frontier(planted_prompted(), train, val, out=tmp_path / "cut", **settings)
    steps = []
    real = update.step
    monkeypatch.setattr(update, "step", lambda *args: (steps.append(1), real(*args))[1])
    again = frontier(planted_prompted(), train, val, out=tmp_path / "cut", resume=True, **settings)
    assert [p.val for p in again.points] == [p.val for p in whole.points]
    assert len(steps) < 8


def test_misfits_are_said_before_anything_is_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    from vpt.fairness import tradeoff as module

    monkeypatch.setattr(module, "fit", lambda *a, **k: pytest.fail("it began to train"))
    train, val = planted(60, 0), planted(60, 2)
    with pytest.raises(TrainingError, match="method='magic'"):
        frontier(planted_prompted(), train, val, method="magic")
    with pytest.raises(DataError, match="The validation examples have no groups"):
        frontier(planted_prompted(), train, regrouped(val, groups=None, group_names=None))
    with pytest.raises(DataError, match="1 of 60 validation examples have no group"):
        frontier(planted_prompted(), train, regrouped(val, groups=[-1, *val.groups[1:]]))
    with pytest.raises(TrainingError, match="of one group"):
        frontier(planted_prompted(), regrouped(train, groups=[0] * 60), val)
    with pytest.raises(TrainingError, match="strength=-1"):
        frontier(planted_prompted(), train, val, strengths=[-1.0])
    for strengths in ([], [1.0, 1]):
        with pytest.raises(TrainingError, match="needed are one or more, all different"):
            frontier(planted_prompted(), train, val, strengths=strengths)
    for settings in ({"budget": 1}, {"budget": float("nan")}, {"bound": -0.1}, {"bound": "0.1"}):
        with pytest.raises(TrainingError, match=r"needed is a number in \[0, 1\)"):
            frontier(planted_prompted(), train, val, **settings)
    with pytest.raises(
        DataError,
        match=(
            "average odds difference is not defined on the 60 validation examples: dull, plain: 30"
        ),
    ):
        frontier(planted_prompted(), train, regrouped(val, groups=[0] * 60))
    with pytest.raises(DataError, match="positive='green'"):
        frontier(planted_prompted(), train, val, positive="green")


def test_groups_are_matched_by_name() -> None:
    train, val = planted(60, 0), planted(60, 2)
    turned = regrouped(val, groups=[1 - g for g in val.groups], group_names=["blue", "plain"])
    one, two = (
        frontier(planted_prompted(), train, v, strengths=[1.0], **(QUICK | {"epochs": 1}))
        for v in (val, turned)
    )
    assert one.base.val.per_group == two.base.val.per_group
    assert one.thresholds.val.metrics == two.thresholds.val.metrics
    assert turned.group_names == ["blue", "plain"]  # the caller's own are left alone


def test_worst_group_begins_with_balance_beside_accuracy_alone(tmp_path) -> None:
    found = frontier(
        planted_prompted(),
        planted(60, 0),
        planted(60, 2),
        method="worst",
        strengths=[0, 0.1],
        out=tmp_path,
        **(QUICK | {"epochs": 1}),
    )
    assert [p.name for p in found.points] == ["alone", "0.0", "0.1"]
    assert {p.name for p in tmp_path.iterdir()} == {"alone", "0.0", "0.1"}
