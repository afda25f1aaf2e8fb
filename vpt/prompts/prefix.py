"""Learned keys and values beside a block's own: prefix tuning (Li & Liang 2021; in vision E²VPT, PETL-AST)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from vpt.errors import PromptError
from vpt.prompts.base import Init, Prompt, check_init, choose_blocks, draw_rows, positive, share, vpt_bound
from vpt.sites import KeyValues


class Prefix(Prompt):
    """attn(x) = softmax(Q [P_K; K]ᵀ/√d) [P_V; V], with P_K and P_V learned, put in after the block's own projections.

    keys, values: parameters `[blocks, heads, count, head_dim]`. dropout: on both, per sample. Raises `PromptError` for
    sizes below 1 or a dropout outside [0, 1).
    """

    def __init__(self, count: int, heads: int, head_dim: int, blocks: Sequence[int], dropout: float = 0.0) -> None:
        super().__init__()
        blocks = list(blocks)
        positive(count=count, heads=heads, head_dim=head_dim, blocks=len(blocks))
        share(dropout=dropout)
        self.count, self.heads, self.head_dim = count, heads, head_dim
        self.blocks = choose_blocks(blocks, max(blocks) + 1)
        self.dropout = nn.Dropout(dropout)
        shape, bound = (len(blocks), heads, count, head_dim), vpt_bound(heads * head_dim, heads * head_dim)
        self.keys = nn.Parameter(torch.empty(shape).uniform_(-bound, bound))
        self.values = nn.Parameter(torch.empty(shape).uniform_(-bound, bound))

    @classmethod
    def like(
        cls,
        backbone: Any,
        count: int = 10,
        *,
        blocks: Sequence[int] | Literal["all"] = "all",
        dropout: float = 0.0,
        init: Init = "uniform",
        examples: Any = None,
        seed: int = 0,
    ) -> Prefix:
        """A prefix of a backbone's head sizes. init="data" draws rows from each block's own keys and values on `examples`."""
        backbone.require_blocks()
        check_init(init, examples)
        chosen = choose_blocks(blocks, backbone.depth)
        backbone.require_attention(chosen)
        sizes = {backbone.heads[i] for i in chosen}
        if len(sizes) > 1:
            raise PromptError(f"Found blocks of different head sizes {sorted(sizes)}; name blocks of one size: blocks=[…].")
        heads, head_dim = sizes.pop()
        prompt = cls(count, heads, head_dim, chosen, dropout)
        prompt._fill(backbone, init, examples, seed)
        return prompt

    @torch.no_grad()
    def _fill(self, backbone: Any, init: Init, examples: Any, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        bound = vpt_bound(backbone.patch_dim, self.heads * self.head_dim)
        for name, rows in (("keys", self.keys), ("values", self.values)):
            if init == "zeros":
                rows.zero_()
            elif init == "uniform":
                rows.copy_((torch.rand(rows.shape, generator=generator) * 2 - 1) * bound)
            else:
                recorded = backbone.record(examples)
                for i, block in enumerate(self.blocks):  # the same tokens' keys and values: the same seed for both
                    own = recorded[block][name].transpose(1, 2).flatten(0, 1)
                    rows[i] = draw_rows(own, self.count, seed + i).transpose(0, 1)

    def sites(self) -> tuple[KeyValues, ...]:
        """One site per block."""
        return tuple(KeyValues(block, self.count, partial(self.make, i)) for i, block in enumerate(self.blocks))

    def make(self, index: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor, None]:
        """Own keys and values `[B,heads,N,d]` → learned ones `[B,heads,count,d]` for the `index`-th prompted block."""
        shape = (len(keys), -1, -1, -1)
        return self.dropout(self.keys[index].expand(shape)), self.dropout(self.values[index].expand(shape)), None

    def config(self) -> dict[str, Any]:
        """Sizes, blocks and dropout."""
        return {"count": self.count, "heads": self.heads, "head_dim": self.head_dim, "blocks": self.blocks,
                "dropout": self.dropout.p}  # fmt: skip

    def describe(self) -> str:
        """One line for people."""
        return f"{self.count} learned keys and values beside the attention of each of {len(self.blocks)} blocks"
