"""Token insertion against VPT's forward written by hand from the paper, in the paper's order [CLS,
P, E].
"""

from __future__ import annotations

import pytest
import torch
from families import open_tiny
from torch import Tensor

import vpt
from vpt.sites import Tokens


def by_hand(model: torch.nn.Module, x: Tensor, tokens: Tensor, deep: bool) -> Tensor:
    """VPT (Jia et al. 2022): equations 4-5 (shallow, tokens [count,D]) and 6 (deep, tokens
    [blocks,count,D]).
    """
    x = model.norm_pre(model._pos_embed(model.patch_embed(x)))
    cls, patches = x[:, :1], x[:, 1:]
    prompts = (tokens[0] if deep else tokens).expand(len(x), -1, -1)
    count = prompts.shape[1]
    for i, block in enumerate(model.blocks):
        if deep:
            prompts = tokens[i].expand(len(x), -1, -1)
        out = block(torch.cat([cls, prompts, patches], dim=1))
        cls, prompts, patches = out[:, :1], out[:, 1 : 1 + count], out[:, 1 + count :]
    return model.head(model.norm(torch.cat([cls, patches], dim=1))[:, 0])


@pytest.mark.parametrize("form", ["shallow", "deep"])
def test_equals_a_hand_written_vpt_in_output_and_gradient(form: str) -> None:
    backbone = open_tiny("timm ViT")
    x = backbone.inputs.example(4)
    cls = vpt.DeepTokens if form == "deep" else vpt.ShallowTokens
    prompt = cls.like(backbone, count=4)
    torch.nn.init.normal_(prompt.tokens)
    model = vpt.PromptedModel(backbone, prompt, vpt.Identity())
    weights = torch.randn(4, 5)
    ours = model(x)
    (ours * weights).sum().backward()
    bare = model.close()
    reference = prompt.tokens.detach().clone().requires_grad_()
    theirs = by_hand(bare, backbone.inputs.normalize(x), reference, form == "deep")
    (theirs * weights).sum().backward()
    assert torch.allclose(ours, theirs, rtol=1e-5, atol=1e-6)
    error = (prompt.tokens.grad - reference.grad).norm() / reference.grad.norm()
    assert error < 1e-5


def test_spans_nest_like_brackets() -> None:
    backbone = open_tiny("timm ViT")
    x = backbone.inputs.example(2)
    shallow, deep = torch.randn(2, 32), torch.randn(3, 3, 32)
    outer = Tokens(0, 2, 2, lambda x: shallow.expand(len(x), -1, -1))
    inner = [Tokens(i, i, 3, lambda x, i=i: deep[i].expand(len(x), -1, -1)) for i in range(3)]
    found = []
    for sites in ([outer, *inner], [*inner, outer]):
        attachment = backbone.insert(sites)
        found.append(backbone.features(x))
        attachment.remove()
    assert torch.allclose(found[0], found[1], atol=1e-5)
    # independent: shallow tokens carried, deep ones replaced
    model = backbone.model
    z = model.norm_pre(model._pos_embed(model.patch_embed(backbone.inputs.normalize(x))))
    z = torch.cat([shallow.expand(2, -1, -1), z], dim=1)
    for i, block in enumerate(model.blocks):
        z = block(torch.cat([deep[i].expand(2, -1, -1), z], dim=1))[:, 3:]
    assert torch.allclose(model.norm(z[:, 2:])[:, 0], found[0], atol=1e-5)


def test_crossing_spans_are_refused() -> None:
    backbone = open_tiny("timm ViT")
    sites = [Tokens(0, 1, 1, lambda x: x[:, :1]), Tokens(1, 2, 1, lambda x: x[:, :1])]
    with pytest.raises(vpt.errors.PromptError, match="cross"):
        backbone.insert(sites)
    assert backbone.attachment is None


def test_sequence_first_blocks_get_batch_first_rows() -> None:
    backbone = open_tiny("torch encoder [N,B,D]")
    assert backbone.blocks[0].seq_first
    x = backbone.inputs.example(3)
    prompt = vpt.DeepTokens.like(backbone, count=2)
    model = vpt.PromptedModel(backbone, prompt, vpt.Linear(backbone.out_features, 2))
    features = backbone.features(x)
    model.close()
    z = backbone.model.embed(backbone.inputs.normalize(x)) + backbone.model.pos.transpose(0, 1)
    for layer, tokens in zip(backbone.model.layers, prompt.tokens, strict=True):
        z = layer(torch.cat([tokens.expand(3, -1, -1), z], dim=1).transpose(0, 1)).transpose(0, 1)[
            :, 2:
        ]
    assert torch.allclose(features, z.mean(1), atol=1e-5)


