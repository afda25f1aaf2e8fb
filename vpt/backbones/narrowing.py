"""The last block of a model that reads its first tokens only (a class token): the others are keys and values to them.

Their own queries, projections and MLP in that block are work that nothing reads, forwards or backwards.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.hooks import RemovableHandle

from vpt.backbones.interception import Interception
from vpt.backbones.recording import send
from vpt.backbones.structure import Block, first_sequence, replace_sequence


def tokens_read(blocks: list[Block], run: Callable[[], Tensor]) -> tuple[Tensor, int]:
    """(features `[1,D]` that `run()` gives, how many of the last block's first tokens they come from: 0 where it is all).

    The gradient says it: it is zero, not small, for tokens that a model with a class token drops.
    """
    tokens: list[Tensor] = []

    def leaf(module: nn.Module, args: tuple, output: Any) -> Any:
        x = output[0] if isinstance(output, tuple) else output
        tokens.append(x.detach().requires_grad_())
        return (tokens[-1], *output[1:]) if isinstance(output, tuple) else tokens[-1]

    if not blocks or torch.is_inference_mode_enabled():
        return run(), 0
    handle = blocks[-1].module.register_forward_hook(leaf, prepend=True)  # before hooks that keep what blocks gave
    try:
        with torch.enable_grad():
            features = run()
    finally:
        handle.remove()
    weights = torch.linspace(1, 2, features.numel(), device=features.device).view_as(features)
    gradients = torch.autograd.grad((features * weights).sum(), tokens, allow_unused=True) if features.requires_grad else ()
    if len(gradients) != 1 or gradients[0] is None or gradients[0].ndim != 3:
        return features.detach(), 0
    reached = gradients[0][0].count_nonzero(-1).nonzero()
    count = int(reached.max()) + 1 if len(reached) else 0
    return features.detach(), count if count < gradients[0].shape[1] else 0


def can_narrow(block: Block) -> bool:
    """Whether a few of a block's tokens can go through it alone, the others being keys and values: order tells it nothing."""
    plain = not (block.windowed or block.grid or block.seq_first or block.masked or block.rotary or block.unknown)
    return plain and block.heads is not None and block.calls == 1


class Narrowing:
    """At work on the last block: its first `read` tokens go through it, the others come out as zeros that nobody reads."""

    def __init__(self, read: int, interception: Interception) -> None:
        self.read, self.interception = read, interception
        self.acted = 0

    def install(self) -> list[RemovableHandle]:
        """Hook the block, behind the prompts that see all its tokens."""
        block = self.interception.block.module
        return [
            block.register_forward_pre_hook(self.enter, with_kwargs=True),
            block.register_forward_hook(self.leave, prepend=True),
        ]

    def enter(self, module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]] | None:
        """Before the block: `[B,N,D]` → `[B,read,D]`. All go through if the block is given any other tensor (a mask)."""
        x = first_sequence(args, kwargs)
        if x is None or any(value is not None and value is not x and not _plain(value) for value in (*args, *kwargs.values())):
            return None
        rest = x[:, self.read :]
        self.interception.hidden = self.interception.capture(lambda: send(self.interception.block, rest, args, kwargs))
        self.acted += 1
        return replace_sequence(args, kwargs, x[:, : self.read])

    def leave(self, module: nn.Module, args: tuple, output: Any) -> Any:
        """After the block: `[B,read,D]` → `[B,N,D]`."""
        if self.interception.hidden is None:
            return output
        count, self.interception.hidden = self.interception.hidden[0].shape[-2], None
        x: Tensor = output[0] if isinstance(output, tuple) else output
        x = F.pad(x, (0, 0, 0, count))
        return (x, *output[1:]) if isinstance(output, tuple) else x


def _plain(value: Any) -> bool:
    """A setting of the block: a number, a name, a flag."""
    return isinstance(value, (bool, int, float, str))
