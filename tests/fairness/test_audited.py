"""The short form for an audit: a prompt beside the model without it."""

from __future__ import annotations

from pathlib import Path

import torch
from helpers import planted, planted_model, planted_prompted, table

import vpt
from vpt.fairness.audited import audit
from vpt.fairness.mending import Mending
from vpt.readouts import Identity


def test_a_prompt_is_compared_with_the_model_without_it() -> None:
    data, model = planted(200, 2), planted_prompted()
    with torch.no_grad():
        model.prompt.pixels[0] += 0.3
    found = audit(data, model, progress=False)
    again = audit(data, model, progress=False)
    assert again == found  # and the model is left as it was
    model.close()
    bare = audit(data, vpt.load_backbone(planted_model(), classes=("dull", "red")), progress=False)
    for name, change in found["compared"]["changes"].items():
        without = bare["metrics"][name]["value"]
        assert abs(change["value"] - (found["metrics"][name]["value"] - without)) < 1e-9, name
    assert found["recommendation"] == "keep the model"
    assert "remedies" not in found


def test_a_correction_is_compared_with_the_models_own_classes() -> None:
    backbone = vpt.load_backbone(planted_model(), classes=("dull", "red"))
    data, own = planted(300, 4), Identity.like(backbone, ["dull", "red"])
    corrected = Mending.of(backbone, own, data, "eo").fit(1.0)
    with vpt.PromptedModel(backbone, None, corrected) as model:
        found = audit(planted(300, 5), model, progress=False)
    assert found["compared"]["soft"]["average_odds_difference"]["high"] < 0  # fairer, but
    assert "costs more than the 1 points of accuracy" in found["compared"]["why"]
    assert found["recommendation"] == "keep the model"
    with vpt.PromptedModel(backbone, None, corrected) as model:
        allowed = audit(planted(300, 5), model, budget=0.1, progress=False)
        by_rates = audit(planted(300, 5), model, budget=0.1, criterion="dp", progress=False)
    assert allowed["recommendation"] == "use"
    assert "demographic parity difference" in by_rates["compared"]["why"]


def test_of_classes_that_were_learned_there_is_no_model_without_the_prompt() -> None:
    backbone = vpt.load_backbone(planted_model())
    readout = vpt.Linear(backbone.out_features, ["dull", "red"])
    with vpt.PromptedModel(backbone, vpt.Full.like(backbone), readout) as model:
        found = audit(planted(60, 2), model, progress=False)
    assert "compared" not in found
    assert "recommendation" not in found
    assert "does not name its classes" in found["not_compared"]


def test_classes_that_are_named_in_another_order_are_not_compared() -> None:
    backbone = vpt.load_backbone(planted_model(), classes=("red", "dull"))
    right = vpt.load_backbone(planted_model(), classes=("dull", "red"))
    data = planted(200, 4)
    corrected = Mending.of(right, Identity.like(right, ["dull", "red"]), data, "eo").fit(0.3)
    with vpt.PromptedModel(backbone, None, corrected) as model:
        found = audit(planted(200, 5), model, progress=False)
    assert "named in another order" in found["not_compared"]
    assert "recommendation" not in found


def test_a_gap_that_is_not_defined_cannot_be_told() -> None:
    data = planted(200, 2)
    alone = data.subset([i for i in range(200) if data.groups[i] == 0])
    found = audit(alone, planted_prompted(), progress=False)
    assert found["recommendation"] == "cannot tell"
    assert "is not defined on these" in found["compared"]["why"]


def test_examples_that_it_may_have_learned_from_are_said(tmp_path: Path) -> None:
    columns = {"label": "look", "group": "sky", "progress": False}
    data, model = table(tmp_path / "data"), planted_prompted()
    assert "learned from" in audit(data, model, **columns)["warning"]
    rows = data.read_text().splitlines()
    parts = ["split", *(["test", "train"] * len(rows))]
    named = [f"{row},{part}" for row, part in zip(rows, parts, strict=False)]
    data.write_text("\n".join(named) + "\n")
    assert "learned from" not in audit(data, model, **columns)["warning"]
    assert "learned from" in audit(data, model, split="train", **columns)["warning"]
