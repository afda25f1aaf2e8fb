"""Learned tokens in front of the sequence: shallow and deep visual prompt tuning (Jia et al., ECCV
2022).
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
    fill_rows,
    learned_rows,
    vpt_bound,
)
from vpt.prompts.registry import register
from vpt.sites import BackboneLike, Config, Raw, Tokens


@register("shallow:COUNT", "tokens before the first block, cut off after the last (VPT)")
class ShallowTokens(Prompt):
    """VPT-shallow: `count` tokens enter before the first block and leave after the last (equations
    4 and 5).

    tokens: parameter `[count, width]`. depth: number of blocks they pass. dropout: on the tokens,
        per sample. Raises `PromptError` for sizes below 1 or a dropout outside [0, 1).
    """

    def __init__(self, count: int, width: int, depth: int, dropout: float = 0.0) -> None:
        super().__init__()
        whole(PromptError, most=MOST, count=count)
        whole(PromptError, width=width, depth=depth)
        share(PromptError, dropout=dropout)
        self.count = count
        self.width = width
        self.depth = depth
        self.dropout = nn.Dropout(dropout)
        self.tokens = nn.Parameter(
            torch.empty(count, width).uniform_(-vpt_bound(width, width), vpt_bound(width, width))
        )

    @classmethod
    def like(
        cls,
        backbone: BackboneLike,
        count: int = 10,
        *,
        dropout: float = 0.0,
        init: Init = "uniform",
        examples: Raw | None = None,
        seed: int = 0,
    ) -> ShallowTokens:
        """Tokens of a backbone's width.

        backbone: whose tokens they join.
        count: how many.
        dropout: on the tokens, per sample, in [0, 1).
        init: "uniform" as VPT has it, "zeros", "data" (rows drawn from block 0's own tokens on
            `examples`) or "means" (of 64 such rows each).
        examples: raw input, for "data" and "means".
        seed: of what is drawn.
        """
        backbone.reach.need_blocks()
        prompt = cls(count, backbone.widths[0], backbone.depth, dropout)
        fill_rows([prompt.tokens], [0], backbone, init, examples, seed)
        return prompt

    def start_from(self, backbone: BackboneLike, examples: Raw, seed: int = 0) -> None:
        """Begin as means of block 0's own tokens (init="means")."""
        fill_rows([self.tokens], [0], backbone, "means", examples, seed)

    def sites(self) -> tuple[Tokens, ...]:
        """One span over all blocks."""
        return (Tokens(0, self.depth - 1, self.count, self.make),)

    def make(self, x: Tensor) -> Tensor:
        """`[B,N,D]` → `[B,count,D]`, with dropout drawn per sample."""
        return self.dropout(self.tokens.expand(x.shape[0], -1, -1))

    def config(self) -> Config:
        """Sizes and dropout."""
        return {
            "count": self.count,
            "width": self.width,
            "depth": self.depth,
            "dropout": self.dropout.p,
        }

    def describe(self) -> str:
        """One line for people."""
        return f"{self.count} tokens in front of block 0, carried through {self.depth} blocks"


@register("deep:COUNT", "fresh tokens before every block, dropped after it (VPT)")
class DeepTokens(Prompt):
    """VPT-deep: `count` fresh tokens before each block, dropped after it (equation 6).

    tokens: parameter `[blocks, count, width]`, or a list of `[count, width]` where widths differ.
        blocks: their numbers.
    dropout: on the tokens, per sample. Raises `PromptError` for sizes below 1 or a dropout outside
        [0, 1).
    """

    def __init__(
        self, count: int, widths: Sequence[int], blocks: Sequence[int], dropout: float = 0.0
    ) -> None:
        super().__init__()
        widths, blocks = list(widths), list(blocks)
        whole(PromptError, most=MOST, count=count)
        sizes: Config = {f"width_{i}": width for i, width in enumerate(widths)}
        whole(PromptError, blocks=len(blocks), **sizes)
        share(PromptError, dropout=dropout)
        if len(widths) != len(set(blocks)):
            raise PromptError(
                f"Found {len(widths)} widths for blocks {blocks}; needed is one width for each of"
                " different blocks."
            )
        self.count = count
        self.widths = widths
        self.blocks = choose_blocks(blocks, max(blocks) + 1)
        self.dropout = nn.Dropout(dropout)
        self.tokens = learned_rows(count, widths)

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
    ) -> DeepTokens:
        """Tokens of a backbone's widths.

        backbone: whose tokens they join.
        count: how many.
        blocks: their numbers, or "all".
        dropout: on the tokens, per sample, in [0, 1).
        init: "uniform" as VPT has it, "zeros", "data" (rows drawn from each block's own tokens on
            `examples`) or "means" (of 64 such rows each).
        examples: raw input, for "data" and "means".
        seed: of what is drawn.
        """
        backbone.reach.need_blocks()
        chosen = choose_blocks(blocks, backbone.depth)
        prompt = cls(count, [backbone.widths[i] for i in chosen], chosen, dropout)
        fill_rows(list(prompt.tokens), chosen, backbone, init, examples, seed)
        return prompt

    def start_from(self, backbone: BackboneLike, examples: Raw, seed: int = 0) -> None:
        """Begin as means of each block's own tokens (init="means")."""
        fill_rows(list(self.tokens), self.blocks, backbone, "means", examples, seed)

    def sites(self) -> tuple[Tokens, ...]:
        """One span (i, i) per block."""
        return tuple(
            Tokens(block, block, self.count, partial(self.make, i))
            for i, block in enumerate(self.blocks)
        )

    def make(self, index: int, x: Tensor) -> Tensor:
        """`[B,N,D]` → `[B,count,D]` for the `index`-th prompted block, with dropout drawn per
        sample.
        """
        return self.dropout(self.tokens[index].expand(x.shape[0], -1, -1))

    def config(self) -> Config:
        """Sizes, blocks and dropout."""
        return {
            "count": self.count,
            "widths": self.widths,
            "blocks": self.blocks,
            "dropout": self.dropout.p,
        }

    def describe(self) -> str:
        """One line for people."""
        tokens = "1 fresh token" if self.count == 1 else f"{self.count} fresh tokens"
        return f"{tokens} in front of each of {len(self.blocks)} blocks ({_span(self.blocks)})"


def _span(blocks: list[int]) -> str:
    whole = blocks == list(range(blocks[0], blocks[-1] + 1))
    return f"{blocks[0]} to {blocks[-1]}" if whole else ", ".join(map(str, blocks))
