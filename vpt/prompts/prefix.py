"""Learned keys and values beside a block's own: prefix tuning (Li & Liang 2021; in vision E²VPT,
PETL-AST).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from vpt.errors import PromptError
from vpt.errors.needs import share, whole
from vpt.prompts.base import (
    MOST,
    Init,
    Prompt,
    choose_blocks,
    draw_rows,
    head_sizes,
    heads_of,
    recorded_for,
    vpt_bound,
)
from vpt.prompts.registry import register
from vpt.sites import BackboneLike, Config, KeyValues, Raw


@register("prefix:COUNT", "keys and values beside a block's own (prefix tuning)")
class Prefix(Prompt):
    """attn(x) = softmax(Q [P_K; K]ᵀ/√d) [P_V; V], with P_K and P_V learned, put in after the
    block's own projections.

    keys, values: parameters `[blocks, heads, count, head_dim]`; a list of `[heads, count,
        head_dim]` where heads differ between blocks (Swin), then `heads` and `head_dim` are given
        as lists. dropout: on both, per sample (with windows: per window). Raises `PromptError` for
        sizes below 1 or a dropout outside [0, 1).
    """

    def __init__(
        self,
        count: int,
        heads: int | Sequence[int],
        head_dim: int | Sequence[int],
        blocks: Sequence[int],
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        blocks = list(blocks)
        whole(PromptError, most=MOST, count=count)
        self.sizes = head_sizes(heads, head_dim, blocks)
        share(PromptError, dropout=dropout)
        self.count = count
        self.heads = heads
        self.head_dim = head_dim
        self.blocks = choose_blocks(blocks, max(blocks) + 1)
        self.dropout = nn.Dropout(dropout)
        self.keys = self._rows()
        self.values = self._rows()

    def _rows(self) -> nn.Parameter | nn.ParameterList:
        rows = [torch.empty(heads, self.count, size) for heads, size in self.sizes]
        for (heads, size), block in zip(self.sizes, rows, strict=True):
            bound = vpt_bound(heads * size, heads * size)
            block.uniform_(-bound, bound)
        if len(set(self.sizes)) == 1:
            return nn.Parameter(torch.stack(rows))
        return nn.ParameterList([nn.Parameter(block) for block in rows])

    @classmethod
    def like(
        cls,
        backbone: BackboneLike,
        count: int = 10,
        *,
        blocks: Sequence[int] | Literal["all"] = "all",
        dropout: float = 0.0,
        init: Init = "uniform",
        examples: Raw | None = None,
        seed: int = 0,
    ) -> Prefix:
        """A prefix of a backbone's head sizes.

        backbone: whose keys and values they join.
        count: how many.
        blocks: their numbers, or "all".
        dropout: on both, per sample, in [0, 1).
        init: "uniform" as VPT has it, "zeros", "data" (rows drawn from each block's own keys and
            values on `examples`) or "means" (of 64 such rows each).
        examples: raw input, for "data" and "means".
        seed: of what is drawn.
        """
        backbone.reach.need_blocks()
        chosen = choose_blocks(blocks, backbone.depth)
        prompt = cls(count, blocks=chosen, dropout=dropout, **heads_of(backbone, chosen))
        prompt._fill(backbone, init, examples, seed)
        return prompt

    @torch.no_grad()
    def _fill(self, backbone: BackboneLike, init: Init, examples: Raw | None, seed: int) -> None:
        recorded = recorded_for(init, backbone, examples)
        generator = torch.Generator().manual_seed(seed)
        for name, parameter in (("keys", self.keys), ("values", self.values)):
            for i, (block, rows) in enumerate(zip(self.blocks, parameter, strict=True)):
                if init == "zeros":
                    rows.zero_()
                elif recorded is None:
                    bound = vpt_bound(backbone.patch_dim, self.sizes[i][0] * self.sizes[i][1])
                    rows.copy_((torch.rand(rows.shape, generator=generator) * 2 - 1) * bound)
                else:  # the same tokens' keys and values: the same seed for both
                    own = recorded[block][name].transpose(1, 2).flatten(0, 1)
                    rows.copy_(draw_rows(own, self.count, seed + i, init).transpose(0, 1))

    def start_from(self, backbone: BackboneLike, examples: Raw, seed: int = 0) -> None:
        """Begin as means of each block's own keys and values (init="means")."""
        self._fill(backbone, "means", examples, seed)

    def sites(self) -> tuple[KeyValues, ...]:
        """One site per block."""
        return tuple(
            KeyValues(block, self.count, partial(self.make, i))
            for i, block in enumerate(self.blocks)
        )

    def make(self, index: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor, None]:
        """Own keys and values `[B,heads,N,d]` → learned ones `[B,heads,count,d]` for the `index`-th
        prompted block.
        """
        shape = (keys.shape[0], -1, -1, -1)
        return (
            self.dropout(self.keys[index].expand(shape)),
            self.dropout(self.values[index].expand(shape)),
            None,
        )

    def config(self) -> Config:
        """Sizes, blocks and dropout."""
        return {
            "count": self.count,
            "heads": self.heads,
            "head_dim": self.head_dim,
            "blocks": self.blocks,
            "dropout": self.dropout.p,
        }

    def describe(self) -> str:
        """One line for people."""
        return (
            f"{self.count} learned keys and values beside the attention of each of"
            f" {len(self.blocks)} blocks"
        )
