"""Prompts made for each sample: learned parts are chosen or weighted by a query, and become keys
and values.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vpt.errors import PromptError
from vpt.errors.needs import whole
from vpt.prompts.base import MOST, Prompt, choose_blocks, head_sizes, heads_of
from vpt.sites import BackboneLike, Bare, Config, KeyValues, Observe, Site

Blocks = Sequence[int] | Literal["all"] | None


class Queried(Prompt):
    """Base of prompts p(x) `[B,length,D]` whose first half goes in front of a block's keys and
    second half of its values, after the block's own projections, in heads (prefix tuning as in
    DualPrompt, Wang et al. ECCV 2022, section 4.2).

    The query is what the frozen model makes of the sample without a prompt (its features `[B,D]`),
    which costs a forward more, kept for inputs that come again; or with one_pass the mean of the
    tokens that enter the prompted block (after OS-Prompt, Kim et al. 2024; not the class token,
    which has seen nothing before block 0). It gets no gradient, and no sample's query or choice
    depends on another sample. width: of the query, a list for one_pass where blocks differ. Raises
    `PromptError` for an odd length, or sizes below 1.
    """

    selects = True
    # whether the newest task's parts are taken where the choice is by task, as in training
    newest = False

    def __init__(
        self,
        length: int,
        heads: int | Sequence[int],
        head_dim: int | Sequence[int],
        blocks: Sequence[int],
        width: int | Sequence[int],
        one_pass: bool = False,
    ) -> None:
        super().__init__()
        blocks = list(blocks)
        self.each = half_of(length)
        self.sizes = head_sizes(heads, head_dim, blocks)
        self.widths = [width] * len(blocks) if isinstance(width, int) else list(width)
        sizes: Config = {f"width_{i}": size for i, size in enumerate(self.widths)}
        whole(PromptError, **sizes)
        if len(self.widths) != len(blocks):
            raise PromptError(
                f"Found {len(self.widths)} query widths for {len(blocks)} blocks; needed is one, or"
                " one per block."
            )
        self.blocks = choose_blocks(blocks, max(blocks) + 1)
        self.length = length
        self.heads = heads
        self.head_dim = head_dim
        self.width = width
        self.one_pass = one_pass
        self._queries: list[Tensor] = []

    @staticmethod
    def places(
        backbone: BackboneLike, blocks: Blocks, default: Sequence[int], one_pass: bool
    ) -> Config:
        """Blocks, head sizes and query width taken from a backbone. Raises `PromptError`."""
        backbone.reach.need_blocks()
        chosen = choose_blocks(blocks if blocks is not None else default, backbone.depth)
        widths = [backbone.widths[i] for i in chosen]
        width = (
            (widths[0] if len(set(widths)) == 1 else widths) if one_pass else backbone.out_features
        )
        return {
            "blocks": chosen,
            "width": width,
            "one_pass": one_pass,
            **heads_of(backbone, chosen),
        }

    def sites(self) -> tuple[Site, ...]:
        """Where the query comes from, and one place per block."""
        count = self.each * self.taken
        found: list[Site] = [] if self.one_pass else [Bare(self._receive)]
        for i, block in enumerate(self.blocks):
            if self.one_pass:
                found.append(Observe(block, tokens=partial(self._look, i)))
            found.append(KeyValues(block, count, partial(self.make, i)))
        return tuple(found)

    taken = 1  # how many prompts of `length` rows a sample gets

    def _receive(self, query: Tensor) -> None:
        self._check_width(query, 0)
        self._queries = [query] * len(self.blocks)

    def _look(self, index: int, x: Tensor) -> None:
        """Tokens `[B,N,D]` before a block: their mean is its query."""
        if index == 0 or len(self._queries) != len(self.blocks):
            self._queries = [x.new_zeros(0)] * len(self.blocks)
        self._check_width(x, index)
        self._queries[index] = x.detach().float().mean(1)

    def _check_width(self, query: Tensor, index: int) -> None:
        if query.shape[-1] != self.widths[index]:
            raise PromptError(
                f"Found a query of width {query.shape[-1]} for a prompt made for"
                f" {self.widths[index]}. Make the prompt for this backbone:"
                f" {type(self).__name__}.like(backbone)."
            )

    def query(self, index: int) -> Tensor:
        """The query `[B,D]` of the batch that runs, at the `index`-th prompted block. Raises
        `PromptError` before the first.
        """
        if not self._queries:
            raise PromptError(
                "This prompt is made from a query, and has had no input yet. Use it in a"
                " vpt.PromptedModel."
            )
        return self._queries[index].to(next(self.parameters()).dtype)

    def make(self, index: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor, None]:
        """A block's own keys and values → keys and values `[B|1,heads,count,d]` of each sample's
        prompt for it.
        """
        with torch.autocast(keys.device.type, enabled=False):  # the choice is the penalty's
            rows = self.rows(index, self.query(index))
        heads, size = self.sizes[index]
        parts = (rows[:, :, : self.each], rows[:, :, self.each :])
        own_keys, own_values = (
            part.flatten(1, 2).unflatten(2, (heads, size)).transpose(1, 2) for part in parts
        )
        return own_keys, own_values, None

    @abstractmethod
    def rows(self, index: int, query: Tensor) -> Tensor:
        """Query `[B,D]` → prompts `[B|1,taken,length,D]` for the `index`-th prompted block."""

    @abstractmethod
    def weights(self, index: int, query: Tensor) -> Tensor:
        """Query `[B,D]` → how much of each learned part a sample gets `[B,M]`; its statistics show
        whether all are used.
        """

    @torch.no_grad()
    def usage(self) -> list[Tensor]:
        """For each prompted block, |weight| of each part `[M]`, mean over the batch that was just
        seen.
        """
        return [self.weights(i, self.query(i)).abs().mean(0).cpu() for i in range(len(self.blocks))]

    def config(self) -> Config:
        """Sizes and blocks, and where the query comes from."""
        return {
            "length": self.length,
            "heads": self.heads,
            "head_dim": self.head_dim,
            "blocks": self.blocks,
            "width": self.width,
            "one_pass": self.one_pass,
        }

    def _prompt_width(self, index: int) -> int:
        return self.sizes[index][0] * self.sizes[index][1]


def half_of(length: int, name: str = "length") -> int:
    """Half of a prompt's length: as many keys as values. Raises `PromptError` for an odd one."""
    said: Config = {name: length}
    whole(PromptError, **said)
    if length % 2:
        raise PromptError(
            f"Found {name}={length}; needed is an even number: its first half are keys, its second"
            " half values."
        )
    whole(PromptError, most=MOST, count=length // 2)
    return length // 2


def cosine(query: Tensor, keys: Tensor) -> Tensor:
    """Queries `[B,D]` and keys `[M,D]` → cosine similarities `[B,M]`."""
    return F.normalize(query, dim=-1) @ F.normalize(keys, dim=-1).T


def freeze(parameters: nn.ParameterList) -> None:
    """They learn no more."""
    for parameter in parameters:
        parameter.requires_grad_(False)


def draw(
    shape: Sequence[int],
    bound: float | None,
    generator: torch.Generator,
    like: Tensor | None = None,
) -> nn.Parameter:
    """A parameter drawn from U(−bound, bound), or rows of length one in random directions; on the
    device of `like`.
    """
    value = (
        torch.empty(tuple(shape))
        if like is None
        else torch.empty(tuple(shape), device=like.device, dtype=like.dtype)
    )
    if not value.is_meta:
        drawn = (
            torch.randn(tuple(shape), generator=generator)
            if bound is None
            else torch.rand(tuple(shape), generator=generator)
        )
        value.copy_(F.normalize(drawn, dim=-1) if bound is None else (2 * drawn - 1) * bound)
    return nn.Parameter(value)
