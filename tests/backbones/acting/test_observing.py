"""Sites that look on: they see what a block is given, and change nothing."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from families import MODELS, of_each_kind, open_tiny

import vpt
from vpt.sites import Attended, Observe, Tokens


@pytest.mark.parametrize("name", of_each_kind(MODELS))
def test_what_is_seen_is_what_the_block_is_given(name: str) -> None:
    backbone = open_tiny(name)
    x = backbone.inputs.example(2)
    with torch.no_grad():
        bare = backbone.run(x).features
        seen: list[torch.Tensor] = []
        blocks = backbone.blocks
        handle = blocks[1].module.register_forward_pre_hook(
            lambda module, args, kwargs: seen.append((args or tuple(kwargs.values()))[0]),
            with_kwargs=True,
        )
        backbone.run(x)
        handle.remove()
        told: list[torch.Tensor] = []
        attachment = backbone.insert([Observe(1, tokens=told.append)], "insert")
        same = backbone.run(x).features
        attachment.remove()
    assert torch.equal(bare, same)
    given = seen[0].transpose(0, 1) if blocks[1].seq_first else seen[0].flatten(1, -2)
    assert torch.equal(told[-1], given)


def test_it_sees_no_tokens_that_begin_at_its_block() -> None:
    backbone = open_tiny("timm ViT")
    told: list[torch.Tensor] = []
    rows = torch.zeros(1, 3, backbone.widths[1])
    attachment = backbone.insert(
        [Tokens(1, 1, 3, lambda x: rows.expand(len(x), -1, -1)), Observe(1, tokens=told.append)],
        "insert",
    )
    with torch.no_grad():
        backbone.run(backbone.inputs.example(2))
    attachment.remove()
    bare = backbone.record(backbone.inputs.example(2))[1]["tokens"]
    assert told[-1].shape == bare.shape


def test_keys_and_values_are_the_blocks_own() -> None:
    backbone = open_tiny("timm ViT")
    x = backbone.inputs.example(2)
    needed = backbone.record(x)[2]
    told: list[Attended] = []
    attachment = backbone.insert([Observe(2, attention=told.append)])
    with torch.no_grad():
        backbone.run(x)
    attachment.remove()
    seen = told[-1]
    assert torch.allclose(seen.keys, needed["keys"], atol=1e-6)
    assert torch.allclose(seen.values, needed["values"], atol=1e-6)
    assert seen.valid is None
    rows = torch.randn(1, 4, 32)
    block = backbone.blocks[2].module
    query = block.attn.qkv(block.norm1(rows))[..., :32].unflatten(-1, (2, 16)).transpose(1, 2)
    assert torch.allclose(seen.project(rows), query, atol=1e-6)  # after the forward, too


@pytest.mark.parametrize("name", ["timm ViT", "transformers AST base", "transformers wav2vec2"])
def test_sums_of_blocks(name: str) -> None:
    backbone = open_tiny(name)
    x = backbone.inputs.example(3)
    if isinstance(x, tuple):
        x = x[0], torch.tensor([x[0].shape[1], x[0].shape[1] // 2, x[0].shape[1]])
    tokens, sums = {}, {}
    attachment = backbone.insert(
        [
            site
            for place in (1, 3)
            for site in (
                Observe(place, tokens=partial(tokens.__setitem__, place)),
                Observe(place, summary=partial(sums.__setitem__, place)),
            )
        ]
    )
    with torch.no_grad():
        features = backbone.features(x)
    attachment.remove()
    for place in (1, 3):
        found, all_of_them = sums[place], tokens[place]
        assert found.shape == (3, 2, 32)
        if "wav2vec2" in name:
            valid = backbone._valid(x[1])(all_of_them.shape[1]).tolist()
            assert valid[1] < valid[0]
            for i, count in enumerate(valid):
                own = all_of_them[i, :count]
                assert torch.allclose(found[i, 0], own.mean(0), atol=1e-5)
                assert torch.allclose(found[i, 1], own.std(0, correction=0), atol=1e-4)
        else:
            assert torch.equal(found[:, 0], all_of_them[:, 0])
            assert torch.allclose(found[:, 1], all_of_them[:, 1:].mean(1), atol=1e-6)
    if name == "timm ViT":  # behind the last block, which is not narrowed then
        assert torch.allclose(backbone.model.norm(sums[3][:, 0]), features, atol=1e-5)


def test_blocks_that_are_not_there_and_calls_that_never_come() -> None:
    backbone = open_tiny("timm ViT")
    with pytest.raises(vpt.errors.PromptError, match="block 9"):
        backbone.insert([Observe(9, tokens=lambda x: None)])
    attachment = backbone.insert([Observe(1, tokens=lambda x: None)])
    backbone.blocks[1].module.forward, real = (
        lambda x, **others: x,
        backbone.blocks[1].module.forward,
    )
    with torch.no_grad():
        backbone.run(backbone.inputs.example(1))  # another forward is still seen
    backbone.blocks[1].module.forward = real
    attachment._handles[0].remove()
    with pytest.raises(vpt.errors.PromptError, match=r"What looks at block .*reached nothing"):
        backbone.run(backbone.inputs.example(1))
    attachment.remove()
