"""The six properties, for every model × raw site and every model × prompt form."""

from __future__ import annotations

import copy
import warnings

import pytest
import timm
import torch
from families import (
    EXTRA,
    FORMS,
    HF_SPEECH,
    KINDS,
    LAYER_NORM,
    MODELS,
    PIXEL_FORMS,
    VIT,
    hf,
    make,
    open_tiny,
    refusal,
)
from timm.models.vision_transformer import VisionTransformer
from torch import nn

import vpt
from vpt.backbones import Raw, count_hooks
from vpt.errors import PromptError


@pytest.mark.parametrize("name", [*MODELS, *EXTRA])
def test_report_on_raw_sites(name: str) -> None:
    report = vpt.check(open_tiny(name))
    assert report.ok, str(report)
    forms = {row[1] for row in report.rows} - {"bare", "recorded"}
    assert forms == {"pixels"} | {
        form for form in ("shallow", "deep", "prefix") if refusal(name, form) is None
    }


def outputs(backbone: vpt.Backbone, x: Raw) -> torch.Tensor:
    return torch.cat([part for part in backbone.run(x) if part is not None], dim=1)


def _each_form() -> list[object]:
    """Every model with every form that acts inside it; those that act on the input, which do not
    differ from model to model, with one of each kind.
    """
    return [
        pytest.param(name, form, marks=[pytest.mark.long] * (form in PIXEL_FORMS and not kind))
        for name in [*MODELS, *EXTRA]
        for form in FORMS
        for kind in [name in KINDS or refusal(name, form) is not None]
    ]


@pytest.mark.parametrize(("name", "form"), _each_form())
def test_six_properties_of_prompts(name: str, form: str) -> None:
    backbone = open_tiny(name)
    if refusal(name, form) is not None:
        with pytest.raises(vpt.errors.VptError, match=refusal(name, form)):
            vpt.PromptedModel(backbone, FORMS[form](backbone), vpt.Linear(backbone.out_features, 3))
        assert backbone.attachment is None
        return
    model, x = backbone.model, backbone.inputs.example(2)
    before, hooks, state = (
        outputs(backbone, x),
        count_hooks(model),
        copy.deepcopy(model.state_dict()),
    )
    fingerprint = backbone.fingerprint()
    prompted = vpt.PromptedModel(
        backbone, FORMS[form](backbone), vpt.Linear(backbone.out_features, 3)
    )
    torch.nn.init.normal_(prompted.readout.weight)
    with prompted.prompts_off():
        assert torch.equal(outputs(backbone, x), before)  # 1
    out = prompted(x)
    assert not torch.equal(outputs(backbone, x), before)
    if form not in PIXEL_FORMS:
        _reverse(prompted.prompt)
        assert torch.allclose(prompted(x), out, atol=2e-5, rtol=1e-4)  # 4
    prompted(x).square().sum().backward()
    for key, parameter in prompted.prompt.named_parameters():
        if "network" in key:  # a ReLU may be closed for a row
            assert parameter.grad.abs().sum() > 0, key
            continue
        rows = parameter.grad.flatten(0, -2) if parameter.ndim > 1 else parameter.grad
        assert (rows.abs().sum(-1) > 0).all(), key  # 5
    assert all(p.grad is None for p in model.parameters())
    torch.optim.AdamW(prompted.parameters(), lr=0.1).step()
    assert backbone.fingerprint() == fingerprint  # 6
    bare = prompted.close()
    assert bare is model
    assert count_hooks(bare) == hooks  # 2
    assert all(torch.equal(value, state[key]) for key, value in bare.state_dict().items())
    assert torch.equal(outputs(backbone, x), before)


def _reverse(prompt: torch.nn.Module) -> None:
    with torch.no_grad():
        for key, parameter in prompt.named_parameters():
            if key.endswith("tokens"):
                parameter.copy_(parameter.flip(-2))
            elif key.endswith(("keys", "values")):
                parameter.copy_(parameter.flip(2))


def test_check_fails_on_a_model_that_reads_positions_from_the_end() -> None:
    class Positional(type(make("user's keyword transformer"))):  # type: ignore[misc]
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x)

    model = Positional()
    for i, layer in enumerate(model.layers):
        inner = layer.forward
        steps = torch.linspace(0, 1, 64)[:, None] * (i + 1)
        layer.forward = lambda x, inner=inner, steps=steps: inner(x + steps[: x.shape[1]])
    backbone = vpt.load_backbone(model, inputs=open_tiny("user's keyword transformer").inputs)
    assert set(backbone.reach.refused) == {"shallow", "deep", "recorded"}
    assert "FAIL shallow: 4 order of the prompts" in str(vpt.check(backbone))
    for form in ("shallow", "deep"):
        with pytest.raises(
            vpt.errors.PromptError,
            match=f"{form.capitalize()} prompts do not act as they should on Positional: 4 ",
        ):
            vpt.PromptedModel(backbone, FORMS[form](backbone), vpt.Identity())
    for form in ("prefix", "border, shrink"):  # they do not lengthen the sequence
        with vpt.PromptedModel(backbone, FORMS[form](backbone), vpt.Identity()) as prompted:
            prompted(backbone.inputs.example(2))


