"""Key/value prefixes against attention written out by hand, masks and biases included; and no
silence.
"""

from __future__ import annotations

import math

import pytest
import torch
import transformers
from families import HF_VIT, make, open_tiny
from torch import Tensor

import vpt
from vpt.backbones.acting.interception import Interception
from vpt.sites import KeyValues


def attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | float = 0.0) -> Tensor:
    return torch.softmax(q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1]) + bias, dim=-1) @ v


@pytest.mark.parametrize("mask", [None, "bool", "float"])
@pytest.mark.parametrize("bias", [False, True])
def test_rewritten_arguments_equal_attention_by_hand(mask: str | None, bias: bool) -> None:
    q, k, v = torch.randn(3, 2, 2, 5, 4).unbind(0)
    q.requires_grad_()
    keys, values = (
        torch.randn(1, 2, 3, 4, requires_grad=True),
        torch.randn(1, 2, 3, 4, requires_grad=True),
    )
    extra = torch.randn(2, 1, 1, 3) if bias else None
    given = {None: None, "bool": torch.rand(1, 1, 5, 5) > 0.3, "float": torch.randn(2, 1, 5, 5)}[
        mask
    ]
    if mask == "bool":
        given[..., 0] = True
    interception = Interception(open_tiny("timm ViT").blocks[0])
    interception.sites.append(KeyValues(0, 3, lambda k, v: (keys, values, extra)))
    ours = interception.attend(
        {"query": q, "key": k, "value": v} | ({} if given is None else {"attn_mask": given})
    )
    own = torch.zeros(2, 1, 5, 5) if given is None else given
    own = torch.zeros(own.shape).masked_fill(~own, -math.inf) if own.dtype == torch.bool else own
    rows = torch.zeros(2, 1, 5, 3) if extra is None else extra.expand(2, 1, 5, 3)
    whole = torch.cat([rows, own.expand(2, 1, 5, 5)], dim=-1)
    theirs = attention(
        q,
        torch.cat([keys.expand(2, -1, -1, -1), k], 2),
        torch.cat([values.expand(2, -1, -1, -1), v], 2),
        whole,
    )
    assert torch.allclose(ours, theirs, atol=1e-6)
    found = torch.autograd.grad(ours.square().sum(), (q, keys, values), retain_graph=True)
    needed = torch.autograd.grad(theirs.square().sum(), (q, keys, values))
    assert all(
        torch.allclose(a, b, rtol=1e-4, atol=1e-5) for a, b in zip(found, needed, strict=True)
    )
    assert interception.acted == 1


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("mask", [None, "bool", "float"])
def test_learning_in_half_precision_on_a_cpu_is_as_near_as_torchs_own(
    mask: str | None, dtype: torch.dtype
) -> None:
    tensors = [torch.randn(2, 3, 40, 16).to(dtype).requires_grad_() for _ in range(3)]
    given = {
        None: None,
        "bool": (torch.rand(2, 1, 40, 40) > 0.3).index_fill_(-1, torch.tensor(0), True),
        "float": torch.randn(1, 3, 40, 40).to(dtype),
    }[mask]
    slopes = torch.randn(2, 3, 40, 16)
    interception = Interception(open_tiny("timm ViT").blocks[0])

    def off(attend: object, *inputs: Tensor) -> list[Tensor]:
        call = dict(zip(("query", "key", "value"), inputs, strict=True)) | {"scale": 0.2}
        out = attend(
            call
            if given is None
            else call | {"attn_mask": given.to(inputs[0].dtype) if mask == "float" else given}
        )
        return [out, *torch.autograd.grad((out.float() * slopes).sum(), inputs)]

    def torchs(call: dict) -> Tensor:
        return torch.nn.functional.scaled_dot_product_attention(**call)

    true = off(torchs, *(t.detach().float().requires_grad_() for t in tensors))
    for needed, ours, theirs in zip(
        true, off(interception.attend, *tensors), off(torchs, *tensors), strict=True
    ):
        errors = [
            float((found.float() - needed).detach().norm() / needed.detach().norm())
            for found in (ours, theirs)
        ]
        assert errors[0] < 2 * errors[1] + 1e-3, errors


