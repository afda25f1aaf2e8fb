"""Queries: rows that read a block, and are read by nobody.

The model's own tokens go their way untouched. While they pass, the block's keys and values are
seen; behind the block, the rows go through it by themselves, and wherever its attention would have
made keys and values of them it is given those that were seen.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from vpt.backbones.acting.actor import reached_nothing
from vpt.backbones.acting.interception import Interception
from vpt.backbones.acting.masks import Own, read
from vpt.backbones.acting.recording import send
from vpt.backbones.finding.reach import Reach
from vpt.backbones.finding.structure import Args, Block, Kwargs, replace_sequence, tokens_among
from vpt.errors import PromptError
from vpt.sites import Attended, Queries


class Looking:
    """One site at work that is told what a block's attention sees; `acted` counts the forwards in
    which it was.

    apart: the block is run once more, up to its attention, for its keys and values. interception:
        of the block's attention; one that is not installed, if apart.
    """

    def __init__(self, what: str, interception: Interception, apart: bool) -> None:
        self.what = what
        self.interception = interception
        self.apart = apart
        self.acted = 0
        if not apart:
            interception.readers.append(self.see)
        self._own: Own | None = None

    @property
    def silent(self) -> bool:
        """Whether nothing was seen."""
        return self.acted == 0

    def silence(self, reach: Reach) -> str:
        """What is said then."""
        return reached_nothing(self.what, reach)

    def begin(self, narrow: bool) -> None:
        """A forward begins."""
        self.acted = 0

    def end(self) -> None:
        """Let go of keys and values."""
        self._own = None

    def install(self) -> list[RemovableHandle]:
        """Hook the block; the attention is hooked by the interception."""
        block = self.interception.block.module
        return [block.register_forward_hook(self.leave, with_kwargs=True, prepend=True)]

    def see(self, own: Own) -> None:
        """The attention has run."""
        self._own = own

    def leave(self, module: nn.Module, args: Args, kwargs: Kwargs, output: object) -> None:
        """After the block. args, kwargs: as it was called, whatever others made of them."""
        own, self._own = self._own, None
        if not self.wanted:
            self.acted += 1
            return
        if self.apart:
            call = self.interception.capture(lambda: module.forward(*args, **kwargs))
            own = self.interception.own(call)
        if own is not None:
            self.acted += 1
            self.use(own, args, kwargs)

    @property
    def wanted(self) -> bool:
        """Whether anything is to be done with it in this forward."""
        return True

    def use(self, own: Own, args: Args, kwargs: Kwargs) -> None:
        """What is done with it."""


class Telling(Looking):
    """An `Observe` site that is told."""

    def __init__(
        self, tell: Callable[[Attended], None], interception: Interception, apart: bool
    ) -> None:
        name = interception.block.name
        super().__init__(f"What looks at the attention of block {name}", interception, apart)
        self.tell = tell

    def use(self, own: Own, args: Args, kwargs: Kwargs) -> None:
        """Tell it, with what projects rows as this block was called."""
        block, interception = self.interception.block, self.interception
        # of the arguments, those that are not of this batch
        args, kwargs = replace_sequence(args, kwargs, own.key.new_zeros(0, 0, block.width))

        def project(rows: Tensor) -> Tensor:
            rows = rows.to(own.key.dtype)  # rows learn in fp32, whatever the model computes in
            query: Tensor = interception.capture(lambda: send(block, rows, args, kwargs))["query"]
            return query

        self.tell(Attended(own.key, own.value, own.valid, project, own.scale))


class Reading(Looking):
    """One `Queries` site at work."""

    def __init__(self, site: Queries, interception: Interception, apart: bool) -> None:
        super().__init__(f"Queries at block {site.block}", interception, apart)
        self.site = site
        self._rows: Tensor | None = None

    def end(self) -> None:
        """Let go of the rows, too."""
        super().end()
        self._rows = None

    def install(self) -> list[RemovableHandle]:
        """Hook the block, also before it runs."""
        block = self.interception.block.module
        enter = block.register_forward_pre_hook(self.enter, with_kwargs=True)
        return [enter, *super().install()]

    def enter(self, module: nn.Module, args: Args, kwargs: Kwargs) -> None:
        """Before the block: make the rows `[1|B,count,D]`."""
        x, block = tokens_among(args, kwargs), self.interception.block
        if x is None:
            raise PromptError(f"{type(module).__name__} was called without tokens [B,N,D].")
        made = self.site.make(x.transpose(0, 1) if block.seq_first else x.flatten(1, -2))
        self._rows = made.to(x.dtype)

    @property
    def wanted(self) -> bool:
        """Whether there are rows in this forward."""
        return self._rows is None or self._rows.shape[1] > 0

    def use(self, own: Own, args: Args, kwargs: Kwargs) -> None:
        """Hand over what the rows read."""
        rows, x = self._rows, tokens_among(args, kwargs)
        self._rows = None
        if rows is None or x is None:
            return
        batch = x.shape[1 if self.interception.block.seq_first else 0]
        if self.site.through:
            rows = rows.expand(batch, *rows.shape[1:])
            self.site.receive(self._through(rows, own, args, kwargs))
        else:
            self.site.receive(self._heads(rows, own, batch, args, kwargs))

    def _through(self, rows: Tensor, own: Own, args: Args, kwargs: Kwargs) -> Tensor:
        """Rows `[B,count,D]` as they leave the block."""
        block = self.interception.block
        out: Any = self.interception.answered(own, lambda: send(block, rows, args, kwargs))
        out = out[0] if isinstance(out, tuple) else out
        return out.transpose(0, 1) if block.seq_first else out

    def _heads(self, rows: Tensor, own: Own, batch: int, args: Args, kwargs: Kwargs) -> Tensor:
        """What the heads read `[B,count,heads·d]`; of windows, the mean over all of a sample."""
        block = self.interception.block
        call = self.interception.capture(lambda: send(block, rows, args, kwargs))
        out = read(call, own).transpose(1, 2).flatten(2)
        return out.unflatten(0, (batch, -1)).mean(1)


def calls_other_attention(block: Block) -> bool:
    """Whether an attention calls SDPA, where it can be seen, only while we are at it (Swin of timm,
    torch's own module): that would change the model's answer in its last bits.
    """
    return any(
        isinstance(module, nn.MultiheadAttention) or getattr(module, "fused_attn", True) is False
        for module in block.attention.modules()
    )
