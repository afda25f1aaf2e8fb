"""Operations are those of the equations, of attention too."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from vpt.training.operations import count_operations


def test_matrix_products_and_attention_forward_and_backward() -> None:
    a, b = torch.rand(3, 4), torch.rand(4, 5)
    assert count_operations(lambda: a @ b) == 2 * 3 * 4 * 5
    q, k, v = (torch.rand(2, 3, n, 8, requires_grad=True) for n in (4, 6, 6))
    forward = 4 * 2 * 3 * 4 * 6 * 8
    assert count_operations(lambda: scaled_dot_product_attention(q, k, v)) == forward

    def learn() -> None:
        scaled_dot_product_attention(q, k, v).sum().backward()

    assert count_operations(learn) == forward * 7 // 2


def test_what_the_work_raises_is_raised() -> None:
    with pytest.raises(RuntimeError, match="shapes"):
        count_operations(lambda: torch.rand(3, 4) @ torch.rand(3, 4))
