"""Deep tokens as keys and values: the same function as tokens that go through the blocks, and
Swin's windows written out.
"""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from families import MODELS, of_each_kind, open_tiny, refusal
from helpers import example
from torch import Tensor, nn

import vpt

BOTH = [name for name in MODELS if not any(refusal(name, form) for form in ("shallow", "prefix"))]
FEWER = [name for name in BOTH if "shared" not in name and "base" not in name]


def deep(backbone: vpt.Backbone, count: int = 3) -> vpt.DeepTokens:
    prompt = vpt.DeepTokens.like(backbone, count)
    for tokens in prompt.parameters():
        nn.init.normal_(tokens, std=0.5)
    return prompt


def outcome(
    backbone: vpt.Backbone, prompt: vpt.Prompt, via: str, x: Any = None
) -> tuple[Tensor, list[Tensor]]:
    """Features, and the gradient of each of the prompt's parameters."""
    prompt.zero_grad()
    model = vpt.PromptedModel(backbone, prompt, vpt.Linear(backbone.out_features, 2), via=via)
    features = backbone.features(example(backbone) if x is None else x)
    weights = torch.randn(features.shape, generator=torch.Generator().manual_seed(1))
    (features * weights).sum().backward()
    model.close()
    return features.detach(), [p.grad.clone() for p in prompt.parameters()]


def off(a: Tensor, b: Tensor) -> float:
    return float((a.float() - b.float()).detach().norm() / b.float().detach().norm())


def equal(a: Tensor, b: Tensor) -> bool:
    return off(a, b) < 1e-5


@pytest.mark.parametrize("name", BOTH)
def test_recorded_equals_inserted_in_output_and_gradient(name: str) -> None:
    backbone = open_tiny(name)
    tokens = deep(backbone)
    stack = vpt.Stack(
        [
            vpt.Border.like(backbone, width=2, init="uniform"),
            vpt.ShallowTokens.like(backbone, 2),
            tokens,
        ]
    )
    beside = vpt.Stack([tokens, vpt.Prefix.like(backbone, 2)])
    for prompt in (tokens, stack, beside):
        inserted = outcome(backbone, prompt, "insert")
        for via in ("record", "auto"):
            recorded = outcome(backbone, prompt, via)
            assert equal(recorded[0], inserted[0])
            assert all(equal(a, b) for a, b in zip(recorded[1], inserted[1], strict=True))


@pytest.mark.parametrize(
    "name",
    [
        name
        for name in BOTH
        if any(kind in name for kind in ("AST", "wav2vec2", "HuBERT", "Whisper"))
    ],
)
def test_recorded_equals_inserted_where_clips_have_padding(name: str) -> None:
    backbone = open_tiny(name)
    prompt, x = deep(backbone), example(backbone, padded=True)
    inserted, recorded = (outcome(backbone, prompt, via, x) for via in ("insert", "auto"))
    assert equal(recorded[0], inserted[0])
    assert all(equal(a, b) for a, b in zip(recorded[1], inserted[1], strict=True))


@pytest.mark.parametrize("low", ["autocast", "bf16 weights"])
@pytest.mark.parametrize("name", of_each_kind(FEWER))
def test_recorded_is_as_near_as_inserted_in_bf16(name: str, low: str) -> None:
    backbone = open_tiny(name)
    prompt = deep(backbone)
    true, found = outcome(backbone, prompt, "insert"), []
    if low == "bf16 weights":
        backbone.model.to(torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16, enabled=low == "autocast"):
        for via in ("insert", "auto"):
            features, gradients = outcome(backbone, prompt, via)
            found.append([off(features, true[0]), *map(off, gradients, true[1])])
    for inserted, recorded in zip(*found, strict=True):
        assert recorded < 1.5 * inserted + 0.004, found  # 2 ** -8, the rounding of bf16


@pytest.mark.parametrize("name", BOTH)
def test_inference_mode_changes_nothing(name: str) -> None:
    backbone = open_tiny(name)
    x = example(backbone)
    with vpt.PromptedModel(backbone, deep(backbone), vpt.Linear(backbone.out_features, 2)) as model:
        out = model(x)
        with torch.inference_mode():
            assert torch.equal(model(x), out)


