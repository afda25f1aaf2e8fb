"""The six properties, for every model × raw site and every model × prompt form."""

from __future__ import annotations

import copy

import pytest
import torch
from families import EXTRA, FORMS, MODELS, PIXEL_FORMS, make, open_tiny, refusal

import vpt
from vpt.backbones import Raw, count_hooks


@pytest.mark.parametrize("name", [*MODELS, *EXTRA])
def test_report_on_raw_sites(name: str) -> None:
    report = vpt.check(open_tiny(name))
    assert report.ok, str(report)
    forms = {row[1] for row in report.rows} - {"bare"}
    assert forms == {"pixels"} | {form for form in ("shallow", "deep", "prefix") if refusal(name, form) is None}


def outputs(backbone: vpt.Backbone, x: Raw) -> torch.Tensor:
    return torch.cat([part for part in backbone.run(x) if part is not None], dim=1)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", [*MODELS, *EXTRA])
def test_six_properties_of_prompts(name: str, form: str) -> None:
    backbone = open_tiny(name)
    if refusal(name, form) is not None:
        with pytest.raises(vpt.errors.VptError, match=refusal(name, form)):
            vpt.PromptedModel(backbone, FORMS[form](backbone), vpt.Linear(backbone.out_features, 3))
        assert backbone.attachment is None
        return
    model, x = backbone.model, backbone.inputs.example(2)
    before, hooks, state = outputs(backbone, x), count_hooks(model), copy.deepcopy(model.state_dict())
    fingerprint = backbone.fingerprint()
    prompted = vpt.PromptedModel(backbone, FORMS[form](backbone), vpt.Linear(backbone.out_features, 3))
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
    assert set(backbone.refused) == {"shallow", "deep"}
    assert "FAIL shallow: 4 order of the prompts" in str(vpt.check(backbone))
    for form in ("shallow", "deep"):
        with pytest.raises(
            vpt.errors.PromptError, match=f"{form.capitalize()} prompts do not act as they should on Positional: 4 "
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


def test_a_new_class_is_checked_on_load_and_known_ones_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    from vpt.backbones import loading

    seen = []
    real = loading.check
    monkeypatch.setattr(loading, "check", lambda backbone: seen.append(type(backbone.model).__name__) or real(backbone))
    open_tiny("timm ViT")
    open_tiny("user's keyword transformer")
    assert seen == ["KeywordTransformer"]
