"""The last block of a model that reads its first tokens only (a class token): the others are keys
and values to them.

Their own queries, projections and MLP in that block are work that nothing reads, forwards or
backwards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.hooks import RemovableHandle

from vpt.backbones.acting.interception import Interception
from vpt.backbones.acting.recording import send
from vpt.backbones.finding.reach import Reach
from vpt.backbones.finding.structure import (
    Args,
    Block,
    Call,
    Kwargs,
    first_sequence,
    replace_sequence,
)


def tokens_read(blocks: list[Block], run: Callable[[], Tensor]) -> tuple[Tensor, int]:
    """(features `[1,D]` that `run()` gives, how many of the last block's first tokens they come
    from: 0 where it is all).

    The gradient says which: it is zero, not small, for tokens that a model with a class token
    drops. Then these are replaced by noise, which must change no bit (a maximum over tokens has no
    gradient for some of them, and reads them all).
    """
    tokens: list[Tensor] = []
    count = 0

    def leaf(x: Tensor) -> Tensor:
        tokens.append(x.detach().requires_grad_())
        return tokens[-1]

    def spoilt(x: Tensor) -> Tensor:
        return torch.cat(
            [x[:, :count], x[:, count:] + 100 * x.std() * torch.rand_like(x[:, count:])], dim=1
        )

    if not blocks or torch.is_inference_mode_enabled():
        return run(), 0
    with _changed(blocks[-1], leaf), torch.enable_grad():
        features = run()
    weights = torch.linspace(1, 2, features.numel(), device=features.device).view_as(features)
    gradients = (
        torch.autograd.grad((features * weights).sum(), tokens, allow_unused=True)
        if features.requires_grad
        else ()
    )
    if len(gradients) != 1 or gradients[0] is None or gradients[0].ndim != 3:
        return features.detach(), 0
    reached = gradients[0][0].count_nonzero(-1).nonzero()
    count = int(reached.max()) + 1 if len(reached) else 0
    if not 0 < count < gradients[0].shape[1]:
        return features.detach(), 0
    with _changed(blocks[-1], spoilt), torch.random.fork_rng(devices=[]), torch.no_grad():
        same = torch.equal(run(), features)
    return features.detach(), count if same else 0


@contextmanager
def _changed(block: Block, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Inside, the tokens that a block gives are changed, before any other hook sees them."""

    def hook(module: nn.Module, args: Args, output: Any) -> Any:
        return (change(output[0]), *output[1:]) if isinstance(output, tuple) else change(output)

    handle = block.module.register_forward_hook(hook, prepend=True)
    try:
        yield
    finally:
        handle.remove()


def can_narrow(block: Block) -> bool:
    """Whether a few of a block's tokens can go through it alone, the others being keys and values:
    order tells it nothing.
    """
    plain = not (
        block.windowed
        or block.grid
        or block.seq_first
        or block.masked
        or block.rotary
        or block.unknown
    )
    return plain and block.heads is not None and block.calls == 1


class Narrowing:
    """At work on the last block: its first `read` tokens go through it, the others come out as
    zeros that nobody reads.

    active: only then; a user who runs the model itself, past the backbone, may want them all.
    """

    def __init__(self, read: int, interception: Interception) -> None:
        self.read = read
        self.interception = interception
        self.acted = 0
        self.active = False

    def begin(self, narrow: bool) -> None:
        """A forward begins."""
        self.acted = 0
        self.active = narrow

    silent = False  # it may always leave the block whole

    def silence(self, reach: Reach) -> str:
        """Nothing is ever missed."""
        return ""

    def end(self) -> None:
        """A user who runs the model itself gets all tokens."""
        self.active = False

    def install(self) -> list[RemovableHandle]:
        """Hook the block, behind the prompts that see all its tokens."""
        block = self.interception.block.module
        return [
            block.register_forward_pre_hook(self.enter, with_kwargs=True),
            block.register_forward_hook(self.leave, prepend=True, always_call=True),
        ]

    def enter(self, module: nn.Module, args: Args, kwargs: Kwargs) -> Call | None:
        """Before the block: `[B,N,D]` → `[B,read,D]`. All go through if the block is given any
        other tensor (a mask).
        """
        x = first_sequence(args, kwargs)
        if (
            not self.active
            or x is None
            or any(
                value is not None and value is not x and not _plain(value)
                for value in (*args, *kwargs.values())
            )
        ):
            return None
        rest = x[:, self.read :]
        call = self.interception.capture(lambda: send(self.interception.block, rest, args, kwargs))
        self.interception.hidden = call["key"], call["value"]
        self.acted += 1
        return replace_sequence(args, kwargs, x[:, : self.read])

    def leave(self, module: nn.Module, args: Args, output: Any) -> Any:
        """After the block, also when it raised: `[B,read,D]` → `[B,N,D]`."""
        hidden, self.interception.hidden = self.interception.hidden, None
        if hidden is None or output is None:
            return output
        count = hidden[0].shape[-2]
        x: Tensor = output[0] if isinstance(output, tuple) else output
        x = F.pad(x, (0, 0, 0, count))
        return (x, *output[1:]) if isinstance(output, tuple) else x


def _plain(value: object) -> bool:
    """A setting of the block: a number, a name, a flag."""
    return isinstance(value, (bool, int, float, str))
