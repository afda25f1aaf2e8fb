"""Learned queries that read a frozen model: visual query tuning (Tu, Mai and Chao, CVPR 2023)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from vpt.errors import PromptError
from vpt.errors.needs import share, whole
from vpt.prompts.base import MOST, Init, Prompt, choose_blocks, fill_rows, learned_rows
from vpt.prompts.registry import register
from vpt.sites import BackboneLike, Config, Queries, Raw


@register("queries:COUNT", "tokens that read the blocks, and are read by nobody (VQT)")
class QueryTokens(Prompt):
    """`count` queries for each of some blocks. Each attends to the block's own keys and values; no
    token ever attends to it, so the model stays as it is, bit for bit.

    What they read is for the readout (`vpt.Linear(…, of="queries")`): with LN₁ the block's norm,
    H = LN₁(P), A = softmax(W_Q H · (W_K LN₁X)ᵀ / √d) W_V LN₁X, and with `through` also
    Z = P + W_O A, Z + MLP(LN₂Z), as in the paper. Without it A itself is read, of all heads side by
    side: a linear readout absorbs W_O, and learning costs a fraction.

    count: of each block; a list where they differ. queries: parameter `[blocks, count, width]`, or
        a list of `[count, width]` where counts or widths differ.
    widths: of the tokens of each block. outputs: how many numbers a query reads of each block.
    blocks: their numbers. dropout: on what is read. Raises `PromptError` for sizes below 1 or a
        dropout outside [0, 1).
    """

    def __init__(
        self,
        count: int | Sequence[int],
        widths: Sequence[int],
        outputs: Sequence[int],
        blocks: Sequence[int],
        through: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        widths, outputs, blocks = list(widths), list(outputs), list(blocks)
        counts = [count] * len(blocks) if isinstance(count, int) else list(count)
        for one in counts:
            whole(PromptError, most=MOST, count=one)
        sizes: Config = {f"width_{i}": width for i, width in enumerate([*widths, *outputs])}
        whole(PromptError, blocks=len(blocks), **sizes)
        share(PromptError, dropout=dropout)
        if not len(counts) == len(widths) == len(outputs) == len(set(blocks)):
            raise PromptError(
                f"Found {len(counts)} counts, {len(widths)} widths and {len(outputs)} outputs for"
                f" blocks {blocks}; needed is one of each for each of different blocks."
            )
        self.counts = counts
        self.count = max(counts)
        self.widths = widths
        self.outputs = outputs
        self.blocks = choose_blocks(blocks, max(blocks) + 1)
        self.through = through
        self.dropout = nn.Dropout(dropout)
        self.queries = learned_rows(counts, widths)
        self._read: dict[int, Tensor] = {}

    @classmethod
    def like(
        cls,
        backbone: BackboneLike,
        count: int = 4,
        *,
        blocks: Sequence[int] | None = None,
        through: bool = False,
        dropout: float = 0.0,
        examples: Raw | None = None,
        seed: int = 0,
    ) -> QueryTokens:
        """Queries for a backbone.

        backbone: which they read.
        count: how many for each block.
        blocks: their numbers; at half, three quarters and the end of the depth by default.
        through: whether what they read goes on through the rest of the block.
        dropout: on what is read, in [0, 1).
        examples: raw input, of whose own tokens in each block the queries begin as copies; without
            it they begin at random, which is worse.
        seed: of what is drawn.
        """
        backbone.reach.need_blocks()
        chosen = choose_blocks(
            default_blocks(backbone.depth) if blocks is None else blocks, backbone.depth
        )
        backbone.reach.need_queries(chosen, through)
        widths = [backbone.widths[i] for i in chosen]
        heads = [one * size for i in chosen for one, size in [backbone.heads[i] or (0, 0)]]
        prompt = cls(count, widths, widths if through else heads, chosen, through, dropout)
        init: Init = "uniform" if examples is None else "data"
        fill_rows(list(prompt.queries), chosen, backbone, init, examples, seed)
        return prompt

    def start_from(self, backbone: BackboneLike, examples: Raw, seed: int = 0) -> None:
        """Begin as the block's own tokens on `examples`, drawn at random."""
        fill_rows(list(self.queries), self.blocks, backbone, "data", examples, seed)

    def sites(self) -> tuple[Queries, ...]:
        """One place per block."""
        return tuple(
            Queries(block, count, partial(self.make, i), partial(self.receive, i), self.through)
            for i, (block, count) in enumerate(zip(self.blocks, self.counts, strict=True))
        )

    def make(self, index: int, x: Tensor) -> Tensor:
        """`[B,N,D]` → the queries of the `index`-th block `[1,count,D]`, the same for all."""
        return self.queries[index][None]

    def receive(self, index: int, out: Tensor) -> None:
        """What the queries of the `index`-th block read `[B,count,outputs]`."""
        self._read[index] = out

    @property
    def reads(self) -> int:
        """Numbers for each example: those of all queries."""
        return sum(count * size for count, size in zip(self.counts, self.outputs, strict=True))

    def read(self) -> Tensor:
        """What all queries read `[B,reads]`, block by block, with dropout."""
        if len(self._read) < len(self.blocks):
            raise PromptError(
                "These queries have had no input yet. Use them in a vpt.PromptedModel whose readout"
                ' reads them: vpt.Linear(…, of="queries").'
            )
        found = [self._read[i].flatten(1).float() for i in range(len(self.blocks))]
        self._read = {}
        return self.dropout(torch.cat(found, dim=1))

    def config(self) -> Config:
        """Sizes, blocks, and how they read."""
        return {
            "count": self.count if len(set(self.counts)) == 1 else self.counts,
            "widths": self.widths,
            "outputs": self.outputs,
            "blocks": self.blocks,
            "through": self.through,
            "dropout": self.dropout.p,
        }

    def describe(self) -> str:
        """One line for people."""
        one = len(self.blocks) == 1
        if len(set(self.counts)) > 1:
            each = ", ".join(
                f"{count} block {block}"
                for count, block in zip(self.counts, self.blocks, strict=True)
            )
            return f"{sum(self.counts)} queries read: {each}"
        queries = "1 query reads" if self.count == 1 else f"{self.count} queries read"
        return (
            f"{queries} {'block' if one else 'each of blocks'} {', '.join(map(str, self.blocks))}"
        )

    def __getstate__(self) -> dict[str, Any]:
        """A copy has read nothing."""
        return self.__dict__ | {"_read": {}}


def default_blocks(depth: int) -> list[int]:
    """At half, three quarters and the end of the depth: 6, 9 and 11 of 12."""
    return sorted({depth // 2, depth * 3 // 4, depth - 1})
