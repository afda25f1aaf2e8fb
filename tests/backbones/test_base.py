"""A backbone's two outputs, raw input of every kind, fingerprints, and prompts switched off."""

from __future__ import annotations

import pytest
import torch
from families import MODELS, open_tiny

import vpt
from vpt.backbones.finding.fingerprints import fingerprint
from vpt.errors import BackboneError, InputError


@pytest.mark.parametrize("name", MODELS)
def test_bare_outputs_are_the_models_own(name: str) -> None:
    backbone = open_tiny(name)
    x = backbone.inputs.example(3)
    given, extra = backbone.inputs.arguments(*backbone.inputs.prepare(x))
    answer = backbone.model(given, **extra)
    logits = answer if isinstance(answer, torch.Tensor) else getattr(answer, "logits", None)
    if backbone.classes:
        assert torch.equal(backbone.logits(x), logits)
    assert backbone.features(x).shape == (3, backbone.out_features)
    assert torch.equal(backbone(x).features, backbone.features(x))


def test_prompts_off_and_on_again() -> None:
    backbone = open_tiny("timm ViT")
    x = backbone.inputs.example(2)
    bare = backbone.logits(x)
    model = vpt.PromptedModel(backbone, vpt.DeepTokens.like(backbone, 2), vpt.Identity())
    prompted = model(x)
    with model.prompts_off():
        assert torch.equal(backbone.logits(x), bare)
    assert torch.equal(model(x), prompted)
    # attached prompts act however the backbone is called
    assert torch.equal(backbone.logits(x), prompted)


def test_raw_input_of_every_kind() -> None:
    backbone = open_tiny("timm ViT")
    x = backbone.inputs.example(2)
    expected = backbone.logits(x)
    strided = x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    assert not strided.is_contiguous()
    assert torch.allclose(backbone.logits(strided), expected, atol=1e-6)
    assert torch.allclose(backbone.logits(x.double()), expected, atol=1e-6)
    assert torch.allclose(backbone.logits(x.half()), expected, atol=1e-2)
    wrong = {
        r"Divide by 255": (x * 255).byte(),
        r"\[0, 1\].*Divide 0–255 images by 255": x * 255,
        r"do not subtract mean and std": x - 0.5,
        r"needed are images \[B,3,32,32\].*Resize": torch.rand(2, 3, 16, 16),
        r"repeat a grey channel": torch.rand(2, 1, 32, 32),
        r"x\[None\]": x[0],
        r"finite": x * float("nan"),
    }
    for message, value in wrong.items():
        with pytest.raises(InputError, match=message):
            backbone.logits(value)


def test_half_precision_backbone_takes_raw_float_input() -> None:
    backbone = open_tiny("timm ViT")
    x = backbone.inputs.example(2)
    expected = backbone.logits(x)
    model = vpt.PromptedModel(backbone, vpt.DeepTokens.like(backbone, 2), vpt.Identity())
    backbone.to(torch.bfloat16)
    assert model(x).dtype == torch.float32
    with model.prompts_off():
        assert torch.allclose(backbone.logits(x), expected, atol=0.1)


def test_fingerprint_sees_one_bit() -> None:
    backbone = open_tiny("timm ViT")
    before = backbone.fingerprint()
    assert before == fingerprint(backbone.model)
    with torch.no_grad():
        weight = backbone.model.head.weight
        weight[0, 0] = torch.nextafter(weight[0, 0], torch.tensor(9.0))
    assert backbone.fingerprint() != before


def test_an_answer_that_is_neither_is_refused() -> None:
    class Strange(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = torch.nn.Conv2d(3, 4, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.conv(x)

    with pytest.raises(BackboneError, match=r"returned \[1, 4, 6, 6\]"):
        vpt.load_backbone(Strange(), inputs=vpt.Images(size=(8, 8)))
