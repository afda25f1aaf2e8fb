"""Corrections as a readout of the model itself, and how examples are dealt out to folds."""

from __future__ import annotations

import numpy as np
import pytest
import timm
import torch
from families import open_tiny
from helpers import planted, planted_model

import vpt
from vpt.errors import TrainingError
from vpt.fairness.mending import Mending, classifier_of, folds_by_cell, scores_of
from vpt.runs.kept import keep

NAMES = ["dull", "red"]


def own_of(backbone: vpt.Backbone) -> vpt.Identity:
    own = vpt.Identity(NAMES, [1, 0])  # not in the order of the model
    own.bind(backbone)
    return own


def opened(name: str) -> vpt.Backbone:
    """A tiny model; the CNN has no blocks, so that its own features alone are corrected on."""
    if name != "CNN":
        return open_tiny(name)
    torch.manual_seed(0)
    cnn = timm.create_model("test_resnet", num_classes=3)
    return vpt.load_backbone(cnn, inputs=vpt.Images((32, 32)))


@pytest.mark.parametrize("name", ["timm ViT", "CNN", "transformers ViT"])
def test_the_readout_gives_the_models_scores_and_the_mean_of_the_corrections(name: str) -> None:
    backbone = opened(name)
    examples, own = planted(60, 0), own_of(backbone)
    mending = Mending.of(backbone, own, examples, "eo")
    readout = mending.fit(3.0)
    x = torch.stack([examples[i][0] for i in range(60)])
    with vpt.PromptedModel(backbone, None, readout) as model, torch.no_grad():
        found = model.eval()(x).double().numpy()
    expected = mending.bare.double().numpy()
    for head in mending.heads:
        weights, bias, scaler = head.fit(3.0)
        expected = expected + (scaler.transform(head.x) @ weights.T + bias) / len(mending.heads)
    assert np.allclose(found, expected, atol=2e-3 * np.abs(expected).max())
    assert not np.allclose(found, mending.bare.numpy(), atol=1e-2)


def test_scores_that_are_no_linear_function_of_features() -> None:
    backbone = open_tiny("timm DeiT distilled")
    with pytest.raises(TrainingError, match=r"no linear function .*border:6"):
        classifier_of(backbone, own_of(backbone))


def test_a_model_without_a_classifier() -> None:
    backbone = vpt.load_backbone(planted_model())
    kept = keep(backbone, planted(8, 0))
    kept.logits = None
    with pytest.raises(TrainingError, match="no classifier of its own"):
        scores_of(own_of(backbone), kept)


def test_cells_are_spread_over_folds() -> None:
    draw = np.random.default_rng(0)
    y, group = draw.integers(0, 2, 203), draw.integers(0, 3, 203)
    folds = folds_by_cell(y, group, None, 0)
    assert sorted(np.concatenate([held for _, held in folds])) == list(range(203))
    for kept, held in folds:
        assert not set(kept) & set(held)
        for c in range(2):
            for g in range(3):
                size = ((y == c) & (group == g)).sum()
                assert abs(((y == c) & (group == g))[held].sum() - size / 5) <= 1
    again = folds_by_cell(y, group, None, 1)
    assert any(not np.array_equal(a[1], b[1]) for a, b in zip(folds, again, strict=True))


def test_what_belongs_together_stays_together() -> None:
    draw = np.random.default_rng(0)
    y, group = draw.integers(0, 2, (2, 100))
    units = (np.arange(100) // 4).tolist()
    for kept, held in folds_by_cell(y, group, units, 0):
        assert not {units[i] for i in kept} & {units[i] for i in held}


@pytest.mark.parametrize(
    ("count", "units"), [(4, None), (30, [0] * 20 + [1] * 10), (9, list(range(9)))]
)
def test_too_few_to_hold_some_out(count: int, units: list[int] | None) -> None:
    y = np.arange(count) % 2
    with pytest.raises(TrainingError, match=r"needed are 10 at least, to hold some out"):
        folds_by_cell(y, y, units, 0)


def test_cells_of_one_and_copies_are_dealt_out_all_the_same() -> None:
    y, group = np.arange(12) % 2, np.arange(12) // 6
    units = [0, 0, *range(1, 11)]
    folds = folds_by_cell(y, group, units, 0)
    assert sorted(np.concatenate([held for _, held in folds])) == list(range(12))
    assert all(len(held) for _, held in folds)


def test_half_precision_is_no_reason_to_refuse() -> None:
    backbone = vpt.load_backbone(planted_model().to(torch.bfloat16))
    weight, bias = classifier_of(backbone, own_of(backbone))
    assert weight.shape == (2, backbone.out_features)
    assert bias.shape == (2,)
