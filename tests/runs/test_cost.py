"""What a run cost, and what tuning would."""

from __future__ import annotations

import importlib.util

import pytest
from families import open_tiny
from helpers import colours

import vpt
from vpt.data import Data
from vpt.runs import cost as module
from vpt.runs.cost import Clock, alternatives
from vpt.runs.inlined import cost_of
from vpt.training.operations import count_operations


def some(count: int = 12) -> Data:
    parts = {"train": colours(count), "val": colours(6, 1)}
    return vpt.load_data(parts, open_tiny("timm ViT").inputs)


def test_alternatives_are_multiplied_from_a_few_examples() -> None:
    backbone = open_tiny("timm ViT")
    found = {one["method"]: one for one in alternatives(backbone, some())}
    probe, full = found["linear probe"], found["full fine-tuning"]
    one = count_operations(lambda: backbone.features(colours(1)[0][0][None]))
    assert probe["operations"] == pytest.approx(12 * one, rel=0.02)
    assert 2 * 8 * probe["operations"] < full["operations"] < 4 * 8 * probe["operations"]
    whole = sum(p.numel() for p in backbone.model.parameters())
    assert full["parameters"] >= whole
    if importlib.util.find_spec("peft"):
        lora = found["LoRA of rank 8"]
        assert lora["parameters"] < full["parameters"]
        assert lora["operations"] < full["operations"]
    assert not any(p.grad is not None for p in backbone.model.parameters())


def test_a_large_model_is_not_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LARGEST", 10)
    assert alternatives(open_tiny("timm ViT"), some()) == []


def test_measuring_is_not_counted_and_the_page_says_it(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone, clock = open_tiny("timm ViT"), Clock()
    clock.look(backbone, some())
    prompt = vpt.DeepTokens.like(backbone, 2)
    readout = vpt.Linear(backbone.out_features, ["a", "b", "c"])
    with vpt.PromptedModel(backbone, prompt, readout) as model:
        cost = clock.cost(model)
    assert cost["cpu_seconds"] < 60
    learned = [prompt, readout]
    assert cost["bytes"] == sum(v.nbytes for p in learned for v in p.state_dict().values())
    shown = cost_of(cost)
    assert shown is not None
    assert shown["rows"][0]["method"] == "this run"
    assert "times what was learned" in shown["said"]
    assert cost_of(None) is None
