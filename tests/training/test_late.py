"""Runs whose prompt begins late: the same result with the activations before it kept, what is said,
and what is not kept.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from families import open_tiny
from helpers import SETTINGS, colours, stop_at, tiny_model
from torch.utils.data import Dataset

import vpt
from vpt.backbones import FeatureCache
from vpt.files import learned
from vpt.training.late import late_features, without_cache

STEPS = SETTINGS | {"epochs": 3, "progress": True}


def late_model(dropout: float = 0.0) -> vpt.PromptedModel:
    model = tiny_model()
    return model.swap(vpt.DeepTokens.like(model.backbone, 3, blocks=[2], dropout=dropout))


def state(model: vpt.PromptedModel) -> torch.Tensor:
    return torch.cat([value.flatten() for value in learned(model).values()])


@pytest.fixture
def caches(monkeypatch: pytest.MonkeyPatch) -> list[FeatureCache]:
    """Every cache that a run made."""
    from vpt.training import late

    made: list[FeatureCache] = []

    def make(*args: Any, **kwargs: Any) -> FeatureCache:
        made.append(FeatureCache(*args, **kwargs))
        return made[-1]

    monkeypatch.setattr(late, "FeatureCache", make)
    return made


def test_a_run_gives_the_same_with_and_without(
    caches: list[FeatureCache], capsys: pytest.CaptureFixture
) -> None:
    models = [late_model(dropout=0.2) for _ in range(3)]
    found = [
        vpt.fit(model, colours(), colours(24, seed=1), cache=how, **STEPS)
        for model, how in zip(models, ("off", "auto", "bf16"), strict=True)
    ]
    assert torch.allclose(state(models[1]), state(models[0]), atol=1e-5)
    assert (state(models[2]) - state(models[0])).abs().max() < 0.02
    assert found[1].rows[-1]["val_loss"] == pytest.approx(found[0].rows[-1]["val_loss"], abs=1e-5)
    assert len(caches) == 2
    assert caches[0].misses == 48 + 24  # each example once
    # the first are looked at before, and all read once more
    assert caches[0].hits == 4 + 48 + 3 * (48 + 24)
    assert "begins at block 2 of 3" in capsys.readouterr().err.replace("\n", "")
    assert all(model.backbone.cache is None for model in models)


def test_its_own_hooks_are_not_taken_for_those_of_others(caplog: pytest.LogCaptureFixture) -> None:
    """What is tried out before anything is kept warned of hooks that nobody else had put there."""
    vpt.fit(late_model(), colours(12), **STEPS)
    assert "got hooks" not in caplog.text


def test_the_bare_pass_of_a_whole_run_serves_the_prompted_ones(caches: list[FeatureCache]) -> None:
    data = {part: colours(12, seed) for seed, part in enumerate(("train", "val", "test"))}
    said = vpt.adapt(
        data, open_tiny("timm ViT"), "deep:2@2", augment="none", epochs=2, progress=False
    ).metrics
    assert caches[-1].misses == 36  # each example once
    again = vpt.adapt(
        data,
        open_tiny("timm ViT"),
        "deep:2@2",
        augment="none",
        epochs=2,
        progress=False,
        cache="off",
    ).metrics
    assert said["baselines"] == again["baselines"]
    assert said["test_accuracy"] == again["test_accuracy"]


def test_a_late_prompt_learns_from_a_few_views_of_each_image_which_are_kept(
    caches: list[FeatureCache], monkeypatch: pytest.MonkeyPatch
) -> None:
    from vpt.runs import adapting

    monkeypatch.setattr(adapting, "choose_augment", lambda *args: "crop")
    data = {part: colours(12, seed) for seed, part in enumerate(("train", "val", "test"))}
    found = [
        vpt.adapt(data, open_tiny("timm ViT"), "deep:2@2", epochs=6, progress=False, cache=how)
        for how in ("auto", "off")
    ]
    # each once, and three more views, some of them alike
    assert 36 + 2 * 12 < caches[-1].misses <= 36 + 3 * 12
    assert found[0].metrics["recipe"]["augment"] == "crop"
    assert torch.allclose(state(found[0].model), state(found[1].model), atol=1e-5)


def test_augmented_training_examples_are_not_kept_but_those_of_validation_are(
    caches: list[FeatureCache],
) -> None:
    vpt.fit(late_model(), colours(), colours(24, seed=1), augment="crop", **STEPS)
    assert caches[0].misses == 4 + 24
    assert caches[0].hits == 3 * 24


class Noisy(Dataset):
    """Changes its examples by itself."""

    def __init__(self) -> None:
        self.examples = colours()

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, i: int) -> tuple:
        x, y, *_ = self.examples[i]
        return x * (0.9 + 0.1 * torch.rand(())), y


def test_a_data_set_that_changes_by_itself_misses_and_is_told(
    caches: list[FeatureCache], capsys: pytest.CaptureFixture
) -> None:
    vpt.fit(late_model(), Noisy(), **STEPS)
    assert "not the same when they are read again" in " ".join(capsys.readouterr().err.split())
    # looked at, filled, and read once more; then it is left alone
    assert caches[0].misses == 4 + 48 + 48
    assert caches[0].hits == caches[0].bytes == 0


def test_a_small_budget_is_said(caches: list[FeatureCache], capsys: pytest.CaptureFixture) -> None:
    model = late_model()
    vpt.fit(model, colours(), cache_gigabytes=17 * 32 * 4 * 10.5 / (1 << 30), **STEPS)
    assert "10 inputs fit into" in " ".join(capsys.readouterr().err.split())
    assert caches[0].full
    other = late_model()
    vpt.fit(other, colours(), cache="off", **STEPS)
    assert torch.allclose(state(model), state(other), atol=1e-5)


def test_a_stopped_run_goes_on_bit_for_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caches: list[FeatureCache]
) -> None:
    from vpt.training import checkpoints

    monkeypatch.setattr(checkpoints, "EVERY_SECONDS", -1.0)
    val = colours(24, seed=1)
    whole = late_model()
    rows = vpt.fit(whole, colours(), val, out=tmp_path / "whole", **STEPS).rows
    stop_at(monkeypatch, "step", 8)
    with pytest.raises(KeyboardInterrupt):
        vpt.fit(late_model(), colours(), val, out=tmp_path / "cut", **STEPS)
    again = late_model()
    assert vpt.fit(again, colours(), val, out=tmp_path / "cut", resume=True, **STEPS).rows == rows
    assert torch.equal(state(whole), state(again))
    assert len(caches) == 3


def test_activation_checkpointing_and_a_cache_do_not_meet() -> None:
    said: list[str] = []
    model = late_model()
    model.backbone.model.set_grad_checkpointing(True)
    with late_features(model.backbone, model.attachment.sites, "auto", said.append):
        assert model.backbone.cache is None
    assert "activation checkpointing is on" in said[0]
    model.backbone.model.set_grad_checkpointing(False)
    x = torch.rand(2, 3, 32, 32)
    with late_features(model.backbone, model.attachment.sites, "auto", said.append):
        out = model(x)
        needed = torch.autograd.grad(out.square().sum(), model.prompt.tokens)[0]
        model.backbone.model.set_grad_checkpointing(True)  # in the middle of it
        again = model(x)
        found = torch.autograd.grad(again.square().sum(), model.prompt.tokens)[0]
    assert torch.allclose(found, needed, atol=1e-5)


def test_nothing_is_kept_or_said_where_there_is_nothing_to_keep() -> None:
    said: list[str] = []
    for model, how in ((tiny_model(), "auto"), (late_model(), "off")):
        with late_features(model.backbone, model.attachment.sites, how, said.append):
            assert model.backbone.cache is None
    assert said == []
    backbone = open_tiny("timm Swin")
    prompt = vpt.DeepTokens.like(backbone, 2, blocks=[4])
    with vpt.PromptedModel(backbone, prompt, vpt.Linear(backbone.out_features, 2)) as model:
        with late_features(model.backbone, model.attachment.sites, "auto", said.append):
            assert backbone.cache is None
        assert "is not kept: its first blocks cannot be skipped" in said[0]


def test_within_a_cache_a_second_is_not_made_and_it_can_be_set_aside() -> None:
    model, said = late_model(), list[str]()
    with late_features(model.backbone, model.attachment.sites, "auto", said.append):
        cache = model.backbone.cache
        assert cache is not None
        with late_features(model.backbone, model.attachment.sites, "auto", said.append):
            assert model.backbone.cache is cache
        assert model.backbone.cache is cache
        with without_cache(model):
            assert model.backbone.cache is None
        with without_cache(model, False):
            assert model.backbone.cache is cache
    assert model.backbone.cache is None
    assert len(said) == 1


def test_adapt_keeps_them_for_all_its_passes(caches: list[FeatureCache]) -> None:
    def last(backbone: vpt.Backbone) -> vpt.Prompt:
        return vpt.DeepTokens.like(backbone, 2, blocks=[2])

    data = vpt.load_data(
        {"train": colours(), "val": colours(24, seed=1)}, open_tiny("timm ViT").inputs
    )
    result = vpt.adapt(data, open_tiny("timm ViT"), last, augment="none", epochs=2, progress=False)
    assert len(caches) == 1
    assert caches[0].misses == 48 + 24
    assert result.model.backbone.cache is None
