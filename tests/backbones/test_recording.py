"""Deep tokens as keys and values: the same function as tokens that go through the blocks, and Swin's windows written out."""

from __future__ import annotations

import math

import pytest
import torch
from families import MODELS, open_tiny, refusal
from torch import Tensor, nn

import vpt

BOTH = [name for name in MODELS if not any(refusal(name, form) for form in ("shallow", "prefix"))]


def outcome(backbone: vpt.Backbone, prompt: vpt.Prompt, exact: str) -> tuple[Tensor, list[Tensor]]:
    """Features, and the gradient of each of the prompt's parameters."""
    prompt.zero_grad()
    model = vpt.PromptedModel(backbone, prompt, vpt.Linear(backbone.out_features, 2), exact=exact)
    features = backbone.features(backbone.inputs.example(3))
    weights = torch.randn(features.shape, generator=torch.Generator().manual_seed(1))
    (features * weights).sum().backward()
    model.close()
    return features.detach(), [p.grad.clone() for p in prompt.parameters()]


def equal(a: Tensor, b: Tensor) -> bool:
    return float((a - b).detach().norm() / b.detach().norm()) < 1e-5


@pytest.mark.parametrize("name", BOTH)
def test_recorded_equals_inserted_in_output_and_gradient(name: str) -> None:
    backbone = open_tiny(name)
    deep = vpt.DeepTokens.like(backbone, count=3)
    for tokens in deep.parameters():
        nn.init.normal_(tokens, std=0.5)
    stack = vpt.Stack([vpt.Border.like(backbone, width=2, init="uniform"), vpt.ShallowTokens.like(backbone, 2), deep])
    for prompt in (deep, stack):
        inserted, recorded = outcome(backbone, prompt, "insert"), outcome(backbone, prompt, "record")
        assert equal(recorded[0], inserted[0])
        assert all(equal(a, b) for a, b in zip(recorded[1], inserted[1], strict=True))


def test_dropout_per_sample_is_recorded_per_sample() -> None:
    backbone = open_tiny("timm ViT")
    prompt = vpt.DeepTokens.like(backbone, count=4, dropout=0.5)
    found = []
    for exact in ("insert", "record"):
        model = vpt.PromptedModel(backbone, prompt, vpt.Linear(32, 2), exact=exact).train()
        torch.manual_seed(3)
        found.append(backbone.features(backbone.inputs.example(1).repeat(3, 1, 1, 1)))
        model.close()
    assert not torch.allclose(found[0][0], found[0][1])
    assert equal(found[1], found[0])


def test_an_unknown_way_and_blocks_without_sdpa_are_refused() -> None:
    backbone = open_tiny("timm CaiT")
    prompt = vpt.DeepTokens.like(backbone, count=2)
    with pytest.raises(vpt.errors.PromptError, match="exact='fast'"):
        vpt.PromptedModel(backbone, prompt, vpt.Identity(), exact="fast")
    with pytest.raises(vpt.errors.PromptError, match="never called"):
        vpt.PromptedModel(backbone, prompt, vpt.Identity(), exact="record")
    assert backbone.attachment is None


def windows_by_hand(block: nn.Module, z: Tensor, rows: Tensor) -> Tensor:
    """timm's Swin block on `[B,H,W,C]` with prompts `[P,C]` in every window, position by position and window by window."""
    size, shift, attn = 4, block.shift_size[0], block.attn
    own, extra = block.norm1(z), block.norm1(rows)
    height, width, heads = z.shape[1], z.shape[2], attn.num_heads
    out = torch.zeros_like(z)
    for sample in range(len(z)):
        for top in range(0, height, size):
            for left in range(0, width, size):
                places = [((top + i + shift) % height, (left + j + shift) % width) for i in range(size) for j in range(size)]
                tokens = torch.cat([extra, torch.stack([own[sample, r, c] for r, c in places])])
                q, k, v = attn.qkv(tokens).reshape(len(tokens), 3, heads, -1).permute(1, 2, 0, 3)
                scores = q @ k.mT / math.sqrt(q.shape[-1])
                seen = torch.zeros_like(scores)
                count = len(extra)
                seen[:, count:, count:] = attn._get_rel_pos_bias()[0]
                if shift:  # tokens that the roll brought together from two sides do not see one another
                    side = [(top + i >= height - shift, left + j >= width - shift) for i in range(size) for j in range(size)]
                    apart = torch.tensor([[-100.0 * (a != b) for b in side] for a in side])
                    seen[:, count:, count:] += apart
                mixed = torch.softmax(scores + seen, dim=-1) @ v
                answer = attn.proj(mixed.transpose(0, 1).flatten(1))[count:]
                for (r, c), value in zip(places, answer, strict=True):
                    out[sample, r, c] = value
    z = z + out
    return z + block.mlp(block.norm2(z))


def test_deep_tokens_of_swin_equal_windows_written_out() -> None:
    backbone = open_tiny("timm Swin")
    prompt = vpt.DeepTokens.like(backbone, count=3)
    for tokens in prompt.tokens:
        nn.init.normal_(tokens)
    x = backbone.inputs.example(2)
    model = vpt.PromptedModel(backbone, prompt, vpt.Identity())
    ours = model(x)
    ours.square().sum().backward()
    bare = model.close().requires_grad_(False)
    found = [p.grad.clone() for p in prompt.parameters()]
    prompt.zero_grad()
    z, rows = bare.patch_embed(backbone.inputs.normalize(x)), iter(prompt.tokens)
    for stage in bare.layers:
        z = stage.downsample(z)
        for block in stage.blocks:
            z = windows_by_hand(block, z, next(rows))
    theirs = bare.forward_head(bare.norm(z))
    theirs.square().sum().backward()
    assert equal(ours, theirs)
    assert all(equal(a, p.grad) for a, p in zip(found, prompt.parameters(), strict=True))


def test_timm_and_transformers_swin_agree_under_the_same_prompt() -> None:
    ours, theirs = (open_tiny(name) for name in ("timm Swin", "transformers Swin"))
    for name, prompt in (("deep", vpt.DeepTokens), ("prefix", vpt.Prefix)):
        one, other = prompt.like(ours, count=2, seed=1), prompt.like(theirs, count=2, seed=1)
        assert [tuple(p.shape) for p in one.parameters()] == [tuple(p.shape) for p in other.parameters()], name


def test_rows_per_sample_reach_all_windows_of_their_sample() -> None:
    backbone = open_tiny("timm Swin")
    x = backbone.inputs.example(2)
    rows = torch.randn(2, 2, 16)
    attachment = backbone.insert([vpt.sites.Tokens(0, 0, 2, lambda x: rows[: len(x)])])
    both = backbone.features(x)
    attachment.remove()
    for i in range(2):
        attachment = backbone.insert([vpt.sites.Tokens(0, 0, 2, lambda x, i=i: rows[i : i + 1])])
        assert torch.allclose(backbone.features(x[i : i + 1])[0], both[i], atol=1e-5)
        attachment.remove()
