"""Epochs of a late prompt: timed both ways, and nothing left on the model."""

from __future__ import annotations

import pytest

from vpt.backbones import count_hooks
from vpt.bench import late as module
from vpt.bench.late import time_late
from vpt.bench.steps import Setting, Stage


@pytest.fixture(scope="module")
def stage() -> Stage:
    return Stage(Setting("test_vit", weights="random", batch=2, tokens=(3,)))


def test_epochs_by_turns_without_and_with_what_is_kept(stage: Stage) -> None:
    hooks = count_hooks(stage.backbone.model)
    late = time_late(stage, 5, 2, progress=False)
    assert (late.blocks, late.tokens, late.images) == ((5, 5), 3, 5)
    assert len(late.off) == len(late.on) == 2
    assert late.first is not None
    assert late.faster is not None
    assert min(*late.off, *late.on, late.first) > 0
    assert stage.backbone.cache is None
    assert count_hooks(stage.backbone.model) == hooks


def test_a_model_that_cannot_skip_its_first_blocks(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "cannot_skip", lambda backbone, cache: "a reason")
    late = time_late(stage, 5, 2, progress=False)
    assert (late.reason, late.faster, list(late.off)) == ("a reason", None, [])
    assert stage.backbone.attachment is None
