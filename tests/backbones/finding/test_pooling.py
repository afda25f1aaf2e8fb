"""Features of a model that has no classifier of its own."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from vpt.backbones.finding.pooling import class_token_named, pooled
from vpt.errors import BackboneError

TOKENS = torch.arange(24.0).view(2, 4, 3)
READY = torch.full((2, 3), -1.0)


def answer(**fields):
    return SimpleNamespace(**fields)


@pytest.mark.parametrize(
    "given",
    [
        TOKENS,
        answer(last_hidden_state=TOKENS),
        answer(last_hidden_state=TOKENS, pooler_output=None),
    ],
)
@pytest.mark.parametrize("own", [False, True])
def test_tokens_are_pooled_as_asked(given, own):
    assert torch.equal(pooled(given, "first", own, None), TOKENS[:, 0])
    assert pooled(given, "mean", own, None).tolist() == [[4.5, 5.5, 6.5], [16.5, 17.5, 18.5]]


def test_the_models_own_pooling_comes_first_where_it_is_allowed():
    given = answer(last_hidden_state=TOKENS, pooler_output=READY)
    assert torch.equal(pooled(given, "mean", True, None), READY)
    assert torch.equal(pooled(given, "first", False, None), TOKENS[:, 0])


@pytest.mark.parametrize("pool", ["first", "mean"])
def test_features_stay_as_they_are(pool):
    assert torch.equal(pooled(READY, pool, True, lambda n: torch.tensor([0.5, 0.5]) * n), READY)
    assert torch.equal(pooled(answer(last_hidden_state=READY), pool, False, None), READY)


@pytest.mark.parametrize(
    ("valid", "counts"),
    [((1.0, 1.0), (4, 4)), ((0.5, 0.25), (2, 1)), ((0.01, 0.51), (1, 3)), ((0.75, 1.0), (3, 4))],
)
def test_only_valid_positions_are_averaged(valid, counts):
    found = pooled(TOKENS, "mean", True, lambda n: (torch.tensor(valid) * n).ceil())
    torch.testing.assert_close(
        found, torch.stack([TOKENS[i, :n].mean(0) for i, n in enumerate(counts)])
    )


def test_what_stands_at_invalid_positions_does_not_matter_nor_gets_gradient():
    tokens = TOKENS.clone().requires_grad_()
    pooled(tokens, "mean", True, lambda n: torch.tensor([0.5, 1.0]) * n).sum().backward()
    assert not tokens.grad[0, 2:].any()
    torch.testing.assert_close(tokens.grad[0, :2], torch.full((2, 3), 0.5))
    torch.testing.assert_close(tokens.grad[1], torch.full((4, 3), 0.25))


def test_the_first_token_needs_no_valid_share():
    assert torch.equal(
        pooled(TOKENS, "first", True, lambda n: torch.tensor([0.25, 0.25]) * n), TOKENS[:, 0]
    )


@pytest.mark.parametrize(
    ("given", "found"),
    [
        (torch.zeros(2, 3, 4, 4), r"\[2, 3, 4, 4\]"),
        (torch.zeros(5), r"\[5\]"),
        (answer(logits=READY), "SimpleNamespace"),
        ({"x": TOKENS}, "dict"),
        ((TOKENS,), "tuple"),
        (None, "NoneType"),
        (answer(last_hidden_state=None), "SimpleNamespace"),
    ],
)
def test_other_answers_are_refused(given, found):
    with pytest.raises(
        BackboneError,
        match=(
            rf"The model returned {found}; needed are logits \[B,K\], features \[B,D\] or tokens"
            r" \[B,N,D\]"
        ),
    ):
        pooled(given, "mean", True, None)


@pytest.mark.parametrize(
    ("name", "is_one"),
    [
        ("cls_token", True),
        ("class_token", True),
        ("class_embedding", True),
        ("mask_token", False),
        ("cls_token_norm", False),
    ],
)
@pytest.mark.parametrize("depth", [0, 2])
def test_class_tokens_are_known_by_name(name, is_one, depth):
    model = inner = nn.Module()
    for _ in range(depth):
        inner.add_module("inner", nn.Module())
        inner = inner.inner
    inner.register_parameter(name, nn.Parameter(torch.zeros(1)))
    assert class_token_named(model) is is_one
