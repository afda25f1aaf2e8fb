"""Half precision: opened in fp32 on a CPU and said, kept where it is asked for, and its cost
told.
"""

from __future__ import annotations

import logging
from pathlib import Path

import families
import pytest
import torch

import vpt
from vpt.backbones import precision
from vpt.backbones.precision import cost_on_cpu, half_of, runs_on_cpu, say_if_slow
from vpt.errors import BackboneError


def folder(path: Path, dtype: torch.dtype, name: str = "CLIPVisionModel") -> Path:
    torch.manual_seed(0)
    families.hf(name, name.replace("Model", "Config"), families.HF_VISION).to(
        dtype
    ).save_pretrained(path)
    return path


def dtypes(backbone: vpt.Backbone) -> set[torch.dtype]:
    return {p.dtype for p in backbone.model.parameters()}


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_a_checkpoint_in_half_precision_is_held_in_fp32_on_a_cpu(
    half: torch.dtype, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It ran five to eleven times slower, silently."""
    path, name = folder(tmp_path / "m", half), {torch.float16: "fp16", torch.bfloat16: "bf16"}[half]
    with caplog.at_level(logging.WARNING, logger="vpt"):
        whole = vpt.load_backbone(path)
    assert dtypes(whole) == {torch.float32}
    assert f"are in {name}; on this CPU they are held in fp32" in caplog.text
    assert f"(--dtype {name}) keeps them" in caplog.text
    kept, told = vpt.load_backbone(path, dtype=name), vpt.load_backbone(path, dtype="fp32")
    assert dtypes(kept) == {half}
    assert dtypes(told) == {torch.float32}
    assert whole.fingerprint() == kept.fingerprint() == told.fingerprint()  # a file fits all three
    x = whole.inputs.example(2)
    assert torch.equal(whole.features(x), told.features(x))
    with vpt.PromptedModel(kept, None, vpt.Linear(32, 2)) as model:
        vpt.save(tmp_path / "a.vpt", model)
    vpt.load(tmp_path / "a.vpt", whole).close()


def test_elsewhere_it_stays_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "runs_on_cpu", lambda: False)
    assert dtypes(vpt.load_backbone(folder(tmp_path / "m", torch.float16))) == {torch.float16}


def test_a_module_in_hand_is_never_converted(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    model = families.make("timm ViT").half()
    precision._say.cache_clear()
    monkeypatch.setattr(precision, "cost_on_cpu", lambda dtype: 7.0)
    with caplog.at_level(logging.WARNING, logger="vpt"):
        backbone = vpt.load_backbone(model, inputs=vpt.Images(32))
    assert dtypes(backbone) == {torch.float16}
    assert (
        "The weights of this VisionTransformer are in fp16, for which this CPU has no products of"
        " its own" in caplog.text
    )
    with pytest.raises(BackboneError, match="a module you hold would be rounded for good"):
        vpt.load_backbone(families.make("timm ViT"), dtype="fp32")


def test_a_slow_precision_is_said_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    precision._say.cache_clear()
    monkeypatch.setattr(precision, "cost_on_cpu", lambda dtype: 6.0)
    with caplog.at_level(logging.WARNING, logger="vpt"):
        for _ in range(2):
            vpt.load_backbone("vpt:vit-p8-64", dtype="bf16").release()
            say_if_slow(torch.float32, "It computes in")
    assert caplog.text.count("The weights are held in bf16, for which this CPU") == 1
    assert "6 times as long" in caplog.text
    precision._say.cache_clear()
    monkeypatch.setattr(precision, "cost_on_cpu", lambda dtype: 0.6)
    caplog.clear()
    say_if_slow(torch.bfloat16, "It computes in")
    assert not caplog.records


def test_what_a_product_costs_is_timed_once() -> None:
    assert cost_on_cpu(torch.bfloat16) == cost_on_cpu(torch.bfloat16) > 0
    assert runs_on_cpu()  # the tests say so to accelerate
    assert half_of(families.make("timm ViT")) is None


def test_training_in_a_slow_precision_is_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from vpt.training.evaluation import accelerator_in

    precision._say.cache_clear()
    monkeypatch.setattr(precision, "cost_on_cpu", lambda dtype: 6.0)
    with caplog.at_level(logging.WARNING, logger="vpt"):
        accelerator_in("bf16")
        accelerator_in("no")
    assert caplog.text.count("It computes in bf16, for which this CPU") == 1
