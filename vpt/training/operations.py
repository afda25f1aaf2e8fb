"""How many floating-point operations a piece of work takes, counted."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch.utils.flop_counter import FlopCounterMode

CPU_ATTENTION = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
CPU_ATTENTION_BACKWARD = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


def count_operations(work: Callable[[], None]) -> int:
    """Operations of matrix products, convolutions and attention in one call of `work`."""
    # torch counts the attention of GPUs only
    formulas = {CPU_ATTENTION: _attention, CPU_ATTENTION_BACKWARD: _attention_backward}
    counter = FlopCounterMode(display=False, custom_mapping=formulas)
    with counter:
        work()
    return counter.get_total_flops()


def _attention(query: Sequence[int], key: Sequence[int], *others: object, **options: object) -> int:
    """From shapes `[B,heads,N,d]`."""
    batch, heads, rows, width = query
    return 4 * batch * heads * rows * key[-2] * width


def _attention_backward(
    slope: Sequence[int],
    query: Sequence[int],
    key: Sequence[int],
    *others: object,
    **options: object,
) -> int:
    return _attention(query, key) * 5 // 2