def test_a_model_that_cannot_run_with_tokens_still_takes_pixels() -> None:
    class Fixed(type(make("user's keyword transformer"))):  # type: ignore[misc]
        """Its blocks know how long their sequence is."""

    model = Fixed()
    for layer in model.layers:
        inner = layer.forward
        layer.forward = lambda x, inner=inner: inner(x.view(-1, 21, 24))
    backbone = vpt.load_backbone(model, inputs=open_tiny("user's keyword transformer").inputs)
    with pytest.raises(vpt.errors.PromptError, match=r"it runs \(RuntimeError.*pixel prompts"):
        vpt.PromptedModel(backbone, vpt.DeepTokens.like(backbone, 2), vpt.Identity())
    with vpt.PromptedModel(backbone, vpt.Border.like(backbone, 3), vpt.Identity()) as prompted:
        assert prompted(backbone.inputs.example(2)).shape == (2, 4)


def test_a_new_class_is_checked_on_load_and_known_ones_are_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from vpt.backbones import loading

    seen = []
    real = loading.check
    monkeypatch.setattr(
        loading,
        "check",
        lambda backbone: seen.append(type(backbone.model).__name__) or real(backbone),
    )
    open_tiny("timm ViT")
    open_tiny("user's keyword transformer")
    assert seen == ["KeywordTransformer"]


@pytest.mark.parametrize("block", ["ParallelScalingBlock", "ParallelThingsBlock"])
def test_blocks_with_their_own_attention_or_several(block: str) -> None:
    torch.manual_seed(0)
    model = VisionTransformer(**VIT, block_fn=getattr(timm.models.vision_transformer, block)).eval()
    backbone = vpt.load_backbone(model)
    assert backbone.depth == 3
    x = backbone.inputs.example(2)
    features = []
    for via in ("insert", "record"):
        prompt = vpt.DeepTokens.like(backbone, count=3)
        if block == "ParallelThingsBlock" and via == "record":
            with pytest.raises(vpt.errors.PromptError, match="attends 2 times"):
                vpt.PromptedModel(backbone, prompt, vpt.Identity(), via=via)
            continue
        with vpt.PromptedModel(backbone, prompt, vpt.Identity(), via=via) as prompted:
            features.append(prompted(x))
    assert all(torch.allclose(features[0], other, atol=1e-5) for other in features)


def test_an_attention_that_calls_sdpa_twice_takes_inserted_tokens_only() -> None:
    class Twice(torch.nn.Module):
        def __init__(self, dim: int, **others: object) -> None:
            super().__init__()
            self.qkv = torch.nn.Linear(dim, 3 * dim)

        def forward(
            self, x: torch.Tensor, attn_mask: object = None, is_causal: bool = False
        ) -> torch.Tensor:
            q, k, v = self.qkv(x).unflatten(2, (3, 4, 8)).permute(2, 0, 3, 1, 4)
            attend = torch.nn.functional.scaled_dot_product_attention
            halves = [attend(q[:, i : i + 2], k[:, i : i + 2], v[:, i : i + 2]) for i in (0, 2)]
            return torch.cat(halves, 1).transpose(1, 2).flatten(2)

    backbone = vpt.load_backbone(VisionTransformer(**VIT, attn_layer=Twice).eval())
    for form, via in ((vpt.Prefix, "insert"), (vpt.DeepTokens, "record")):
        with pytest.raises(vpt.errors.PromptError, match="attends 2 times"):
            vpt.PromptedModel(backbone, form.like(backbone, 2), vpt.Identity(), via=via)
    with vpt.PromptedModel(backbone, vpt.DeepTokens.like(backbone, 2), vpt.Identity()) as prompted:
        prompted(backbone.inputs.example(2))


def test_a_model_that_stacks_what_its_blocks_gave_refuses_insertion_and_takes_records() -> None:
    torch.manual_seed(0)
    model = hf(
        "Wav2Vec2ForSequenceClassification",
        "Wav2Vec2Config",
        HF_SPEECH | LAYER_NORM | {"use_weighted_layer_sum": True},
    )
    backbone = vpt.load_backbone(model, seconds=0.1)
    prompt = vpt.DeepTokens.like(backbone, 2)
    with pytest.raises(vpt.errors.PromptError, match="Deep prompts do not act as they should"):
        vpt.PromptedModel(backbone, prompt, vpt.Identity())
    with vpt.PromptedModel(backbone, prompt, vpt.Identity(), via="record") as prompted:
        assert prompted(backbone.inputs.example(2)).shape == (2, 4)


def test_int8_weights_are_checked_and_what_does_not_hold_is_refused() -> None:
    """Their scales are of all tokens together, so recorded tokens were 9 % off what inserted ones
    give; none has a gradient.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = torch.ao.quantization.quantize_dynamic(
            make("timm ViT"), {nn.Linear}, dtype=torch.qint8
        )
        backbone = vpt.load_backbone(model, inputs=vpt.Images(size=(32, 32)))
        readout = vpt.Linear(backbone.out_features, 2)
        for form in (vpt.DeepTokens.like(backbone, 3), vpt.Border.like(backbone, 3)):
            with pytest.raises(
                PromptError, match=r"do not act as they should.*a readout of its features alone can"
            ):
                vpt.PromptedModel(backbone, form, readout)
        assert set(backbone.reach.refused) >= {"recorded", "pixels"}
        with vpt.PromptedModel(backbone, None, readout) as bare:
            assert bare(backbone.inputs.example(2)).shape == (2, 2)