def test_twenty_steps_give_the_same_prompt() -> None:
    found = []
    for via in ("insert", "auto"):
        backbone = open_tiny("timm ViT")
        prompt = deep(backbone)
        model = vpt.PromptedModel(backbone, prompt, vpt.Identity(), via=via)
        optimizer = torch.optim.AdamW(prompt.parameters(), lr=0.01)
        for step in range(20):
            generator = torch.Generator().manual_seed(step)
            x, y = (
                torch.rand(8, 3, 32, 32, generator=generator),
                torch.randint(5, (8,), generator=generator),
            )
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
            optimizer.zero_grad()
        found.append(prompt.tokens.detach())
    assert off(found[0], deep(open_tiny("timm ViT")).tokens) > 0.05  # it learned
    assert torch.allclose(found[1], found[0], rtol=0, atol=1e-4)


def test_auto_records_where_that_can_be_and_inserts_elsewhere() -> None:
    for name, acting in (("timm ViT", "Recording"), ("timm CaiT", "Insertion")):
        backbone = open_tiny(name)
        for prompt, needed in (
            (deep(backbone), acting),
            (vpt.ShallowTokens.like(backbone, 2), "Insertion"),
        ):
            with vpt.PromptedModel(backbone, prompt, vpt.Identity()) as model:
                assert needed in {type(actor).__name__ for actor in model.attachment._actors}


def test_rows_sent_for_their_keys_stop_there() -> None:
    backbone = open_tiny("timm ViT")
    seen: list[int] = []

    def watched(forward):
        return lambda x: seen.append(x.shape[1]) or forward(x)

    # a hook would see all tokens: nothing is left out before others' eyes
    for block in backbone.blocks:
        block.module.mlp.forward = watched(block.module.mlp.forward)
    with vpt.PromptedModel(backbone, deep(backbone), vpt.Identity()) as model:
        seen.clear()
        model(example(backbone))
    # never the prompt's own 3 rows; in the last block only the class token
    assert seen == [17, 17, 1]


@pytest.mark.parametrize(
    "name", ["timm ViT", "timm Swin", "timm BEiT", "transformers AST", "torchvision ViT"]
)
def test_baked_keys_and_values_are_the_same_and_stay(name: str) -> None:
    backbone = open_tiny(name)
    prompt, x = deep(backbone), example(backbone)
    model = vpt.PromptedModel(backbone, prompt, vpt.Linear(backbone.out_features, 2)).eval()
    nn.init.normal_(model.readout.weight)
    out, norms = model(x), 0

    def count(*_: Any) -> None:
        nonlocal norms
        norms += 1

    handles = [
        module.register_forward_hook(count)
        for module in backbone.model.modules()
        if isinstance(module, nn.LayerNorm)
    ]
    with torch.inference_mode():
        model(x)
        plain, norms = norms, 0
        with model.baked():
            norms = 0
            assert equal(model(x), out)
            # each block's norm no longer sees prompt rows
            assert norms <= plain - len(backbone.blocks)
            prompt.zero_grad()
            for tokens in prompt.parameters():
                tokens.mul_(0)
            assert equal(model(x), out)  # what was computed on entry holds
        assert not equal(model(x), out)
    for handle in handles:
        handle.remove()


def test_a_copy_of_a_baked_model_is_not_baked_and_none_learns() -> None:
    backbone = open_tiny("timm ViT")
    x = example(backbone)
    with vpt.PromptedModel(backbone, deep(backbone), vpt.Identity()).eval() as model:
        with model.baked():
            twin = copy.deepcopy(model)
            with pytest.raises(vpt.errors.PromptError, match=r"torch\.no_grad\(\)"):
                model(x)
        with torch.no_grad():
            before = twin(x)
            twin.prompt.tokens.mul_(-3)
            assert not equal(twin(x), before)


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_rows_stay_shared_where_weights_are_rounded(dtype: str) -> None:
    backbone = vpt.load_backbone("vpt:vit-p8-64", dtype=dtype)
    seen: list[int] = []
    model = vpt.PromptedModel(backbone, vpt.DeepTokens.like(backbone, 3), vpt.Identity()).eval()
    backbone.blocks[0].module.norm1.register_forward_hook(
        lambda module, args, output: seen.append(len(args[0]))
    )
    with torch.no_grad():
        out = model(backbone.inputs.example(4))
        with model.baked():
            assert near(model(backbone.inputs.example(4)), out)
    assert seen[:2] == [1, 4]  # the prompt's rows once, for all samples


