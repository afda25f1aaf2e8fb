"""What a run cost, and what tuning would."""

from __future__ import annotations

import importlib.util

import pytest
import torch
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


@pytest.mark.parametrize("name", ["short AST", "transformers Whisper encoder", "timm Swin"])
def test_models_whose_input_has_another_length_too(name: str) -> None:
    short = name == "short AST"  # its positions are others than those of the weights
    backbone = vpt.load_backbone("vpt:ast-tiny", seconds=0.4) if short else open_tiny(name)
    if backbone.inputs.kind == "image":
        x = backbone.inputs.example(1)[0]
    else:
        x = (torch.rand(backbone.inputs.samples) - 0.5, torch.tensor(backbone.inputs.samples))
    examples = vpt.Examples(lambda i: x, [0, 1] * 3, ["a", "b"])
    data = vpt.load_data({"train": examples, "val": examples}, backbone.inputs)
    found = [one["method"] for one in alternatives(backbone, data)]
    assert found[0] == "linear probe"
    assert found[-1] == "full fine-tuning"


def test_what_cannot_be_measured_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: object) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(module, "tuned_model", broken)
    assert [one["method"] for one in alternatives(open_tiny("timm ViT"), some())] == [
        "linear probe"
    ]


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
    assert cost["seconds"] < 60
    learned = [prompt, readout]
    assert cost["bytes"] == sum(v.nbytes for p in learned for v in p.state_dict().values())
    shown = cost_of(cost)
    assert shown is not None
    assert shown["rows"][0]["method"] == "this run"
    assert "times what was learned" in shown["said"]
    assert cost_of(None) is None
