"""Queries: the same as a token that is inserted, and that a mask hides from all others."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import pytest
import torch
from families import MODELS, open_tiny, refusal
from helpers import example
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

import vpt
from vpt.backbones.acting.masks import seen_by_any
from vpt.backbones.finding.structure import fused
from vpt.sites import Queries, Tokens

READABLE = [name for name in MODELS if not refusal(name, "prefix")]
PLAIN = [name for name in READABLE if "Swin" not in name]


def opened(name: str) -> vpt.Backbone:
    """A tiny backbone whose attention matters: its random weights are much larger than usual."""
    backbone = open_tiny(name)
    with torch.no_grad():
        for block in backbone.blocks:
            for weight in block.attention.parameters():
                if weight.ndim == 2:
                    weight.mul_(6)
    return backbone


def rows_for(backbone: vpt.Backbone, block: int, count: int = 3) -> Tensor:
    made = torch.randn(1, count, backbone.widths[block], generator=torch.Generator().manual_seed(5))
    return made.to(backbone.dtype).requires_grad_()


def read(
    backbone: vpt.Backbone, block: int, rows: Tensor, whole: bool, x: Any
) -> tuple[Tensor, Tensor]:
    """(what the rows read, the features of the model meanwhile)."""
    got: list[Tensor] = []
    site = Queries(block, rows.shape[1], lambda _: rows, got.append, whole)
    attachment = backbone.insert([site])
    try:
        got.clear()
        features = backbone.features(x)
    finally:
        attachment.remove()
    (out,) = got
    return out, features


class Hidden(TorchFunctionMode):
    """Inside, the first `count` tokens of an attention are hidden from all, and from each other."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count

    def closed(self, rows: int, columns: int, like: Tensor, mask: Any) -> Tensor:
        bias = like.new_zeros(rows, columns)
        bias[:, : self.count] = float("-inf")
        if mask is None:
            return bias
        if mask.dtype == torch.bool:
            mask = torch.zeros_like(mask, dtype=like.dtype).masked_fill(~mask, float("-inf"))
        missing = (columns - mask.shape[-1], rows - mask.shape[-2])
        pads = [n if size > 1 else 0 for n, size in zip(missing, mask.shape[:-3:-1], strict=True)]
        valid = seen_by_any(mask)[..., 0, :]
        mask = F.pad(mask, (pads[0], 0, pads[1], 0))
        if mask.ndim == 4:  # a query has no place, so no bias: it sees what is valid
            mask = mask.expand(*mask.shape[:2], rows, columns).clone()
            mask[:, :, : self.count] = 0
            hidden = ~F.pad(valid, (columns - valid.shape[-1], 0), value=True)
            mask[:, :, : self.count].masked_fill_(hidden[:, :, None], float("-inf"))
        return mask + bias

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func is F.scaled_dot_product_attention:
            query, key, value, *rest = args
            mask = rest[0] if rest else kwargs.pop("attn_mask", None)
            closed = self.closed(query.shape[-2], key.shape[-2], query, mask)
            return func(query, key, value, attn_mask=closed, **kwargs)
        if func is F.multi_head_attention_forward:
            kwargs["attn_mask"] = self.closed(len(args[0]), len(args[1]), args[0], None)
        return func(*args, **kwargs)


def hidden_token(backbone: vpt.Backbone, block: int, rows: Tensor, x: Any) -> Tensor:
    """The slow way: the rows go into the block with the tokens, under a mask that hides them. What
    leaves the block in their places.
    """
    count, first = rows.shape[1], backbone.blocks[block].seq_first
    seen: list[Tensor] = []
    modes: list[ExitStack] = []

    def enter(*_: Any) -> None:
        modes.append(ExitStack())
        modes[-1].enter_context(Hidden(count))

    def leave(*_: Any) -> None:
        modes.pop().close()

    def take(module: nn.Module, args: Any, output: Any) -> None:
        out = output[0] if isinstance(output, tuple) else output
        seen.append(out[:count].transpose(0, 1) if first else out[:, :count])

    site = Tokens(block, block, count, lambda x: rows.expand(len(x), -1, -1))
    attachment = backbone.insert([site], "insert")
    attention = backbone.blocks[block].attention
    handles = [
        backbone.blocks[block].module.register_forward_hook(take, prepend=True),
        attention.register_forward_pre_hook(enter),
        attention.register_forward_hook(leave, prepend=True, always_call=True),
    ]
    try:
        with fused(attention):
            backbone.features(x)
    finally:
        for handle in handles:
            handle.remove()
        attachment.remove()
    return seen[0]


