"""Tasks on a backbone: what is tested, and what makes two runs the same."""

from __future__ import annotations

from families import open_tiny
from helpers import six_in_three

import vpt
from vpt.tasks.sequence.trial import Trial


def trial(part: str = "test", seed: int = 0) -> Trial:
    return Trial(six_in_three(3), open_tiny("timm ViT"), part, seed, "no", progress=False)


def test_what_is_tested() -> None:
    one = trial()
    assert one.all_classes == [name for names in one.classes for name in names]
    assert one.sizes == [6, 6, 6]
    assert one.tested(1) is one.tasks[1].test
    assert trial("val").tested(1).targets == trial("val").tasks[1].val.targets
    readout = vpt.NearestMean(one.backbone.out_features, one.classes[0])
    with vpt.PromptedModel(one.backbone, None, readout) as model:
        x, y = one.features(model, one.tested(0))
        assert x.shape == (6, one.backbone.out_features)
        readout.update(x, y)
        assert one.accuracy(model, 0) == vpt.evaluate(model, one.tested(0))["accuracy"]


def test_what_makes_two_runs_the_same() -> None:
    assert trial().identity("coda") == trial().identity("coda")
    others = {
        trial().identity("l2p"),
        trial("val").identity("coda"),
        trial(seed=1).identity("coda"),
    }
    assert len(others | {trial().identity("coda")}) == 4
