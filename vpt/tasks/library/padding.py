"""Rows of different tasks, side by side: the shorter ones are padded, and the padding is hidden."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def padded(rows: list[Tensor], index: Tensor) -> tuple[Tensor, Tensor | None]:
    """Rows `[1,…,P_t,D]` of T tasks → `[T,…,P,D]`, and the bias `[B,1,1,P]` that hides the padding
    of each sample, if any.
    """
    lengths = [part.shape[-2] for part in rows]
    longest = max(lengths)
    joined = torch.cat(
        [
            F.pad(part, (0, 0, 0, longest - length))
            for part, length in zip(rows, lengths, strict=True)
        ]
    )
    if min(lengths) == longest:
        return joined, None
    hidden = (
        torch.arange(longest, device=joined.device)
        >= torch.tensor(lengths, device=joined.device)[:, None]
    )
    bias = torch.zeros(hidden.shape, device=joined.device).masked_fill(hidden, float("-inf"))
    return joined, bias[index][:, None, None]
