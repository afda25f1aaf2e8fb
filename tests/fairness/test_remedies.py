"""What can be done about a gap: each verdict where it is known beforehand."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from families import open_tiny
from helpers import planted, planted_model, table

import vpt
from vpt.data import Examples
from vpt.errors import TrainingError
from vpt.fairness import remedies as room
from vpt.fairness.choosing import Judged
from vpt.fairness.mending import Mending
from vpt.fairness.remedies import (
    MENDABLE,
    NOTHING,
    SHORTCUT,
    UNKNOWN,
    WITH_GROUP,
    Remedies,
    at_most,
    remedies,
)
from vpt.metrics.audit import Interval


def own_of(backbone: vpt.Backbone) -> vpt.Identity:
    own = vpt.Identity(["dull", "red"], [0, 1])
    own.bind(backbone)
    return own


def said(backbone: vpt.Backbone, examples: Examples) -> Remedies:
    few = at_most(examples)
    return remedies(Mending.of(backbone, own_of(backbone), few, "eo"))


def shortcut(count: int, seed: int) -> Examples:
    """Pictures in which nothing but the group says anything of the label."""
    plain = planted(count, seed)
    draw = torch.Generator().manual_seed(seed)
    pictures = [plain[i][0].clone() for i in range(count)]
    for picture in pictures:
        picture[0] = torch.rand(32, 32, generator=draw) * 0.4
    return Examples(
        pictures.__getitem__,
        plain.labels,
        plain.classes,
        groups=plain.groups,
        group_names=plain.group_names,
    )


def test_a_model_that_holds_the_feature_is_mendable() -> None:
    backbone = vpt.load_backbone(planted_model())
    found = said(backbone, planted(400, 1))
    assert (found.verdict, found.recommendation) == (MENDABLE, "use")
    assert found.knows_label > 0.75
    assert found.knows_group > 0.9
    assert found.correction is not None
    change = found.correction["average_odds_difference"]
    assert change.value is not None
    assert change.value < 0
    assert backbone.attachment is None


def test_a_model_that_knows_the_group_only() -> None:
    backbone = vpt.load_backbone(planted_model())
    found = said(backbone, shortcut(400, 1))
    assert (found.verdict, found.recommendation) == (SHORTCUT, "keep the model")
    assert found.knows_label < 0.6
    assert "near chance (50.0%)" in found.why


def test_many_examples_are_told_by_some_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "MOST", 100)
    backbone = vpt.load_backbone(planted_model())
    assert said(backbone, planted(300, 1)).n == 100


def worth(recommendation: str) -> Judged:
    return Judged(recommendation, "why", {}, {})


@pytest.mark.parametrize(
    ("recommendation", "high", "gap", "verdict"),
    [
        ("cannot tell", -0.1, 0.3, WITH_GROUP),
        ("keep the model", -0.1, 0.3, WITH_GROUP),
        ("use", -0.1, 0.3, MENDABLE),
        ("cannot tell", 0.1, 0.3, UNKNOWN),
        ("cannot tell", None, 0.3, UNKNOWN),
        ("keep the model", 0.1, 0.02, NOTHING),
    ],
)
def test_verdicts(recommendation: str, high: float | None, gap: float, verdict: str) -> None:
    by_group = {"g": Interval(-0.2, -0.3, high)}
    assert room._verdict(0.8, 0.5, gap, worth(recommendation), by_group, "g")[0] == verdict
    assert room._verdict(0.55, 0.5, gap, worth(recommendation), by_group, "g")[0] == SHORTCUT


def test_more_than_two_classes_have_no_thresholds() -> None:
    backbone = open_tiny("timm ViT")
    plain = planted(120, 0)
    labels = [2 if i % 5 == 0 else y for i, y in enumerate(plain.labels)]
    three = Examples(
        plain.get,
        labels,
        ["dull", "red", "other"],
        groups=plain.groups,
        group_names=plain.group_names,
    )
    own = vpt.Identity(three.classes, [0, 1, 2])
    own.bind(backbone)
    assert remedies(Mending.of(backbone, own, three, "eo")).thresholds is None


def test_an_audit_says_what_can_be_done(tmp_path: Path) -> None:
    data = table(tmp_path / "data")
    backbone = vpt.load_backbone(planted_model(), classes=("dull", "red"))
    found = vpt.audit(data, backbone, label="look", group="sky", progress=False)
    assert found["recommendation"] in ("use", "keep the model", "cannot tell")
    assert set(found["remedies"]) >= {"verdict", "why", "knows_label", "knows_group"}


def test_an_audit_goes_on_where_nothing_can_be_corrected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise TrainingError("no linear function")

    monkeypatch.setattr(Mending, "of", refuse)
    backbone = vpt.load_backbone(planted_model(), classes=("dull", "red"))
    data = table(tmp_path / "data")
    found = vpt.audit(data, backbone, label="look", group="sky", progress=False)
    assert "no linear function" in found["warning"]
    assert "remedies" not in found


def test_an_audit_leaves_the_model_as_it_was() -> None:
    model = planted_model().train()
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    backbone = vpt.load_backbone(model, classes=("dull", "red"))
    vpt.audit(planted(40, 0), backbone, progress=False)
    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_a_gap_that_is_not_defined() -> None:
    verdict, why = room._verdict(0.0, 1.0, float("nan"), worth("keep the model"), None, "a_gap")
    assert (verdict, why) == (UNKNOWN, "the a gap is not defined on these examples")
