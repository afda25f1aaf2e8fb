"""Deep tokens as what they are to a frozen block: constant keys and values.

A block throws away what it makes of tokens that are cut off behind it, so they act through their
keys and values alone, and those do not depend on the other tokens. The block's own norm and
projections run on the prompt rows; nothing else does.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from vpt.backbones.acting.actor import reached_nothing
from vpt.backbones.acting.interception import Interception
from vpt.backbones.finding.reach import Reach
from vpt.backbones.finding.structure import Args, Block, Kwargs, replace_sequence, tokens_among
from vpt.errors import PromptError
from vpt.sites import Rows, Tokens


class Recording:
    """One `Tokens` site (i, i) at work; `acted` counts the forwards in which its rows were handed
    to the attention.

    held: keys and values that are used instead of new ones; a forward while `baking` is set puts
        them there.
    """

    def __init__(self, site: Tokens, interception: Interception) -> None:
        self.site = site
        self.interception = interception
        self.acted = 0
        self.baking = False
        self.held: tuple[Tensor, Tensor] | None = None

    @property
    def silent(self) -> bool:
        """Whether the rows reached no attention."""
        return self.acted == 0 or self.interception.acted == 0

    def silence(self, reach: Reach) -> str:
        """What is said then."""
        what = f"Prompt tokens at blocks {self.site.first} to {self.site.last}"
        return reached_nothing(what, reach)

    def begin(self, narrow: bool) -> None:
        """A forward begins."""
        self.acted = 0

    def end(self) -> None:
        """Nothing: `forget` let go of the rows behind the block."""

    def install(self) -> list[RemovableHandle]:
        """Hook the block; the attention is hooked by the interception."""
        block = self.interception.block.module
        return [
            block.register_forward_pre_hook(self.enter, with_kwargs=True),
            block.register_forward_hook(self.forget, always_call=True),
        ]

    def enter(self, module: nn.Module, args: Args, kwargs: Kwargs) -> None:
        """Before the block: make the rows `[B,count,D]`, or `[1,count,D]` where all samples share
        them, and record them.
        """
        x, block = tokens_among(args, kwargs), self.interception.block
        if x is None:
            raise PromptError(f"{type(module).__name__} was called without tokens [B,N,D].")
        made = self.site.make(x.transpose(0, 1) if block.seq_first else x.flatten(1, -2))
        rows, mixed = (made.rows, made) if isinstance(made, Rows) else (made, None)
        self.acted += 1
        if self.held is not None:
            if torch.is_grad_enabled() and rows.requires_grad:
                raise PromptError(
                    "A baked prompt learns nothing: inside `with model.baked()` run the model under"
                    " torch.no_grad() or torch.inference_mode()."
                )
            self.interception.recorded.append((*self.held, None))
            return
        if not rows.shape[1]:  # a batch in which nobody has tokens here
            return
        if rows.stride(0) == 0:  # expanded: the same for every sample
            rows = rows[:1]
        rows = rows.to(x.dtype)
        call = self.interception.capture(lambda: send(block, rows, args, kwargs))
        keys, values = call["key"], call["value"]
        if mixed is not None:  # each prompt went through once, however many samples have it
            index = mixed.index
            self.interception.recorded.append((keys[index], values[index], mixed.bias))
            return
        self.interception.recorded.append((keys, values, None))
        if self.baking:
            if len(rows) > 1:
                raise PromptError(
                    f"The tokens of block {self.site.first} differ from sample to sample (dropout"
                    " in training, or a prompt made from its input): their keys and values cannot"
                    " be computed once."
                )
            self.held = keys.detach(), values.detach()

    def __getstate__(self) -> dict[str, object]:
        """A copy holds nothing: it may get another prompt."""
        return self.__dict__ | {"baking": False, "held": None}

    def forget(self, module: nn.Module, args: Args, output: object) -> None:
        """After the block, also when it raised: let go of the rows."""
        self.interception.recorded = []


def send(block: Block, rows: Tensor, args: Args, kwargs: Kwargs) -> Any:
    """What a block gives for rows `[B|1,P,D]`, called with these arguments otherwise; where it cuts
    windows, what its norm and attention do.
    """
    if block.windowed:
        return block.attention(rows if block.norm is None else block.norm(rows))
    own = rows.transpose(0, 1) if block.seq_first else rows
    args, kwargs = replace_sequence(args, kwargs, own)
    args = tuple(value if value is own else _without_tokens(value) for value in args)
    kwargs = {
        name: value if value is own else _without_tokens(value) for name, value in kwargs.items()
    }
    return block.module.forward(*args, **kwargs)


def _without_tokens(value: object) -> object:
    """An argument for a block that sees prompt rows only: masks and biases go, positions become
    empty, scalars stay.
    """
    if isinstance(value, Tensor):
        return None
    if (
        isinstance(value, (tuple, list))
        and value
        and all(isinstance(part, Tensor) for part in value)
    ):
        return type(value)(part[..., :0, :] for part in value)
    return value
