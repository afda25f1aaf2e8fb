"""Features `[B,D]` of a model that has no classifier of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from vpt.errors import BackboneError

CLASS_TOKENS = ("cls_token", "class_token", "class_embedding")


def class_token_named(model: nn.Module) -> bool:
    """Whether a model holds a parameter called like a class token, which is then the first of its
    tokens.
    """
    return any(name.rsplit(".", 1)[-1] in CLASS_TOKENS for name, _ in model.named_parameters())


def pooled(answer: Any, pool: str, own: bool, valid: Callable[[int], Tensor] | None) -> Tensor:
    """A model's answer → features `[B,D]`.

    Its own pooled output if `own` allows and it has one; features `[B,D]` as they are; else tokens
    `[B,N,D]` pooled as `pool`
    says: "first", or "mean" over `valid(N)` `[B]` positions of each clip (sound), or over all.
        Raises `BackboneError` for another answer.
    """
    tokens = answer if isinstance(answer, Tensor) else getattr(answer, "last_hidden_state", None)
    ready = getattr(answer, "pooler_output", None) if own else None
    if isinstance(ready, Tensor):
        return ready
    if isinstance(tokens, Tensor) and tokens.ndim == 2:
        return tokens
    if not isinstance(tokens, Tensor) or tokens.ndim != 3:
        found = list(tokens.shape) if isinstance(tokens, Tensor) else type(answer).__name__
        raise BackboneError(
            f"The model returned {found}; needed are logits [B,K], features [B,D] or tokens"
            " [B,N,D]."
        )
    if pool == "first":
        return tokens[:, 0]
    if valid is None:
        return tokens.mean(1)
    count = tokens.shape[1]
    mask = torch.arange(count, device=tokens.device) < valid(count).view(-1, 1)
    return (tokens * mask.unsqueeze(2)).sum(1) / mask.sum(1, keepdim=True)


def summed(tokens: Tensor, class_token: bool, valid: Tensor | None) -> Tensor:
    """Tokens `[B,N,D]` → `[B,2,D]`: the class token, which is the first, and the mean of the
    others; without one, mean and standard deviation over the first `valid` `[B]` positions, or all.
    """
    tokens = tokens.float()
    if class_token:
        return torch.stack([tokens[:, 0], tokens[:, 1:].mean(1)], dim=1)
    count = tokens.shape[1]
    if valid is None:
        weight = tokens.new_full((1, count, 1), 1 / count)
    else:
        mask = torch.arange(count, device=tokens.device) < valid.view(-1, 1)
        weight = (mask / mask.sum(1, keepdim=True)).unsqueeze(2)
    mean = (tokens * weight).sum(1)
    spread = ((tokens - mean.unsqueeze(1)).square() * weight).sum(1)
    return torch.stack([mean, (spread + 1e-12).sqrt()], dim=1)


class Output(NamedTuple):
    """One forward's two outputs: features `[B,D]`, and logits `[B,K]` where the model has a
    classifier.
    """

    features: Tensor
    logits: Tensor | None
