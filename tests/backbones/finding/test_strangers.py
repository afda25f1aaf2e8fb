"""Hooks and settings of others: shortcuts that were measured without them step aside, or are
measured again.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable

import pytest
import torch
from families import make
from torch import Tensor, nn

import vpt
from vpt.backbones.finding.strangers import foreign_hooks, settings_of

INPUTS = vpt.Images(size=(32, 32), mean=0.5, std=0.5)


def all_tokens(module: nn.Module, args: tuple, output: Tensor) -> Tensor:
    """The class token takes in what the patches say."""
    return torch.cat([output[:, :1] + output[:, 1:].mean(1, keepdim=True), output[:, 1:]], 1)


def all_tokens_before(module: nn.Module, args: tuple) -> tuple:
    return (all_tokens(module, args, args[0]),)


def centred(module: nn.Module, args: tuple, output: Tensor) -> Tensor:
    return output - output.mean(1, keepdim=True)


HOOKS: dict[str, Callable[[nn.Module], object]] = {
    "on the last block": lambda m: m.blocks[-1].register_forward_hook(all_tokens),
    "on the last norm": lambda m: m.norm.register_forward_pre_hook(all_tokens_before),
    "mixing tokens before attention": lambda m: m.blocks[1].norm1.register_forward_hook(centred),
}


def outputs(backbone: vpt.Backbone, via: str) -> tuple[Tensor, Tensor]:
    """Answer and gradient with the same prompt."""
    prompt = vpt.DeepTokens.like(backbone, 3)
    nn.init.normal_(prompt.tokens, generator=torch.Generator().manual_seed(0))
    with vpt.PromptedModel(backbone, prompt, vpt.Identity(), via=via) as model:
        out = model(INPUTS.example(3))
        return (
            out.detach(),
            torch.autograd.grad((out * torch.linspace(1, 2, 5)).sum(), prompt.tokens)[0],
        )


@pytest.mark.parametrize("when", ["before it is opened", "after"])
@pytest.mark.parametrize("hook", HOOKS)
def test_recorded_equals_inserted_with_others_hooks(hook: str, when: str) -> None:
    module = make("timm ViT")
    if when != "after":
        HOOKS[hook](module)
    backbone = vpt.load_backbone(module, inputs=INPUTS)
    if when == "after":
        HOOKS[hook](module)
    found, needed = outputs(backbone, "auto"), outputs(backbone, "insert")
    for one, other in zip(found, needed, strict=True):
        assert (one - other).norm() / other.norm() < 1e-5
    if "attention" in hook:
        with pytest.raises(
            vpt.errors.PromptError, match="Recorded prompts do not act as they should"
        ):
            outputs(backbone, "record")


def test_what_a_hook_forbade_is_allowed_when_it_is_gone() -> None:
    backbone = vpt.load_backbone(make("timm ViT"), inputs=INPUTS)
    handle = backbone.model.blocks[1].norm1.register_forward_hook(centred)
    outputs(backbone, "auto")
    assert backbone.reach.refused
    handle.remove()
    outputs(backbone, "record")
    assert not backbone.reach.refused


def test_a_hook_that_only_reads_sees_every_token() -> None:
    """It saw zeros for all but the class token."""
    backbone, seen = vpt.load_backbone(make("timm ViT"), inputs=INPUTS), []
    model = vpt.PromptedModel(backbone, vpt.DeepTokens.like(backbone, 2), vpt.Identity())
    with torch.no_grad():
        for place in (
            backbone.model.blocks[-1],
            backbone.model.blocks[-1].mlp,
            backbone.model.norm,
        ):
            handle = place.register_forward_hook(lambda module, args, output: seen.append(output))
            out = model(INPUTS.example(2))
            handle.remove()
            assert seen[-1].shape[1] == 17
            assert (seen[-1].abs().sum(-1) > 0).all()
            assert torch.allclose(model(INPUTS.example(2)), out, atol=1e-5)


def test_a_hook_for_all_modules_sees_every_token() -> None:
    backbone, seen = vpt.load_backbone(make("timm ViT"), inputs=INPUTS), []
    model = vpt.PromptedModel(backbone, None, vpt.Identity())
    model.swap(vpt.DeepTokens.like(backbone, 2))
    handle = nn.modules.module.register_module_forward_hook(
        lambda module, args, output: seen.append(output) if module is backbone.model.norm else None
    )
    try:
        model(INPUTS.example(2))
    finally:
        handle.remove()
    assert (seen[-1].abs().sum(-1) > 0).all()


def test_settings_that_change_are_measured_again() -> None:
    """How much of the last block is read was known from when the model was opened."""
    backbone = vpt.load_backbone(make("timm ViT"), inputs=INPUTS)
    assert backbone.first_read == 1
    backbone.model.pool, backbone.model.global_pool = backbone.model.pool, "avg"
    found, needed = outputs(backbone, "auto"), outputs(backbone, "insert")
    assert backbone.first_read == 0
    assert torch.allclose(found[0], needed[0], atol=1e-5)


def test_hooks_that_come_while_a_prompt_acts_are_said(caplog: pytest.LogCaptureFixture) -> None:
    backbone = vpt.load_backbone(make("timm ViT"), inputs=INPUTS)
    model = vpt.PromptedModel(backbone, vpt.DeepTokens.like(backbone, 2), vpt.Identity())
    with caplog.at_level(logging.WARNING, logger="vpt"):
        model(INPUTS.example(1))
        assert not caplog.text
        backbone.model.blocks[1].norm1.register_forward_hook(centred)
        for _ in range(2):
            model(INPUTS.example(1))
    assert caplog.text.count("got hooks inside its blocks after the prompt was attached") == 1


def test_what_is_foreign() -> None:
    module = make("timm ViT")
    backbone = vpt.load_backbone(module, inputs=INPUTS)
    model = vpt.PromptedModel(backbone, vpt.DeepTokens.like(backbone, 2), vpt.Identity())
    assert foreign_hooks(module.modules()) == []
    module.register_forward_hook(lambda *args: None)
    assert len(foreign_hooks(module.modules())) == 1
    assert len(foreign_hooks(copy.deepcopy(model).backbone.model.modules())) == 1
    before = settings_of(module)
    module.train()
    assert settings_of(module) == before
    module.blocks[0].attn.scale = 2.0
    assert settings_of(module) != before