def near(a: Tensor, b: Tensor) -> bool:
    return off(a, b) < 0.01


def test_what_cannot_be_baked_says_so() -> None:
    backbone = open_tiny("timm ViT")
    model = vpt.PromptedModel(
        backbone, vpt.DeepTokens.like(backbone, 2, dropout=0.5), vpt.Identity()
    ).train()
    with pytest.raises(vpt.errors.PromptError, match=r"model\.eval\(\)"), model.baked():
        pass
    rows = torch.randn(5, 2, 32)
    model.close()
    attachment = backbone.insert([vpt.sites.Tokens(0, 0, 2, lambda x: rows[: len(x)])])
    run = lambda: backbone.run(backbone.inputs.example(2))  # noqa: E731
    with (
        pytest.raises(vpt.errors.PromptError, match="differ from sample to sample"),
        attachment.baked(run),
    ):
        pass
    assert backbone.features(example(backbone)).shape == (3, 32)


def test_dropout_per_sample_is_recorded_per_sample() -> None:
    backbone = open_tiny("timm ViT")
    prompt = vpt.DeepTokens.like(backbone, count=4, dropout=0.5)
    found = []
    for via in ("insert", "record"):
        model = vpt.PromptedModel(backbone, prompt, vpt.Linear(32, 2), via=via).train()
        torch.manual_seed(3)
        found.append(backbone.features(backbone.inputs.example(1).repeat(3, 1, 1, 1)))
        model.close()
    assert not torch.allclose(found[0][0], found[0][1])
    assert equal(found[1], found[0])


def test_an_unknown_way_and_blocks_without_sdpa_are_refused() -> None:
    backbone = open_tiny("timm CaiT")
    prompt = vpt.DeepTokens.like(backbone, count=2)
    with pytest.raises(vpt.errors.PromptError, match="via='fast'"):
        vpt.PromptedModel(backbone, prompt, vpt.Identity(), via="fast")
    with pytest.raises(vpt.errors.PromptError, match="never called"):
        vpt.PromptedModel(backbone, prompt, vpt.Identity(), via="record")
    assert backbone.attachment is None


def windows_by_hand(block: nn.Module, z: Tensor, rows: Tensor) -> Tensor:
    """timm's Swin block on `[B,H,W,C]` with prompts `[P,C]` in every window, position by position
    and window by window.
    """
    size, shift, attn = 4, block.shift_size[0], block.attn
    own, extra = block.norm1(z), block.norm1(rows)
    height, width, heads = z.shape[1], z.shape[2], attn.num_heads
    out = torch.zeros_like(z)
    for sample in range(len(z)):
        for top in range(0, height, size):
            for left in range(0, width, size):
                places = [
                    ((top + i + shift) % height, (left + j + shift) % width)
                    for i in range(size)
                    for j in range(size)
                ]
                tokens = torch.cat([extra, torch.stack([own[sample, r, c] for r, c in places])])
                q, k, v = attn.qkv(tokens).reshape(len(tokens), 3, heads, -1).permute(1, 2, 0, 3)
                scores = q @ k.mT / math.sqrt(q.shape[-1])
                seen = torch.zeros_like(scores)
                count = len(extra)
                seen[:, count:, count:] = attn._get_rel_pos_bias()[0]
                # tokens that the roll brought together from two sides do not see one another
                if shift:
                    side = [
                        (top + i >= height - shift, left + j >= width - shift)
                        for i in range(size)
                        for j in range(size)
                    ]
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
        assert [tuple(p.shape) for p in one.parameters()] == [
            tuple(p.shape) for p in other.parameters()
        ], name


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
