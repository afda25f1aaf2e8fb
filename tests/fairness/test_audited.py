"""The short form for an audit: a prompt beside the model without it."""

from __future__ import annotations

import pytest
import torch
from helpers import planted, planted_model, planted_prompted

import vpt
from vpt.fairness import remedies
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
    assert "costs more than may be lost" in found["compared"]["why"]
    assert found["recommendation"] == "keep the model"


def test_of_classes_that_were_learned_there_is_no_model_without_the_prompt() -> None:
    backbone = vpt.load_backbone(planted_model())
    readout = vpt.Linear(backbone.out_features, ["dull", "red"])
    with vpt.PromptedModel(backbone, vpt.Full.like(backbone), readout) as model:
        found = audit(planted(60, 2), model, progress=False)
    assert "compared" not in found
    assert "recommendation" not in found


def test_few_examples_pass_through_the_model_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """And what is said is what a pass of its own says."""
    data, backbone = planted(120, 2), vpt.load_backbone(planted_model(), classes=("dull", "red"))
    seen = [0]
    backbone.model.register_forward_hook(
        lambda m, args, out: seen.__setitem__(0, seen[0] + len(out))
    )
    once = audit(data, backbone, progress=False)
    assert 120 <= seen[0] < 220  # some are of finding out how it is built
    monkeypatch.setattr(remedies, "MOST", 100)
    apart = audit(data, backbone, progress=False)
    assert apart["metrics"] == once["metrics"]
    assert (once["remedies"]["n"], apart["remedies"]["n"]) == (120, 100)
