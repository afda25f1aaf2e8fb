"""Queries that are real tokens of training examples, so that each can be looked at."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vpt.errors import PromptError
from vpt.prompts.queries import QueryTokens
from vpt.prompts.registry import register
from vpt.sites import BackboneLike, Config, Queries

SIDE = 48  # pixels of a crop

Taken = list[list[Config]]  # of each block, for each query: its example, row and column


@register("hard:COUNT", "queries that are real tokens, each to be looked at as a crop")
class HardQueries(QueryTokens):
    """Queries that are tokens of training examples, as these enter the block that is read: hard
    prompts (AutoPrompt, Shin et al., EMNLP 2020; PEZ, Wen et al., NeurIPS 2023) for models that
    read no text. Published for frozen vision transformers we found none.

    They are found by `vpt.adapt`, not by gradient alone, and are no parameters: a query is the
    number of a token among those of the training examples, 2 bytes.

    taken: for each block and query where it is from, as {"example", "window", "row", "column"}
        (the window of a long clip; places counted in patches); empty before they were chosen.
        crops: that place and what is around it `[blocks,count,3,48,48]`, as bytes. Otherwise as
        `QueryTokens`; needed is one width for all blocks.
    """

    crops: Tensor

    def __init__(
        self,
        count: int,
        widths: Sequence[int],
        outputs: Sequence[int],
        blocks: Sequence[int],
        taken: Taken | None = None,
    ) -> None:
        super().__init__(count, widths, outputs, blocks)
        if len({*self.widths}) > 1 or len({*self.outputs}) > 1:
            raise PromptError(
                f"Found blocks of widths {self.widths} for hard queries; needed is one width."
            )
        for rows in self.parameters():
            rows.requires_grad_(False)
        self.taken = taken or []
        shape = (len(self.blocks), count, 3, SIDE, SIDE)
        self.register_buffer("crops", torch.zeros(shape, dtype=torch.uint8))

    @classmethod
    def like(  # type: ignore[override]
        cls,
        backbone: BackboneLike,
        count: int = 4,
        *,
        blocks: Sequence[int] | None = None,
        seed: int = 0,
    ) -> HardQueries:
        """Queries for a backbone, as for `QueryTokens.like`; `vpt.adapt` chooses them."""
        soft = QueryTokens.like(backbone, count, blocks=blocks, seed=seed)
        return cls(soft.count, soft.widths, soft.outputs, soft.blocks)

    @torch.no_grad()
    def become(self, rows: Sequence[Tensor], taken: Taken, crops: Tensor) -> None:
        """Be these tokens `[count,D]` of each block. Raises `PromptError` for others than fit."""
        if [len(own) for own in taken] != [self.count] * len(self.blocks):
            raise PromptError(
                f"Found {[len(own) for own in taken]} places; needed are {self.count} for each of"
                f" {len(self.blocks)} blocks."
            )
        for own, new in zip(self.queries, rows, strict=True):
            own.copy_(new)
        self.taken = taken
        self.crops.copy_(crops)

    def sites(self) -> tuple[Queries, ...]:
        """One place per block. Raises `PromptError` before they were chosen."""
        if not self.taken:
            raise PromptError(
                "These hard queries were not chosen yet; needed is"
                " vpt.adapt(data, prompt='hard:4'), which chooses them, alone and with a linear"
                " readout."
            )
        return super().sites()

    def config(self) -> Config:
        """Sizes, blocks, and where each query is from."""
        return {
            "count": self.count,
            "widths": self.widths,
            "outputs": self.outputs,
            "blocks": self.blocks,
            "taken": self.taken,
        }

    def describe(self) -> str:
        """One line for people."""
        return f"{super().describe()}, each a real token"
