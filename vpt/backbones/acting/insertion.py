"""Tokens in a plain sequence of blocks: put in front before a block, cut off after one (the slow,
obvious reference).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from vpt.backbones.acting.actor import reached_nothing
from vpt.backbones.acting.rotary import unrotated
from vpt.backbones.finding.reach import Reach
from vpt.backbones.finding.structure import (
    Args,
    Block,
    Call,
    Kwargs,
    first_sequence,
    replace_sequence,
)
from vpt.errors import PromptError
from vpt.sites import Rows, Tokens


class Insertion:
    """One `Tokens` site at work on a list of blocks; `acted` counts the forwards in which it was
    cut off again.

    count, bias: how many tokens the forward that is running has in front, and what hides those
        that are only padding.
    """

    def __init__(self, site: Tokens, blocks: list[Block]) -> None:
        self.site = site
        self.span = blocks[site.first : site.last + 1]
        self.seq_first = self.span[0].seq_first
        self.acted = 0
        self.count = 0
        self.bias: Tensor | None = None

    def begin(self, narrow: bool) -> None:
        """A forward begins."""
        self.acted = 0

    @property
    def silent(self) -> bool:
        """Whether the tokens never came out again."""
        return self.acted == 0

    def silence(self, reach: Reach) -> str:
        """What is said then."""
        span = f"blocks {self.site.first} to {self.site.last}"
        return reached_nothing(f"Prompt tokens at {span}", reach)

    def end(self) -> None:
        """Let go of the padding."""
        self.bias = None

    def install(self) -> list[RemovableHandle]:
        """Hook the span's first block, and all that rotate; the tokens leave by an `Exit`."""
        return [
            self.span[0].module.register_forward_pre_hook(self.enter, with_kwargs=True),
            *(
                b.module.register_forward_pre_hook(self.keep_angles, with_kwargs=True)
                for b in self.span
                if b.rotary
            ),
        ]

    def enter(self, module: nn.Module, args: Args, kwargs: Kwargs) -> Call:
        """Before block `first`: `[B,N,D]` → `[B,count+N,D]`."""
        x = first_sequence(args, kwargs)
        if x is None:
            raise PromptError(
                f"{type(module).__name__} was called without a token sequence [B,N,D]."
            )
        batch_first = x.transpose(0, 1) if self.seq_first else x
        rows = self.site.make(batch_first)
        if isinstance(rows, Rows):
            self.bias = rows.bias
            rows = rows.rows[rows.index]
        self.count = rows.shape[1]
        joined = torch.cat([rows.to(x.dtype), batch_first], dim=1)
        return replace_sequence(args, kwargs, joined.transpose(0, 1) if self.seq_first else joined)

    def keep_angles(self, module: nn.Module, args: Args, kwargs: Kwargs) -> Call:
        """Before a block with rotary angles: none for the tokens in front."""
        return args, unrotated(kwargs, self.count)


class Exit:
    """Where spans end: after one block, the tokens of all that end there are cut off at once (they
    nest like brackets).
    """

    def __init__(self, spans: list[Insertion]) -> None:
        self.spans = spans

    def install(self) -> list[RemovableHandle]:
        """Hook the block before any other hook on it, so that nobody else sees the tokens."""
        return [self.spans[0].span[-1].module.register_forward_hook(self.cut, prepend=True)]

    def cut(self, module: nn.Module, args: Args, output: Any) -> Any:
        """After the block: `[B,count+N,D]` → `[B,N,D]`; further outputs of the block pass
        unchanged.
        """
        for span in self.spans:
            span.acted += 1
        x, count = (
            output[0] if isinstance(output, tuple) else output,
            sum(span.count for span in self.spans),
        )
        cut: Tensor = x[count:] if self.spans[0].seq_first else x[:, count:]
        return (cut, *output[1:]) if isinstance(output, tuple) else cut
