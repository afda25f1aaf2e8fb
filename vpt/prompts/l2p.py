"""A pool of prompts from which each sample takes the nearest: Learning to Prompt (Wang et al., CVPR
2022).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vpt.errors import PromptError
from vpt.errors.needs import whole
from vpt.prompts.base import MOST, vpt_bound
from vpt.prompts.queried import Blocks, Queried, cosine, draw
from vpt.prompts.registry import register
from vpt.sites import BackboneLike, Config


@register("l2p:POOL", "a pool; each sample takes the nearest to its query (L2P)")
class L2P(Queried):
    """Each sample takes the `top` of `pool` prompts whose keys are nearest to its query; the loss
    draws these keys nearer: CE − pull · (1/B) Σ_b Σ_{m taken} cos(q_b, k_m).

    In the form of prefixes (L2P++ in Smith et al., CVPR 2023), read from the model's own class
    token; the original puts tokens in front of block 0 and chooses by a majority of the batch. Each
    prompted block has a pool of its own. keys: per block `[pool,D]`; prompts: per block
    `[pool,length,D]`. Raises `PromptError` for more to take than there are.
    """

    def __init__(
        self,
        pool: int,
        length: int,
        top: int,
        heads: int | Sequence[int],
        head_dim: int | Sequence[int],
        blocks: Sequence[int],
        width: int | Sequence[int],
        pull: float = 0.5,
        one_pass: bool = False,
    ) -> None:
        super().__init__(length, heads, head_dim, blocks, width, one_pass)
        whole(PromptError, most=MOST, pool=pool, top=top)
        if top > pool:
            raise PromptError(
                f"Found top={top} of pool={pool} prompts; needed is at most all of them."
            )
        self.pool = pool
        self.top = top
        self.pull = pull
        self._draw(0)

    @property
    def taken(self) -> int:  # type: ignore[override]
        """How many prompts a sample gets."""
        return self.top

    @classmethod
    def like(
        cls,
        backbone: BackboneLike,
        pool: int = 30,
        *,
        length: int = 20,
        top: int | None = None,
        blocks: Blocks = None,
        pull: float = 0.5,
        one_pass: bool = False,
        seed: int = 0,
    ) -> L2P:
        """Of a backbone's sizes; by default L2P++'s published ones (L2P itself: 4 of 10, length 5).

        backbone: whose keys and values they join.
        pool: how many prompts there are to choose from.
        length: of each, half keys and half values.
        top: how many are chosen; 5 by default, or all of a smaller pool.
        blocks: their numbers; block 0 by default.
        pull: weight of the term that draws keys to their queries.
        one_pass: take the query from the prompted block's own tokens, instead of a forward more.
        seed: of what is drawn.
        """
        prompt = cls(
            pool,
            length,
            min(5, pool) if top is None else top,
            pull=pull,
            **cls.places(backbone, blocks, [0], one_pass),
        )
        prompt._draw(seed)
        return prompt

    def _draw(self, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        widths = [self._prompt_width(i) for i in range(len(self.blocks))]
        self.keys = nn.ParameterList(
            [draw((self.pool, width), None, generator) for width in self.widths]
        )
        self.prompts = nn.ParameterList(
            [draw((self.pool, self.length, d), vpt_bound(d, d), generator) for d in widths]
        )

    def rows(self, index: int, query: Tensor) -> Tensor:
        """Query `[B,D]` → prompts `[B,top,length,D]`, the nearest first."""
        return self.prompts[index][cosine(query, self.keys[index]).topk(self.top, dim=1).indices]

    def weights(self, index: int, query: Tensor) -> Tensor:
        """Query `[B,D]` → 1 for what a sample takes, 0 for the others `[B,pool]`."""
        found = cosine(query, self.keys[index])
        return torch.zeros_like(found).scatter(1, found.topk(self.top, dim=1).indices, 1.0)

    def penalty(self) -> Tensor:
        """−pull · (1/B) Σ_b Σ_{m taken} cos(q_b, k_m), summed over the prompted blocks."""
        found = [
            cosine(self.query(i), keys).topk(self.top, dim=1).values.sum(1).mean()
            for i, keys in enumerate(self.keys)
        ]
        return -self.pull * torch.stack(found).sum()

    def config(self) -> Config:
        """Sizes of the pool and of the prompts."""
        return {"pool": self.pool, "top": self.top, "pull": self.pull, **super().config()}

    def describe(self) -> str:
        """One line for people."""
        return (
            f"{self.top} of a pool of {self.pool} prompts for each sample, {self.each} keys and"
            f" values each, in block{'s' * (len(self.blocks) > 1)}"
            f" {', '.join(map(str, self.blocks))}"
        )
