"""Shallow and deep tokens: shapes, initialisation, dropout, configs, wrong input."""

from __future__ import annotations

import math

import pytest
import torch
from families import open_tiny

import vpt
from vpt.errors import PromptError


@pytest.fixture(scope="module")
def backbone() -> vpt.Backbone:
    return open_tiny("timm ViT")


def test_shapes_and_configs(backbone: vpt.Backbone) -> None:
    shallow, deep = (
        vpt.ShallowTokens.like(backbone, count=4),
        vpt.DeepTokens.like(backbone, count=4, blocks=[0, 2]),
    )
    assert shallow.tokens.shape == (4, 32)
    assert deep.tokens.shape == (2, 4, 32)
    for prompt in (shallow, deep):
        again = type(prompt)(**prompt.config())
        again.load_state_dict(prompt.state_dict())
        assert again.config() == prompt.config()


def test_widths_that_differ_give_a_list() -> None:
    prompt = vpt.DeepTokens(2, [8, 16], [0, 1])
    assert [list(p.shape) for p in prompt.tokens] == [[2, 8], [2, 16]]
    assert [
        site.make(torch.zeros(3, 5, w)).shape
        for site, w in zip(prompt.sites(), (8, 16), strict=True)
    ] == [
        (3, 2, 8),
        (3, 2, 16),
    ]


def test_uniform_bound_is_the_papers(backbone: vpt.Backbone) -> None:
    tokens = vpt.DeepTokens.like(backbone, count=200).tokens
    bound = math.sqrt(6 / (3 * 8 * 8 + 32))
    assert tokens.abs().max() <= bound
    assert tokens.abs().max() > 0.99 * bound
    assert abs(float(tokens.detach().mean())) < 0.01
    assert torch.equal(tokens, vpt.DeepTokens.like(backbone, count=200).tokens)
    assert not torch.equal(tokens, vpt.DeepTokens.like(backbone, count=200, seed=1).tokens)


def test_zeros_and_data(backbone: vpt.Backbone) -> None:
    assert not vpt.DeepTokens.like(backbone, count=2, init="zeros").tokens.any()
    x = backbone.inputs.example(3)
    prompt = vpt.DeepTokens.like(backbone, count=5, init="data", examples=x)
    model = backbone.model
    z = model.norm_pre(model._pos_embed(model.patch_embed(backbone.inputs.normalize(x))))
    for block, rows in zip(model.blocks, prompt.tokens, strict=True):
        own = z.flatten(0, 1)
        assert ((rows[:, None] - own).abs().amax(2).min(1).values < 1e-4).all()
        z = block(z)
    # more than there are: with replacement
    many = vpt.ShallowTokens.like(backbone, count=100, init="data", examples=x[:1])
    assert many.tokens.shape == (100, 32)


def test_dropout_differs_per_sample_and_only_in_training(backbone: vpt.Backbone) -> None:
    prompt = vpt.ShallowTokens.like(backbone, count=4, dropout=0.5)
    x = torch.zeros(2, 3, 32)
    made = prompt.make(x)
    assert not torch.equal(made[0], made[1])
    assert 0.3 < float((made == 0).float().mean()) < 0.7
    assert torch.equal(prompt.eval().make(x)[0], prompt.tokens)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda b: vpt.DeepTokens.like(b, count=0), "count=0"),
        (lambda b: vpt.DeepTokens.like(b, count=2.5), "count=2.5"),
        (lambda b: vpt.DeepTokens.like(b, count=True), "count=True"),
        (lambda b: vpt.DeepTokens.like(b, blocks=[3]), "0 to 2"),
        (lambda b: vpt.DeepTokens.like(b, blocks=[-1]), "0 to 2"),
        (lambda b: vpt.DeepTokens.like(b, blocks=[]), "0 to 2"),
        (lambda b: vpt.DeepTokens.like(b, dropout=1.0), "dropout"),
        (lambda b: vpt.DeepTokens.like(b, init="ones"), "'uniform', 'zeros', 'data' or 'means'"),
        (lambda b: vpt.ShallowTokens.like(b, init="data"), "examples"),
        (lambda b: vpt.DeepTokens(2, [8], [0, 1]), "width"),
    ],
)
def test_wrong_input(backbone: vpt.Backbone, call, message: str) -> None:
    with pytest.raises(PromptError, match=message):
        call(backbone)


def test_a_prompt_starts_from_data_later_too(backbone: vpt.Backbone) -> None:
    """As if it had been made with init="means"; forms that act on the input stay as they are."""
    x = backbone.inputs.example(3)
    forms = (vpt.ShallowTokens, vpt.DeepTokens, vpt.Prefix)
    made = [form.like(backbone, 4, init="means", examples=x, seed=5) for form in forms]
    later = [form.like(backbone, 4) for form in forms]
    border = vpt.Border.like(backbone, 3, init="uniform")
    before = {name: value.clone() for name, value in border.state_dict().items()}
    vpt.Stack([border, *later]).start_from(backbone, x, seed=5)
    for one, other in zip(made, later, strict=True):
        assert all(
            torch.equal(value, other.state_dict()[name]) for name, value in one.state_dict().items()
        )
    assert all(torch.equal(value, before[name]) for name, value in border.state_dict().items())
    assert backbone.attachment is None


def test_means_are_in_the_midst_of_the_backbones_own_tokens(backbone: vpt.Backbone) -> None:
    """A single token would be as far from the mean as tokens are; the mean of 64 is eight times
    nearer.
    """
    x = backbone.inputs.example(8)
    seen = backbone.record(x)
    deep = vpt.DeepTokens.like(backbone, 4, init="means", examples=x)
    prefix = vpt.Prefix.like(backbone, 4, init="means", examples=x)
    for i, block in enumerate(prefix.blocks):
        for rows, own in (
            (deep.tokens[block], seen[block]["tokens"].flatten(0, 1)),
            (
                prefix.keys[i].transpose(0, 1).flatten(1),
                seen[block]["keys"].transpose(1, 2).flatten(0, 1).flatten(1),
            ),
            (
                prefix.values[i].transpose(0, 1).flatten(1),
                seen[block]["values"].transpose(1, 2).flatten(0, 1).flatten(1),
            ),
        ):
            away = (rows - own.mean(0)) / own.std(0).clamp(min=1e-3)
            assert 0 < float(away.detach().square().mean().sqrt()) < 0.25
            assert len({tuple(row.tolist()) for row in rows.detach()}) == len(rows)


@pytest.mark.parametrize(
    "name",
    ["timm ViT", "timm Swin", "transformers Swin", "transformers wav2vec2", "torchvision ViT"],
)
def test_rows_drawn_from_data_are_the_backbones_own(name: str) -> None:
    backbone = open_tiny(name)
    x = backbone.inputs.example(3)
    seen = backbone.record(x)
    deep = vpt.DeepTokens.like(backbone, 2, init="data", examples=x)
    prefix = vpt.Prefix.like(backbone, 2, init="data", examples=x)
    for i, rows in enumerate(deep.tokens):
        own = seen[i]["tokens"].flatten(0, 1)
        assert ((own[None] - rows[:, None]).abs().amax(-1).amin(1) < 1e-6).all()
        keys = seen[i]["keys"].transpose(1, 2).flatten(0, 1)
        assert (
            (keys[None] - prefix.keys[i].transpose(0, 1)[:, None]).abs().amax((-1, -2)).amin(1)
            < 1e-6
        ).all()
    assert backbone.attachment is None
