"""A last block of which only the class token is read: the same function, with no work for the other
tokens.
"""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from families import MODELS, open_tiny
from torch import Tensor, nn

import vpt
from vpt.backbones.acting.narrowing import Narrowing

READ = {
    "timm ViT": 1,
    "timm DeiT distilled": 2,
    "timm CLIP": 1,
    "timm ViT registers": 1,
    "transformers ViT": 1,
    "transformers AST": 2,
    "transformers DeiT": 2,
    "torchvision ViT": 1,
    "transformers CLIP vision": 1,
    "user's keyword transformer": 1,
}
ALL = [
    "timm ViT mean-pooled",
    "timm SigLIP",
    "transformers DINOv2",
    "transformers VideoMAE",
    "timm Swin",
    "timm EVA",
    "transformers wav2vec2",
    "transformers Whisper encoder",
]


def narrowed(model: vpt.PromptedModel) -> bool:
    return any(isinstance(actor, Narrowing) and actor.acted for actor in model.attachment._actors)


@pytest.mark.parametrize("name", MODELS)
def test_what_is_read_of_the_last_block(name: str) -> None:
    backbone = open_tiny(name)
    if name in READ:
        assert backbone.first_read == READ[name]
    if name in ALL:
        assert backbone.first_read == 0
    if not backbone.first_read:
        return
    tokens: list[Tensor] = []

    def spoil(module: nn.Module, args: tuple, output: Any) -> Any:
        x = output[0] if isinstance(output, tuple) else output
        tokens.append(x)
        x = torch.cat(
            [x[:, : backbone.first_read], torch.randn_like(x[:, backbone.first_read :])], dim=1
        )
        return (x, *output[1:]) if isinstance(output, tuple) else x

    x = backbone.inputs.example(2)
    out = backbone.features(x)
    handle = backbone.blocks[-1].module.register_forward_hook(spoil)
    assert torch.equal(backbone.features(x), out)  # nothing else of it is read
    handle.remove()
    assert tokens[0].shape[1] > backbone.first_read


@pytest.mark.parametrize("name", READ)
@pytest.mark.parametrize("form", ["border", "prefix", "deep"])
def test_the_answer_and_its_gradients_are_the_same(name: str, form: str) -> None:
    backbone = open_tiny(name)
    prompt = {
        "border": lambda: vpt.Border.like(backbone, 2, init="uniform"),
        "prefix": lambda: vpt.Prefix.like(backbone, 2),
        "deep": lambda: vpt.DeepTokens.like(backbone, 2, blocks=[backbone.depth - 1]),
    }[form]()
    x, found = backbone.inputs.example(3), []
    for via in ("insert", "auto"):
        prompt.zero_grad()
        model = vpt.PromptedModel(backbone, prompt, vpt.Linear(backbone.out_features, 2), via=via)
        out = backbone.run(x)
        whole = torch.cat([part for part in out if part is not None], dim=1)
        (whole * torch.linspace(-1, 1, whole.numel()).view_as(whole)).sum().backward()
        assert narrowed(model) == (via == "auto")
        model.close()
        found.append([whole.detach(), *(p.grad.clone() for p in prompt.parameters())])
    for ours, theirs in zip(found[1], found[0], strict=True):
        assert (ours - theirs).norm() / theirs.norm() < 1e-5


def test_a_prefix_sees_all_of_the_last_blocks_keys() -> None:
    backbone = open_tiny("timm ViT")
    x, seen = backbone.inputs.example(2), []

    def make(keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor, None]:
        seen.append(keys)
        return keys[..., :1, :], values[..., :1, :], None

    whole = backbone.record(x)[-1]["keys"]
    attachment = backbone.insert([vpt.sites.KeyValues(2, 1, make)])
    seen.clear()
    backbone.features(x)
    attachment.remove()
    assert torch.allclose(seen[0], whole, atol=1e-6)


def test_tokens_through_the_last_block_a_mask_or_no_prompt_leave_it_whole() -> None:
    backbone = open_tiny("timm ViT")
    x = backbone.inputs.example(2)
    with vpt.PromptedModel(backbone, vpt.ShallowTokens.like(backbone, 2), vpt.Identity()) as model:
        model(x)
        assert not narrowed(model)
    with vpt.PromptedModel(backbone, None, vpt.Identity()) as model:
        assert torch.equal(model(x), backbone.straight(x))
        assert not narrowed(model)
    with vpt.PromptedModel(backbone, vpt.Border.like(backbone, 2), vpt.Identity()) as model:
        model(x)
        (narrowing,) = (actor for actor in model.attachment._actors if isinstance(actor, Narrowing))
        tokens, mask = torch.randn(2, 17, 32), torch.ones(1, 1, 17, 17, dtype=torch.bool)
        # not within a forward of the backbone
        assert narrowing.enter(backbone.blocks[-1].module, (tokens,), {}) is None
        narrowing.active = True
        assert narrowing.enter(backbone.blocks[-1].module, (tokens,), {"attn_mask": mask}) is None
        narrower, _ = narrowing.enter(
            backbone.blocks[-1].module, (tokens,), {"attn_mask": None, "is_causal": False}
        )
        assert torch.equal(narrower[0], tokens[:, :1])


def test_a_model_whose_check_failed_is_left_whole() -> None:
    backbone = open_tiny("timm ViT")
    backbone.reach.refused["recorded"] = "its outputs differ"
    with vpt.PromptedModel(backbone, vpt.DeepTokens.like(backbone, 2), vpt.Identity()) as model:
        model(backbone.inputs.example(2))
        assert not narrowed(model)
        assert {type(actor).__name__ for actor in model.attachment._actors} == {"Insertion"}


def test_who_runs_the_model_itself_gets_all_its_tokens() -> None:
    backbone = open_tiny("timm ViT")
    x = backbone.inputs.example(2)
    found = []
    for via in ("insert", "auto"):
        with vpt.PromptedModel(backbone, vpt.DeepTokens.like(backbone, 2), vpt.Identity(), via=via):
            found.append(backbone.model.forward_features(backbone.inputs.normalize(x)))
    assert torch.allclose(found[1], found[0], atol=1e-5)
    assert found[1][:, 1:].norm() > 1


def test_a_maximum_over_tokens_reads_them_all() -> None:
    from timm.models.vision_transformer import VisionTransformer

    # the gradient alone would take some of these for models that drop the last tokens
    for seed in range(6):
        torch.manual_seed(seed)
        model = VisionTransformer(
            img_size=32,
            patch_size=8,
            embed_dim=8,
            depth=2,
            num_heads=2,
            num_classes=0,
            global_pool="max",
        )
        assert vpt.load_backbone(model.eval()).first_read == 0


@pytest.mark.parametrize("name", ["timm ViT", "timm CLIP"])
def test_activation_checkpointing_leaves_it_whole_and_nothing_behind(name: str) -> None:
    backbone = open_tiny(name)
    x = backbone.inputs.example(2)
    model = vpt.PromptedModel(backbone, vpt.DeepTokens.like(backbone, 2), vpt.Identity())
    found = []
    for on in (False, True):
        backbone.model.set_grad_checkpointing(on)
        out = model(x)
        found.append(
            [
                out.detach(),
                *torch.autograd.grad(out.square().sum(), list(model.prompt.parameters())),
            ]
        )
        assert all(
            actor.interception.hidden is None
            for actor in model.attachment._actors
            if isinstance(actor, Narrowing)
        )
        copy.deepcopy(model)
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(*found, strict=True))