ROUNDING = 5e-5  # processors differ: 1.8e-5 was seen


def off(a: Tensor, b: Tensor) -> float:
    return float((a.float() - b.float()).detach().norm() / b.float().detach().norm())


@pytest.mark.parametrize("name", READABLE)
def test_the_model_is_bit_for_bit_as_it_is(name: str) -> None:
    backbone = opened(name)
    x = example(backbone)
    bare = backbone.features(x)
    for block in (0, backbone.depth - 1):
        for whole in (False,) if "Swin" in name else (False, True):
            out, features = read(backbone, block, rows_for(backbone, block), whole, x)
            assert torch.equal(features, bare)
            assert out.requires_grad
            assert len(out) == 3


@pytest.mark.parametrize("name", [*PLAIN, "torch encoder [N,B,D]"])
def test_a_query_is_a_token_that_a_mask_hides_from_all_others(name: str) -> None:
    backbone = opened(name)
    x = example(backbone)
    for block in (0, backbone.depth - 1):
        rows = rows_for(backbone, block)
        found, slow = (
            read(backbone, block, rows, True, x)[0],
            hidden_token(backbone, block, rows, x),
        )
        assert off(found, slow) < ROUNDING
        weights = torch.randn(found.shape, generator=torch.Generator().manual_seed(1))
        (mine,) = torch.autograd.grad((found * weights).sum(), rows)
        (theirs,) = torch.autograd.grad((slow * weights).sum(), rows)
        assert off(mine, theirs) < ROUNDING


@pytest.mark.parametrize(
    "name", ["transformers wav2vec2", "transformers AST", "transformers HuBERT"]
)
def test_padding_is_not_read(name: str) -> None:
    backbone = opened(name)
    x = example(backbone, padded=True)
    rows = rows_for(backbone, 1)
    found = read(backbone, 1, rows, True, x)[0]
    assert off(found, hidden_token(backbone, 1, rows, x)) < ROUNDING
    if "wav2vec2" in name:  # whose padding is hidden by a mask
        assert off(found, read(backbone, 1, rows, True, example(backbone))[0]) > 1e-3


@pytest.mark.parametrize("name", ["timm ViT", "transformers Whisper encoder", "timm EVA-02"])
def test_in_bf16_the_model_is_as_it_is_too(name: str) -> None:
    backbone = opened(name)
    backbone.round_weights(torch.bfloat16)
    x = example(backbone)
    bare, rows = backbone.features(x), rows_for(backbone, 1)
    for whole in (True, False):
        found, features = read(backbone, 1, rows, whole, x)
        assert torch.equal(features, bare)
        assert found.dtype == torch.bfloat16
    assert (
        off(found := read(backbone, 1, rows, True, x)[0], hidden_token(backbone, 1, rows, x)) < 2e-2
    )


def test_the_heads_alone_are_the_equation() -> None:
    backbone = opened("timm ViT")
    x, block = example(backbone), backbone.blocks[1].module
    rows = rows_for(backbone, 1)
    found = read(backbone, 1, rows, False, x)[0]
    tokens = backbone.record(x)[1]["tokens"]
    qkv, heads, size = block.attn.qkv, 2, 16
    query = qkv(block.norm1(rows)).chunk(3, -1)[0].unflatten(-1, (heads, size)).transpose(1, 2)
    own = qkv(block.norm1(tokens)).chunk(3, -1)[1:]
    key, value = (part.unflatten(-1, (heads, size)).transpose(1, 2) for part in own)
    weights = torch.softmax(query @ key.mT / size**0.5, dim=-1)
    assert off(found, (weights @ value).transpose(1, 2).flatten(2)) < ROUNDING