class Masked(torch.nn.Module):
    """torch's encoder layers with a padding mask, or with a tensor per token that no attention
    sees.
    """

    def __init__(self, own: bool = False) -> None:
        super().__init__()
        layer = Weighted if own else torch.nn.TransformerEncoderLayer
        self.layers = torch.nn.ModuleList(layer(24, 2, 48, batch_first=True) for _ in range(2))
        self.embed, self.own = torch.nn.Linear(8, 24), own

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        mask = torch.arange(x.shape[1]).expand(x.shape[:2]) >= 12
        for layer in self.layers:
            x = (
                layer(x, weights=torch.ones(x.shape[1]))
                if self.own
                else layer(x, src_key_padding_mask=mask)
            )
        return x[:, :12].mean(1)


class Weighted(torch.nn.TransformerEncoderLayer):
    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        return super().forward(x) * weights[:, None]


def test_a_padding_mask_of_torchs_own_attention_grows_with_the_tokens() -> None:
    torch.manual_seed(0)
    backbone = vpt.load_backbone(Masked(), inputs=open_tiny("user's keyword transformer").inputs)
    tokens, x = torch.randn(2, 3, 24), backbone.inputs.example(2)
    attachment = backbone.insert(
        [Tokens(i, i, 3, lambda x, i=i: tokens[i].expand(len(x), -1, -1)) for i in range(2)]
    )
    found = backbone.features(x)
    attachment.remove()
    z = backbone.model.embed(backbone.inputs.normalize(x))
    mask = torch.cat(
        [torch.zeros(2, 3, dtype=torch.bool), torch.arange(20).expand(2, 20) >= 12], dim=1
    )
    for rows, layer in zip(tokens, backbone.model.layers, strict=True):
        z = layer(torch.cat([rows.expand(2, -1, -1), z], dim=1), src_key_padding_mask=mask)[:, 3:]
    assert torch.allclose(found, z[:, :12].mean(1), atol=1e-5)


def test_a_block_that_gets_an_unknown_tensor_per_token_is_refused_by_name() -> None:
    backbone = vpt.load_backbone(
        Masked(own=True), inputs=open_tiny("user's keyword transformer").inputs
    )
    with pytest.raises(vpt.errors.PromptError, match="weights"):
        vpt.PromptedModel(backbone, vpt.DeepTokens.like(backbone, count=1), vpt.Linear(24, 2))


def written_out(model: torch.nn.Module, x: Tensor, tokens: Tensor, name: str) -> Tensor:
    """Deep tokens in a model with rotary angles or position biases, its attention written out."""
    if "EVA" in name or "DINOv3" in name:
        z, rope = model._pos_embed(model.patch_embed(x))
        z = model.norm_pre(z)
        for rows, block in zip(tokens, model.blocks, strict=True):
            block.attn.num_prefix_tokens += rows.shape[0]  # timm rotates none of these
            z = block(torch.cat([rows.expand(len(z), -1, -1), z], dim=1), rope=rope)[
                :, rows.shape[0] :
            ]
            block.attn.num_prefix_tokens -= rows.shape[0]
        return model.forward_head(model.norm(z))
    z = torch.cat([model.cls_token.expand(len(x), -1, -1), model.patch_embed(x)], dim=1)
    for rows, block in zip(tokens, model.blocks, strict=True):
        z = torch.cat([rows.expand(len(z), -1, -1), z], dim=1)
        a, (count, size) = block.attn, z.shape[1:]
        bias = torch.cat((a.q_bias, a.k_bias, a.v_bias))
        q, k, v = (
            torch.nn.functional.linear(block.norm1(z), a.qkv.weight, bias)
            .reshape(len(z), count, 3, 2, 16)
            .permute(2, 0, 3, 1, 4)
        )
        positions = torch.zeros(1, 2, count, count)
        positions[:, :, rows.shape[0] :, rows.shape[0] :] = a._get_rel_pos_bias()
        weights = torch.softmax(q @ k.mT / 4 + positions, dim=-1)
        z = z + block.gamma_1 * a.proj((weights @ v).transpose(1, 2).reshape(len(z), count, size))
        z = (z + block.gamma_2 * block.mlp(block.norm2(z)))[:, rows.shape[0] :]
    return model.forward_head(model.norm(z))


@pytest.mark.parametrize("via", ["insert", "record"])
@pytest.mark.parametrize("name", ["timm EVA-02", "timm DINOv3", "timm BEiT"])
def test_rotary_angles_and_position_biases_stay_with_their_tokens(name: str, via: str) -> None:
    backbone = open_tiny(name)
    x = backbone.inputs.example(2)
    prompt = vpt.DeepTokens.like(backbone, count=3)
    torch.nn.init.normal_(prompt.tokens)
    model = vpt.PromptedModel(backbone, prompt, vpt.Identity(), via=via)
    ours = model(x)
    ours.square().sum().backward()
    bare = model.close()
    reference = prompt.tokens.detach().clone().requires_grad_()
    theirs = written_out(bare.requires_grad_(False), backbone.inputs.normalize(x), reference, name)
    theirs.square().sum().backward()
    assert torch.allclose(ours, theirs, rtol=1e-5, atol=1e-5)
    assert (prompt.tokens.grad - reference.grad).norm() / reference.grad.norm() < 1e-5
