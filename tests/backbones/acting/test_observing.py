"""Sites that look on: they see what a block is given, and change nothing."""

from __future__ import annotations

import pytest
import torch
from families import MODELS, of_each_kind, open_tiny

import vpt
from vpt.sites import Observe, Tokens


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
    told: dict[str, torch.Tensor] = {}
    attachment = backbone.insert(
        [Observe(2, keys_values=lambda keys, values: told.update(keys=keys, values=values))]
    )
    with torch.no_grad():
        backbone.run(x)
    attachment.remove()
    for name, value in told.items():
        assert torch.allclose(value, needed[name], atol=1e-6)


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
