"""torch's `multi_head_attention_forward` in terms of `scaled_dot_product_attention`, so that its
keys can be reached.

torchvision's ViT, OpenCLIP and torch's own encoder layers call it; a torch-function mode sees
nothing below it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from vpt.errors import PromptError
from vpt.sites import Config


def multi_head_attention(
    attend: Callable[[Config], Tensor],
    query: Tensor,
    key: Tensor,
    value: Tensor,
    embed_dim: int,
    num_heads: int,
    in_proj_weight: Tensor | None,
    in_proj_bias: Tensor | None,
    bias_k: Tensor | None,
    bias_v: Tensor | None,
    add_zero_attn: bool,
    dropout_p: float,
    out_proj_weight: Tensor,
    out_proj_bias: Tensor | None,
    training: bool = True,
    key_padding_mask: Tensor | None = None,
    need_weights: bool = True,
    attn_mask: Tensor | None = None,
    use_separate_proj_weight: bool = False,
    q_proj_weight: Tensor | None = None,
    k_proj_weight: Tensor | None = None,
    v_proj_weight: Tensor | None = None,
    **others: object,
) -> tuple[Tensor, None]:
    """Same as `F.multi_head_attention_forward` on `[N,B,D]`, its attention done by `attend(SDPA's
    arguments)`.

    The weights that torch can return besides are None. Raises `PromptError` for rows that the
    module itself appends.
    """
    if bias_k is not None or bias_v is not None or add_zero_attn or query.ndim != 3:
        raise PromptError(
            "This MultiheadAttention appends rows of its own (bias_k, add_zero_attn); prompts"
            " cannot act in it."
        )
    if use_separate_proj_weight:
        weights: Any = (q_proj_weight, k_proj_weight, v_proj_weight)
    else:
        weights = in_proj_weight.chunk(3)  # type: ignore[union-attr]
    biases: Any = (None,) * 3 if in_proj_bias is None else in_proj_bias.chunk(3)
    parts = [
        F.linear(x, weight, bias)
        for x, weight, bias in zip((query, key, value), weights, biases, strict=True)
    ]
    q, k, v = (x.reshape(*x.shape[:2], num_heads, -1).permute(1, 2, 0, 3) for x in parts)
    mask = _mask(attn_mask, key_padding_mask, q, k)
    out = attend(
        {
            "query": q,
            "key": k,
            "value": v,
            "attn_mask": mask,
            "dropout_p": dropout_p if training else 0.0,
        }
    )
    return F.linear(out.permute(2, 0, 1, 3).flatten(2), out_proj_weight, out_proj_bias), None


def _mask(
    attn_mask: Tensor | None, key_padding_mask: Tensor | None, query: Tensor, key: Tensor
) -> Tensor | None:
    """Both of torch's masks (True: hidden) as one that is added to the scores,
    `[B|1,heads|1,N|1,N]`.
    """
    parts = []
    if attn_mask is not None:
        own = (
            attn_mask[None, None]
            if attn_mask.ndim == 2
            else attn_mask.reshape(len(query), -1, *attn_mask.shape[1:])
        )
        parts.append(_added(own, query))
    if key_padding_mask is not None:
        parts.append(_added(key_padding_mask[:, None, None], query))
    # one of them knows of tokens that were put in front
    if len({part.shape[-1] for part in parts}) > 1:
        parts = [grown(part, query, key) for part in parts]
    return sum(parts[1:], parts[0]) if parts else None


def grown(mask: Tensor, query: Tensor, key: Tensor) -> Tensor:
    """A mask or bias for tokens that were put in front: they see every token and every token sees
    them, with no bias.
    """
    columns = key.shape[-2] - mask.shape[-1] if mask.shape[-1] > 1 else 0
    rows = query.shape[-2] - mask.shape[-2] if mask.shape[-2] > 1 else 0
    return F.pad(mask, (columns, 0, rows, 0), value=1.0 if mask.dtype == torch.bool else 0.0)


def _added(mask: Tensor, query: Tensor) -> Tensor:
    if mask.dtype != torch.bool:
        return mask.to(query.dtype)
    return torch.zeros_like(mask, dtype=query.dtype).masked_fill(mask, float("-inf"))