def test_prefix_equals_the_model_written_out() -> None:
    backbone = open_tiny("user's keyword transformer")
    x = backbone.inputs.example(3)
    prompt = vpt.Prefix.like(backbone, count=4)
    model = vpt.PromptedModel(backbone, prompt, vpt.Identity())
    ours = model(x)
    bare = model.close()
    z = (
        torch.cat(
            [bare.cls_token.expand(3, -1, -1), bare.embed(backbone.inputs.normalize(x))], dim=1
        )
        + bare.pos
    )
    for i, layer in enumerate(bare.layers):
        q, k, v = (f(z)[:, None] for f in (layer.attn.q, layer.attn.k, layer.attn.v))
        rows = (
            torch.cat([p[i].expand(3, -1, -1, -1), own], dim=2)
            for p, own in ((prompt.keys, k), (prompt.values, v))
        )
        z = layer.norm1(z + layer.attn.proj(attention(q, *rows)[:, 0]))
        z = layer.norm2(z + layer.mlp(z))
    assert torch.allclose(ours, bare.head(z[:, 0]), atol=1e-5)


def test_causal_attention_is_refused() -> None:
    q = torch.randn(1, 1, 2, 4)
    interception = Interception(open_tiny("timm ViT").blocks[0])
    with pytest.raises(vpt.errors.PromptError, match="causal"):
        interception.attend({"query": q, "key": q, "value": q, "is_causal": True})


def test_eager_attention_says_so_before_training() -> None:
    config = transformers.ViTConfig(**HF_VIT, attn_implementation="eager")
    backbone = vpt.load_backbone(transformers.ViTForImageClassification(config))
    with pytest.raises(vpt.errors.PromptError, match="attn_implementation='sdpa'"):
        vpt.Prefix.like(backbone, count=2)
    site = KeyValues(0, 1, lambda k, v: (k[..., :1, :], v[..., :1, :], None))
    with pytest.raises(vpt.errors.PromptError, match="never called"):
        backbone.insert([site])


def test_timm_attention_that_is_not_fused_is_fused_while_prompts_act_and_left_as_it_was() -> None:
    backbone = open_tiny("timm ViT")
    model = vpt.PromptedModel(backbone, vpt.Prefix.like(backbone, count=2), vpt.Identity())
    x = backbone.inputs.example(2)
    out = model(x)
    for block in backbone.model.blocks:
        block.attn.fused_attn = False
    assert torch.equal(model(x), out)
    assert not any(block.attn.fused_attn for block in backbone.model.blocks)


def test_attention_switched_to_eager_after_attachment_is_not_silent() -> None:
    backbone = open_tiny("transformers ViT")
    model = vpt.PromptedModel(backbone, vpt.Prefix.like(backbone, count=2), vpt.Identity())
    x = backbone.inputs.example(2)
    model(x)
    backbone.model.set_attn_implementation("eager")
    with pytest.raises(vpt.errors.PromptError, match="reach nothing"):
        model(x)


def test_no_mode_is_left_after_an_exception_in_attention() -> None:
    from torch.overrides import _get_current_function_mode_stack

    backbone = open_tiny("timm ViT")
    model = vpt.PromptedModel(backbone, vpt.Prefix.like(backbone, count=2), vpt.Identity())
    x = backbone.inputs.example(2)
    good = model(x)
    real = backbone.model.blocks[1].attn.proj.forward
    backbone.model.blocks[1].attn.proj.forward = lambda x: 1 / 0
    with pytest.raises(ZeroDivisionError):
        model(x)
    assert _get_current_function_mode_stack() == []
    backbone.model.blocks[1].attn.proj.forward = lambda x: (_ for _ in ()).throw(KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        model(x)
    assert _get_current_function_mode_stack() == []
    backbone.model.blocks[1].attn.proj.forward = real
    assert torch.equal(model(x), good)


def test_prefix_for_other_heads_does_not_fit() -> None:
    backbone = open_tiny("timm ViT")
    with pytest.raises(vpt.errors.PromptError, match="prefix keys"):
        vpt.PromptedModel(backbone, vpt.Prefix(2, heads=4, head_dim=8, blocks=[0]), vpt.Identity())
    assert make("timm ViT") is not None