@pytest.mark.parametrize("name", ["timm Swin", "transformers Swin"])
def test_windows_are_read_one_by_one_and_averaged(name: str) -> None:
    backbone = opened(name)
    x, rows = example(backbone), rows_for(backbone, 1)
    found = read(backbone, 1, rows, False, x)[0]
    kept = backbone.record(x)[1]
    block = backbone.blocks[1]
    heads, size = block.heads, block.head_dim
    attention = block.attention
    if hasattr(attention, "qkv"):
        query = attention.qkv(block.norm(rows)).chunk(3, -1)[0]
    else:
        query = next(m for n, m in attention.named_modules() if n.endswith(("q_proj", "query")))(
            block.norm(rows)
        )
    query = query.unflatten(-1, (heads, size)).transpose(1, 2)
    weights = torch.softmax(query @ kept["keys"].mT / size**0.5, dim=-1)
    each = (weights @ kept["values"]).transpose(1, 2).flatten(2).unflatten(0, (3, -1))
    assert each.shape[1] > 1
    assert off(found, each.mean(1)) < ROUNDING
    with pytest.raises(vpt.errors.PromptError, match=r"into windows.*through the rest"):
        backbone.insert([Queries(1, 3, lambda _: rows, lambda _: None, True)])


@pytest.mark.parametrize(
    "name", ["timm ViT", "transformers BEiT", "transformers wav2vec2", "torchvision ViT"]
)
def test_beside_other_prompts_the_models_own_tokens_are_read(name: str) -> None:
    backbone = opened(name)
    x = example(backbone)
    deep = vpt.DeepTokens.like(backbone, 2)
    nn.init.normal_(deep.tokens, std=0.5)
    for first in ([], list(vpt.ShallowTokens.like(backbone, 2).sites())):
        found = {}
        for via in ("record", "insert"):
            rows, got = rows_for(backbone, 2), []
            site = Queries(2, 3, lambda _, rows=rows: rows, got.append)
            attachment = backbone.insert([*first, *deep.sites(), site], via)
            got.clear()
            backbone.run(x)
            attachment.remove()
            (found[via],) = got
        assert off(found["record"], found["insert"]) < ROUNDING
        assert off(found["record"], read(backbone, 2, rows, True, x)[0]) > 1e-3  # the trunk changed


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("CNN", "has no transformer blocks"),
        ("timm CaiT", "never called torch's scaled_dot_product_attention"),
        ("transformers CLAP audio", "never called torch's scaled_dot_product_attention"),
    ],
)
def test_models_whose_attention_is_not_seen_are_refused(name: str, words: str) -> None:
    backbone = open_tiny(name)
    with pytest.raises(vpt.errors.VptError, match=words):
        vpt.QueryTokens.like(backbone)
    if backbone.depth:
        with pytest.raises(vpt.errors.PromptError, match=words):
            backbone.insert(
                [Queries(1, 1, lambda x: x.new_zeros(1, 1, x.shape[-1]), lambda _: None)]
            )


def test_rows_of_another_width_and_blocks_out_of_range_are_refused() -> None:
    backbone = open_tiny("timm ViT")
    with pytest.raises(vpt.errors.PromptError, match=r"Found queries \[1, 1, 7\]"):
        backbone.insert([Queries(1, 1, lambda x: torch.zeros(1, 1, 7), lambda _: None)])
    with pytest.raises(vpt.errors.PromptError, match="has blocks 0 to 2"):
        backbone.insert([Queries(3, 1, lambda x: x[:, :1], lambda _: None)])
