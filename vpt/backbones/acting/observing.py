"""A site that sees a block's tokens before all that acts there, and changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from vpt.backbones.acting.actor import reached_nothing
from vpt.backbones.finding.reach import Reach
from vpt.backbones.finding.structure import Args, Block, Kwargs, tokens_among
from vpt.errors import PromptError


class Observing:
    """One `Observe` site at work on the tokens `[B,N,D]` of a block; where a block cuts windows,
    the tokens are those of the whole map.

    behind: look at what leaves the block instead.
    """

    def __init__(self, tell: Callable[[Tensor], None], block: Block, behind: bool = False) -> None:
        self.tell = tell
        self.block = block
        self.behind = behind
        self.acted = 0

    def install(self) -> list[RemovableHandle]:
        """Hook the block."""
        if self.behind:  # last of all, when tokens that were put in front are cut off again
            return [self.block.module.register_forward_hook(self.leave)]
        return [self.block.module.register_forward_pre_hook(self.enter, with_kwargs=True)]

    def begin(self, narrow: bool) -> None:
        """A forward begins."""
        self.acted = 0

    @property
    def silent(self) -> bool:
        """Whether nothing was seen."""
        return self.acted == 0

    def silence(self, reach: Reach) -> str:
        """What is said then."""
        return reached_nothing(f"What looks at block {self.block.name}", reach)

    def end(self) -> None:
        """Nothing was kept."""

    def enter(self, module: nn.Module, args: Args, kwargs: Kwargs) -> None:
        """Before the block."""
        self._look(module, tokens_among(args, kwargs))

    def leave(self, module: nn.Module, args: Args, output: Any) -> None:
        """After the block."""
        self._look(module, output[0] if isinstance(output, tuple) else output)

    def _look(self, module: nn.Module, x: Tensor | None) -> None:
        if x is None:
            raise PromptError(f"{type(module).__name__} was called without tokens [B,N,D].")
        self.tell(x.transpose(0, 1) if self.block.seq_first else x.flatten(1, -2))
        self.acted += 1
