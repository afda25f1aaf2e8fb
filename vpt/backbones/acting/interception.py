"""What changes inside a block's attention: `scaled_dot_product_attention` is intercepted while the
attention runs.

Learned rows come beside the keys and values; masks and biases grow with tokens that were inserted.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack, suppress
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle

from vpt.backbones.acting.insertion import Insertion
from vpt.backbones.acting.masks import (
    Own,
    attention,
    in_front,
    pad_mask,
    read,
    seen_by_any,
    without_padding,
)
from vpt.backbones.acting.multihead import grown, multi_head_attention
from vpt.backbones.finding.reach import Reach
from vpt.backbones.finding.structure import Args, Block, Kwargs, fused
from vpt.backbones.finding.watching import SDPA_NAMES
from vpt.errors import PromptError
from vpt.sites import Config, KeyValues

T = TypeVar("T")
KeyRows = tuple[Tensor, Tensor, Tensor | None]  # keys, values and bias, as `KeyValues` makes them


class _Captured(Exception):
    """What was sent through the attention for its keys and values alone has given them: nothing
    reads the rest.
    """


class AttentionMode(TorchFunctionMode):
    """While active, every scaled dot-product attention goes through `interception.attend`, torch's
    own module included.
    """

    def __init__(self, interception: Interception) -> None:
        super().__init__()
        self.interception = interception

    def __torch_function__(
        self,
        func: Callable[..., object],
        types: object,
        args: Args = (),
        kwargs: Kwargs | None = None,
    ) -> object:
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention:
            return self.interception.attend(dict(zip(SDPA_NAMES, args, strict=False)) | kwargs)
        if func is F.multi_head_attention_forward:
            return multi_head_attention(self.interception.attend, *args, **kwargs)
        return func(*args, **kwargs)


class Interception:
    """All that acts inside one block's attention; `acted` counts the attention calls that were
    seen.

    sites: `KeyValues` of this block. recorded: rows that deep tokens left there for this forward.
        hidden: keys and values of the model's own tokens that do not go through the block.
        inserted: whether tokens were put in front, so that masks are too small. spans: insertions
        whose tokens pass here. padded: those of which a sample may have fewer tokens than others.
        readers: are told the block's own keys and values.
    """

    def __init__(self, block: Block) -> None:
        self.block = block
        self.sites: list[KeyValues] = []
        self.readers: list[Callable[[Own], None]] = []
        self.recorded: list[KeyRows] = []
        self.hidden: tuple[Tensor, Tensor] | None = None
        self.inserted = False
        self.spans: list[Insertion] = []
        self.padded: list[Insertion] = []
        self.acted = 0
        self._capturing = False
        self._captured: Config | None = None
        self._given: Own | None = None
        self._active: list[ExitStack] = []

    @property
    def silent(self) -> bool:
        """Whether something here should have acted and did not."""
        return self.acted == 0 and bool(
            self.sites or self.readers or self.padded or (self.inserted and self.block.masked)
        )

    def silence(self, reach: Reach) -> str:
        """What is said then."""
        return reach.no_attention(reach.blocks.index(self.block))

    def begin(self, narrow: bool) -> None:
        """A forward begins."""
        self.acted = 0

    def end(self) -> None:
        """Leave every mode that is still active, and let go of recorded rows."""
        while self._active:
            self._active.pop().close()
        self._let_go()

    def install(self) -> list[RemovableHandle]:
        """Hook the attention module only: a torch-function mode costs a little on every call inside
        it.
        """
        attention = self.block.attention
        return [
            attention.register_forward_pre_hook(self.enter),
            attention.register_forward_hook(self.leave, always_call=True),
        ]

    def enter(self, module: nn.Module, args: Args) -> None:
        """Before the attention module."""
        stack = ExitStack()
        stack.enter_context(fused(module))
        stack.enter_context(AttentionMode(self))
        self._active.append(stack)

    def leave(self, module: nn.Module, args: Args, output: object) -> None:
        """After the attention module, also when it raised."""
        if self._active:
            self._active.pop().close()

    def abandon(self) -> None:
        """Let go of what another thread left here; its torch-function modes were its own, and are
        not left again.
        """
        self._active = []
        self._let_go()

    def _let_go(self) -> None:
        self.recorded = []
        self.hidden = None
        self._captured = None
        self._capturing = False
        self._given = None

    def capture(self, run: Callable[[], object]) -> Config:
        """What the attention is called with while `run()` sends rows through it: query, key and
        value `[B,heads,P,d]`, and the rest; nothing behind it runs.
        """
        self._capturing, self._captured = True, None
        try:
            with suppress(_Captured), fused(self.block.attention), AttentionMode(self):
                run()
        finally:
            self._capturing = False
        if self._captured is None:
            raise PromptError(
                f"Block {self.block.name} never called torch's scaled_dot_product_attention on"
                " prompt rows, so they reach nothing. If its attention was switched after the"
                " prompt was attached, switch it back (transformers: attn_implementation='sdpa'),"
                " or make the PromptedModel with via='insert'."
            )
        captured, self._captured = self._captured, None
        return captured

    def answered(self, own: Own, run: Callable[[], T]) -> T:
        """What `run()` gives while the attention sees these keys and values, whatever rows are sent
        through it.
        """
        self._given = own
        try:
            with fused(self.block.attention), AttentionMode(self):
                return run()
        finally:
            self._given = None

    def attend(self, call: Config) -> Tensor:
        """SDPA with each site's rows in front of the keys and values, and its mask grown to
        match.
        """
        if self._capturing:
            self._captured = self._captured or call
            if not torch.compiler.is_compiling():  # a compiler drops by itself what nothing reads
                raise _Captured
            return call["query"].new_zeros(*call["query"].shape[:-1], call["value"].shape[-1])
        if self._given is not None:
            return read(call, self._given)
        if call.get("is_causal"):
            raise PromptError(
                "This attention is causal: prompts have no place in it that every token sees."
            )
        if self.inserted and call.get("attn_mask") is not None:
            call["attn_mask"] = grown(call["attn_mask"], call["query"], call["key"])
        if self.hidden is not None:
            call |= {
                name: torch.cat([call[name], own], -2)
                for name, own in zip(("key", "value"), self.hidden, strict=True)
            }
        for insertion in self.padded:
            call["attn_mask"] = without_padding(insertion.bias, call)
        key, value = call["key"], call["value"]
        if self.readers:
            own = self.own(call)
            for reader in self.readers:
                reader(own)
        for keys, values, bias in [*(site.make(key, value) for site in self.sites), *self.recorded]:
            if not (count := keys.shape[-2]):
                continue
            mask = pad_mask(call.get("attn_mask"), bias, call["query"], call["key"], count)
            call |= {
                "key": in_front(keys, call["key"]),
                "value": in_front(values, call["value"]),
                "attn_mask": mask,
            }
        self.acted += 1
        return attention(**call)

    def own(self, call: Config) -> Own:
        """Keys and values of the model's own tokens, of what an attention is called with."""
        key, value, mask = call["key"], call["value"], call.get("attn_mask")
        front = sum(span.count for span in self.spans)
        valid = None
        # what a window's mask hides is a neighbour in the map, and valid
        if mask is not None and not self.block.windowed:
            rows = front if mask.shape[-2] > 1 else 0  # tokens in front see what is padding, too
            valid = seen_by_any(mask[..., rows:, front:])
        return Own(key[..., front:, :], value[..., front:, :], valid, call.get("scale"))
