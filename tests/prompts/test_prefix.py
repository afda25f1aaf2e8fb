"""Prefix: shapes, initialisation, configs, wrong input. (Its mathematics:
tests/backbones/test_interception.py.)
"""

from __future__ import annotations

import pytest
import torch
from families import open_tiny

import vpt


@pytest.fixture(scope="module")
def backbone() -> vpt.Backbone:
    return open_tiny("timm ViT")


def test_shapes_config_and_parameters(backbone: vpt.Backbone) -> None:
    prompt = vpt.Prefix.like(backbone, count=5)
    assert prompt.keys.shape == prompt.values.shape == (3, 2, 5, 16)
    assert sum(p.numel() for p in prompt.parameters()) == 2 * 3 * 5 * 32
    again = vpt.Prefix(**prompt.config())
    again.load_state_dict(prompt.state_dict())


def test_data_rows_are_the_models_own_keys_and_values(backbone: vpt.Backbone) -> None:
    x = backbone.inputs.example(3)
    prompt = vpt.Prefix.like(backbone, count=4, init="data", examples=x)
    model = backbone.model
    z = model.norm_pre(model._pos_embed(model.patch_embed(backbone.inputs.normalize(x))))
    for i, block in enumerate(model.blocks):
        qkv = block.attn.qkv(block.norm1(z)).unflatten(2, (3, 2, 16))
        own_keys, own_values = (qkv[:, :, j].flatten(0, 1) for j in (1, 2))
        for row in range(4):
            same = (own_keys - prompt.keys[i, :, row]).abs().amax((1, 2)) < 1e-4
            assert same.any()
            # of the same token
            assert torch.allclose(own_values[same][0], prompt.values[i, :, row], atol=1e-4)
        z = block(z)


def test_a_zero_prefix_takes_attention_but_adds_nothing(backbone: vpt.Backbone) -> None:
    prompt = vpt.Prefix.like(backbone, count=2, init="zeros")
    assert not prompt.keys.any()
    assert not prompt.values.any()


def test_wrong_input(backbone: vpt.Backbone) -> None:
    for call, message in (
        (lambda: vpt.Prefix.like(backbone, count=-1), "count=-1"),
        (lambda: vpt.Prefix.like(backbone, init="data"), "examples"),
        (lambda: vpt.Prefix.like(backbone, blocks=[7]), "0 to 2"),
        (lambda: vpt.Prefix.like(backbone, dropout=-0.1), "dropout"),
    ):
        with pytest.raises(vpt.errors.PromptError, match=message):
            call()
