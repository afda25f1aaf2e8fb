"""Trained prompts with every example held out once; several forms compared, and one taken."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import planted, planted_model, planted_prompted, table

import vpt
from vpt.data.joining import appended
from vpt.errors import DataError, TrainingError
from vpt.fairness.crossed import crossed
from vpt.fairness.forms import forms_of
from vpt.fairness.mending import folds_by_cell
from vpt.fairness.reprogramming import reprogram
from vpt.files import learned_copy, restore
from vpt.metrics.audit import audit
from vpt.training.evaluation import scores

QUICK = {"lr": 0.1, "batch_size": 16, "epochs": 2}
GAP = "average_odds_difference"


def test_each_example_is_said_by_a_model_that_did_not_learn_from_it() -> None:
    """Beside the slow, obvious way: fold by fold, by hand."""
    model, train, val = planted_prompted(), planted(60, 1), planted(30, 2)
    start = learned_copy(model)
    recipe = vpt.Recipe(seed=0, **QUICK)
    found = crossed(model, train, val, None, 3, strengths=[1.0], recipe=recipe, progress=False)
    tuned = appended(train, val)
    assert found.base.val.n == len(tuned)
    split = folds_by_cell(np.array(tuned.targets), np.array(tuned.grouped), None, 0, 3)
    for kept, held in split:
        restore(model, start)
        parts = (tuned.subset(kept.tolist()), tuned.subset(held.tolist()))
        vpt.fit(model, parts[0], recipe=recipe, progress=False)
        alone = scores(model, parts[1])[0]
        torch.testing.assert_close(found.points[0].scores["val"][held], alone)
        penalty = vpt.GapPenalty(1.0, "eo")
        vpt.fit(model, parts[0], objective=penalty, recipe=recipe, progress=False)
        torch.testing.assert_close(found.points[1].scores["val"][held], scores(model, parts[1])[0])
    said = found.points[1].scores["val"].argmax(1).tolist()
    again = audit(tuned.targets, said, tuned.grouped, tuned.classes, ["plain", "blue"])
    assert again.value(GAP) == pytest.approx(found.points[1].value(GAP))
    assert found.out_of_fold
    assert "out of fold" in found.rule


def test_the_model_then_holds_the_choice_of_all() -> None:
    model, test = planted_prompted(), planted(100, 3)
    recipe = vpt.Recipe(seed=0, **QUICK)
    parts = (planted(60, 1), planted(30, 2), test)
    found = crossed(model, *parts, 2, strengths=[1.0], recipe=recipe, progress=False)
    assert found.chosen.test is not None
    now = scores(model, test)[0].argmax(1).tolist()
    own = audit(test.targets, now, test.grouped, test.classes, ["plain", "blue"])
    assert own.value("accuracy") == pytest.approx(found.chosen.value("accuracy", "test"))


def test_forms_are_compared_on_the_same_examples_and_one_is_taken(tmp_path: Path) -> None:
    data, out = table(tmp_path / "data"), tmp_path / "run"
    backbone = vpt.load_backbone(planted_model(), classes=("dull", "red"))
    how = {"label": "look", "group": "sky", "progress": False, "strengths": [1.0, 3.0], **QUICK}
    told: list[str] = []
    result = reprogram(
        data, backbone, "auto, patch:6,prefix:2", folds=2, out=out, say=told.append, **how
    )
    report = json.loads((out / "metrics.json").read_text())
    assert [one["form"] for one in report["forms"]] == ["auto", "patch:6", "prefix:2"]
    assert sum(one["taken"] for one in report["forms"]) == 1
    taken = next(one for one in report["forms"] if one["taken"])
    chosen = next(p for p in report["points"] if p["name"] == report["chosen"])
    assert taken["val"][GAP] == chosen["val"]["metrics"][GAP]["value"]
    assert taken["recommendation"] == report["recommendation"]
    order = ["use", "cannot tell", "keep the model"]
    best = min(order.index(one["recommendation"]) for one in report["forms"])
    assert order.index(taken["recommendation"]) == best
    assert "form prefix:2" in told
    result.model.close()
    again = vpt.load(result.file, backbone)
    parts = vpt.load_data(
        data, backbone.inputs, label="look", group="sky", val_share=0.3, progress=False
    )
    assert vpt.audit(parts.test, again, progress=False)["metrics"] == chosen["test"]["metrics"]
    assert "forms, each with all held out once" in (out / "report.html").read_text()


def test_one_form_with_folds(tmp_path: Path) -> None:
    data = table(tmp_path / "data")
    backbone = vpt.load_backbone(planted_model(), classes=("dull", "red"))
    how = {"label": "look", "group": "sky", "progress": False, "strengths": [1.0], **QUICK}
    result = reprogram(data, backbone, "full", folds=2, **how)
    parts = vpt.load_data(
        data, backbone.inputs, label="look", group="sky", val_share=0.3, progress=False
    )
    assert result.report["base"]["val"]["n"] == len(parts.train) + len(parts.val)
    assert result.report["forms"] == []


@pytest.mark.parametrize("text", ["auto,auto", "auto,", ",patch:6", "border:3, border:3"])
def test_forms_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(TrainingError, match="needed are different forms"):
        forms_of(text)


def test_wrong_folds_and_too_few_examples(tmp_path: Path) -> None:
    backbone = vpt.load_backbone(planted_model(), classes=("dull", "red"))
    data = table(tmp_path / "data")
    with pytest.raises(TrainingError, match="folds"):
        reprogram(data, backbone, "full", folds=1, label="look", group="sky")
    recipe, model = vpt.Recipe(**QUICK), planted_prompted()
    with pytest.raises(DataError, match="needed is one at least in each of 5 folds"):
        crossed(model, planted(20, 1), planted(12, 2), None, 5, recipe=recipe, progress=False)


def test_a_probe_is_fitted_on_what_a_fold_learns_from(monkeypatch: pytest.MonkeyPatch) -> None:
    model, seen = planted_prompted(), []
    recipe = vpt.Recipe(seed=0, **QUICK)
    parts = planted(60, 1), planted(30, 2), None
    crossed(
        model,
        *parts,
        3,
        begin=lambda examples: seen.append(examples),
        strengths=[1.0],
        recipe=recipe,
        progress=False,
    )
    tuned = appended(*parts[:2])
    split = folds_by_cell(np.array(tuned.targets), np.array(tuned.grouped), None, 0, 3)
    assert [len(one) for one in seen] == [*(len(kept) for kept, _ in split), 90]
    for (kept, _), one in zip(split, seen[:3], strict=True):
        assert one.indices == [tuned.indices[i] for i in kept]


def test_forms_share_no_readout() -> None:
    """What one form taught a readout that was handed over is not where the next begins."""
    backbone = vpt.load_backbone(planted_model(), classes=("dull", "red"))
    readout = vpt.Linear(backbone.out_features, ["dull", "red"])
    before = {name: value.clone() for name, value in readout.state_dict().items()}
    data = vpt.data.Data(planted(60, 1), planted(30, 2), None, ["dull", "red"], [])
    how = {"progress": False, "strengths": [1.0], "folds": 2, **QUICK}
    reprogram(data, backbone, "patch:6,prefix:2", readout=readout, **how)
    assert all(torch.equal(value, readout.state_dict()[name]) for name, value in before.items())
