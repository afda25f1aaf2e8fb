"""torch's multi-head attention in terms of SDPA, against torch itself."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

import vpt
from vpt.backbones.acting.multihead import multi_head_attention


class Ours(TorchFunctionMode):
    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is F.multi_head_attention_forward:
            return multi_head_attention(
                lambda call: F.scaled_dot_product_attention(**call), *args, **(kwargs or {})
            )
        return func(*args, **(kwargs or {}))


MASKS = {
    "none": {},
    "padding": {"key_padding_mask": torch.tensor([[False] * 5, [False] * 3 + [True] * 2])},
    "float padding": {"key_padding_mask": torch.tensor([[0.0] * 5, [0.0] * 3 + [-2.0] * 2])},
    "square": {"attn_mask": torch.triu(torch.ones(5, 5, dtype=torch.bool), 1)},
    "per head": {"attn_mask": torch.randn(4, 5, 5)},
    "both": {
        "attn_mask": torch.randn(5, 5),
        "key_padding_mask": torch.tensor([[0.0] * 5, [0.0] * 4 + [float("-inf")]]),
    },
}


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("separate", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_equals_torch(mask: str, separate: bool, bias: bool) -> None:
    torch.manual_seed(0)
    attention = nn.MultiheadAttention(
        8, 2, bias=bias, batch_first=True, **({"kdim": 6, "vdim": 6} if separate else {})
    ).eval()
    x = torch.randn(2, 5, 8, requires_grad=True)
    other = torch.randn(2, 5, 6) if separate else x
    theirs = attention(x, other, other, need_weights=False, **MASKS[mask])[0]
    with Ours():
        ours, weights = attention(x, other, other, **MASKS[mask])
    assert weights is None
    assert torch.allclose(ours, theirs, atol=1e-6)
    found, needed = (torch.autograd.grad(out.square().sum(), x)[0] for out in (ours, theirs))
    assert torch.allclose(found, needed, atol=1e-5)


def test_rows_that_the_module_appends_are_refused() -> None:
    attention = nn.MultiheadAttention(8, 2, add_bias_kv=True)
    with pytest.raises(vpt.errors.PromptError, match="bias_k"), Ours():
        attention(*[torch.randn(5, 2, 8)] * 3)
