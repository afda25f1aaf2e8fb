"""What prompts are compared with changes a copy, and of LoRA only the added layers."""

from __future__ import annotations

import importlib.metadata
import importlib.util

import pytest
import torch
from families import open_tiny

from vpt.training.tuning import lora_layers, tuned_model


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_a_copy_learns(kind: str) -> None:
    if kind == "lora":
        pytest.importorskip("peft")
    backbone = open_tiny("timm ViT")
    before = backbone.fingerprint()
    x = backbone.inputs.example(2)
    model, forward = tuned_model(backbone, kind, x, "cpu")
    forward().sum().backward()
    learned = {name for name, p in model.named_parameters() if p.requires_grad}
    assert learned
    assert all("lora" in name for name in learned) == (kind == "lora")
    assert torch.allclose(forward(), backbone.straight(x), atol=1e-5)
    assert backbone.fingerprint() == before


def test_without_peft_there_is_no_lora(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = open_tiny("timm ViT")
    if importlib.util.find_spec("peft") is not None:
        assert lora_layers(backbone) == ["qkv"]

    def missing(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    assert lora_layers(backbone) == []
