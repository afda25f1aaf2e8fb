"""The baselines against scikit-learn on features computed by hand."""

from __future__ import annotations

import torch
from families import open_tiny
from helpers import colours
from sklearn.neighbors import NearestCentroid

from vpt.data import Data
from vpt.runs.answers import MEANS, PROBE
from vpt.runs.baselines import measure_baselines
from vpt.runs.probe import fit_probe


def test_both_equal_what_scikit_learn_says_on_the_same_features() -> None:
    backbone = open_tiny("timm ViT")
    data = Data(colours(30), colours(15, 1), colours(24, 2), ["red", "green", "blue"], [])
    found = measure_baselines(backbone, data)
    assert backbone.attachment is None
    features = {
        name: torch.stack([backbone.features(part[i][0][None])[0] for i in range(len(part))])
        for name, part in (("train", data.train), ("val", data.val), ("test", data.test))
    }
    centroid = NearestCentroid().fit(features["train"].double().numpy(), data.train.targets)
    probe, strength = fit_probe(features["train"], torch.tensor(data.train.targets), 3)
    assert found.strength == strength
    for name, part in (("val", data.val), ("test", data.test)):
        y = torch.tensor(part.targets)
        assert found.accuracies(MEANS)[name] == centroid.score(
            features[name].double().numpy(), part.targets
        )
        assert found.accuracies(PROBE)[name] == float(
            (probe(features[name]).argmax(1) == y).double().mean()
        )


def test_without_test_data_there_is_no_test_figure() -> None:
    data = Data(colours(12), colours(6, 1), None, ["red", "green", "blue"], [])
    assert set(measure_baselines(open_tiny("timm ViT"), data).answers) == {"val"}
