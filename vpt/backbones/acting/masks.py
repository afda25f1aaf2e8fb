"""Scaled dot-product attention, and its masks for keys that were put in front."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from vpt.sites import Config


def attention(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, **settings: Any
) -> Tensor:
    """SDPA; where it learns in bf16 or fp16 on a CPU, two products, whose backward pass is 1.4 to 5
    times faster there.
    """
    settings = {name: setting for name, setting in settings.items() if setting}
    learns = torch.is_grad_enabled() and (
        query.requires_grad or key.requires_grad or value.requires_grad
    )
    if (
        query.device.type != "cpu"
        or query.dtype == torch.float32
        or not learns
        or settings.keys() - {"scale"}
    ):
        return F.scaled_dot_product_attention(query, key, value, attn_mask=attn_mask, **settings)
    scores = query @ key.mT * settings.get("scale", query.shape[-1] ** -0.5)
    if attn_mask is not None:
        scores = (
            scores.masked_fill(~attn_mask, float("-inf"))
            if attn_mask.dtype == torch.bool
            else scores + attn_mask
        )
    return torch.softmax(scores, dim=-1, dtype=torch.float32).to(value.dtype) @ value


@dataclass(frozen=True)
class Own:
    """A block's own keys and values `[B,heads,N,d]`, which of them are valid `[B|1,1,1,N]` (None:
    all), and by what scores are multiplied (None: 1/√d).
    """

    key: Tensor
    value: Tensor
    valid: Tensor | None = None
    scale: float | None = None


def seen_by_any(mask: Tensor) -> Tensor:
    """Which keys any token sees `[B|1,1,1,N]`, by an attention mask or bias `[B|1,heads|1,N|1,N]`:
    padding is hidden from all, and a bias hides nothing.
    """
    shown = mask if mask.dtype == torch.bool else mask > torch.finfo(mask.dtype).min / 2
    while shown.ndim < 4:
        shown = shown[None]
    return shown.any(dim=1, keepdim=True).any(dim=2, keepdim=True)


def read(call: Config, own: Own) -> Tensor:
    """What the rows of a call to SDPA, query `[1|B,heads,M,d]`, read of these keys and values:
    `[B,heads,M,d]`.
    """
    rows = call["query"]
    query = _per_window(rows, own.key.shape[0]).expand(own.key.shape[0], *rows.shape[1:])
    kept = {name: call[name] for name in ("scale", "enable_gqa") if call.get(name) is not None}
    return attention(query, own.key, own.value, own.valid, **kept)


def without_padding(bias: Tensor | None, call: Config) -> Tensor | None:
    """The mask with a bias that hides what is only padding among tokens in front, the first
    keys.
    """
    mask = call.get("attn_mask")
    if bias is None:
        return mask
    bias = F.pad(bias.to(call["query"].dtype), (0, call["key"].shape[-2] - bias.shape[-1]))
    if mask is None:
        return bias
    if mask.dtype == torch.bool:
        mask = torch.zeros_like(mask, dtype=bias.dtype).masked_fill(~mask, float("-inf"))
    return mask + bias


def in_front(rows: Tensor, own: Tensor) -> Tensor:
    """Learned keys or values `[B|1,heads,P,d]` before the block's own `[B,heads,N,d]`."""
    return torch.cat(
        [_per_window(rows, own.shape[0]).to(own.dtype).expand(own.shape[0], *rows.shape[1:]), own],
        dim=-2,
    )


def _per_window(rows: Tensor, batch: int) -> Tensor:
    """Rows of B samples for `batch` = B · windows attentions, which lie sample by sample."""
    count = rows.shape[0]
    return rows if count in (1, batch) else rows.repeat_interleave(batch // count, dim=0)


def pad_mask(
    mask: Tensor | None, bias: Tensor | None, query: Tensor, key: Tensor, count: int
) -> Tensor | None:
    """The mask for `count` more keys in front: they are seen by every query, `bias` is added to
    their scores.
    """
    if mask is None and bias is None:
        return None
    if mask is None:
        mask = query.new_zeros(1, 1, query.shape[-2], key.shape[-2])
    elif mask.dtype == torch.bool and bias is not None:
        mask = torch.zeros_like(mask, dtype=query.dtype).masked_fill(~mask, float("-inf"))
    seen = mask.new_ones if mask.dtype == torch.bool else mask.new_zeros
    mask = mask.expand(*mask.shape[:-1], key.shape[-2])
    rows = seen(*mask.shape[:-1], count)
    if bias is None:
        return torch.cat([rows, mask], dim=-1)
    rows = rows + _per_window(bias, query.shape[0]).to(rows.dtype)
    batch = [max(a, b) for a, b in zip(rows.shape[:-1], mask.shape[:-1], strict=True)]
    return torch.cat([rows.expand(*batch, count), mask.expand(*batch, mask.shape[-1])], dim=-1)
