"""What changes inside a block's attention: `scaled_dot_product_attention` is intercepted while the
attention runs.

Learned rows come beside the keys and values; masks and biases grow with tokens that were inserted.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack, suppress
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle

from vpt.backbones.acting.insertion import Insertion
from vpt.backbones.acting.multihead import grown, multi_head_attention
from vpt.backbones.finding.reach import Reach
from vpt.backbones.finding.structure import Block, fused
from vpt.backbones.finding.watching import SDPA_NAMES
from vpt.errors import PromptError
from vpt.sites import KeyValues

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
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
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
        inserted: whether tokens were put in front, so that masks are too small. padded: insertions
        of which a sample may have fewer tokens than others. observers: are told the block's own
        keys and values.
    """

    def __init__(self, block: Block) -> None:
        self.block = block
        self.sites: list[KeyValues] = []
        self.observers: list[Callable[[Tensor, Tensor], None]] = []
        self.recorded: list[KeyRows] = []
        self.hidden: tuple[Tensor, Tensor] | None = None
        self.inserted = False
        self.padded: list[Insertion] = []
        self.acted = 0
        self._capturing = False
        self._captured: tuple[Tensor, Tensor] | None = None
        self._active: list[ExitStack] = []

    @property
    def silent(self) -> bool:
        """Whether something here should have acted and did not."""
        return self.acted == 0 and bool(
            self.sites or self.observers or self.padded or (self.inserted and self.block.masked)
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

    def enter(self, module: nn.Module, args: tuple) -> None:
        """Before the attention module."""
        stack = ExitStack()
        stack.enter_context(fused(module))
        stack.enter_context(AttentionMode(self))
        self._active.append(stack)

    def leave(self, module: nn.Module, args: tuple, output: Any) -> None:
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

    def capture(self, run: Any) -> tuple[Tensor, Tensor]:
        """The keys and values `[B,heads,P,d]` that the attention makes while `run()` sends rows
        through it.
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
                " or make the PromptedModel with exact='insert'."
            )
        captured, self._captured = self._captured, None
        return captured

    def attend(self, call: dict[str, Any]) -> Tensor:
        """SDPA with each site's rows in front of the keys and values, and its mask grown to
        match.
        """
        if self._capturing:
            self._captured = self._captured or (call["key"], call["value"])
            if not torch.compiler.is_compiling():  # a compiler drops by itself what nothing reads
                raise _Captured
            return call["query"].new_zeros(*call["query"].shape[:-1], call["value"].shape[-1])
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
            call["attn_mask"] = _without_padding(insertion.bias, call)
        key, value = call["key"], call["value"]
        for observer in self.observers:
            observer(key, value)
        for keys, values, bias in [*(site.make(key, value) for site in self.sites), *self.recorded]:
            if not (count := keys.shape[-2]):
                continue
            mask = _pad_mask(call.get("attn_mask"), bias, call["query"], call["key"], count)
            call |= {
                "key": _in_front(keys, call["key"]),
                "value": _in_front(values, call["value"]),
                "attn_mask": mask,
            }
        self.acted += 1
        return _attention(**call)


def _attention(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, **settings: Any
) -> Tensor:
    """SDPA; where it learns in bf16 or fp16 on a CPU, two products, whose backward pass is 1.4 to 5
    times faster there.
    """
    settings = {name: setting for name, setting in settings.items() if setting}
    learns = torch.is_grad_enabled() and (
        query.requires_grad or key.requires_grad or value.requires_grad
    )
    if (
        query.device.type != "cpu"
        or query.dtype == torch.float32
        or not learns
        or settings.keys() - {"scale"}
    ):
        return F.scaled_dot_product_attention(query, key, value, attn_mask=attn_mask, **settings)
    scores = query @ key.mT * settings.get("scale", query.shape[-1] ** -0.5)
    if attn_mask is not None:
        scores = (
            scores.masked_fill(~attn_mask, float("-inf"))
            if attn_mask.dtype == torch.bool
            else scores + attn_mask
        )
    return torch.softmax(scores, dim=-1, dtype=torch.float32).to(value.dtype) @ value


def _without_padding(bias: Tensor | None, call: dict[str, Any]) -> Tensor | None:
    """The mask with a bias that hides what is only padding among tokens in front, the first
    keys.
    """
    mask = call.get("attn_mask")
    if bias is None:
        return mask
    bias = F.pad(bias.to(call["query"].dtype), (0, call["key"].shape[-2] - bias.shape[-1]))
    if mask is None:
        return bias
    if mask.dtype == torch.bool:
        mask = torch.zeros_like(mask, dtype=bias.dtype).masked_fill(~mask, float("-inf"))
    return mask + bias


def _in_front(rows: Tensor, own: Tensor) -> Tensor:
    return torch.cat(
        [_per_window(rows, len(own)).to(own.dtype).expand(len(own), *rows.shape[1:]), own], dim=-2
    )


def _per_window(rows: Tensor, batch: int) -> Tensor:
    """Rows of B samples for `batch` = B · windows attentions, which lie sample by sample."""
    return rows if len(rows) in (1, batch) else rows.repeat_interleave(batch // len(rows), dim=0)


def _pad_mask(
    mask: Tensor | None, bias: Tensor | None, query: Tensor, key: Tensor, count: int
) -> Tensor | None:
    """The mask for `count` more keys in front: they are seen by every query, `bias` is added to
    their scores.
    """
    if mask is None and bias is None:
        return None
    if mask is None:
        mask = query.new_zeros(1, 1, query.shape[-2], key.shape[-2])
    elif mask.dtype == torch.bool and bias is not None:
        mask = torch.zeros_like(mask, dtype=query.dtype).masked_fill(~mask, float("-inf"))
    seen = mask.new_ones if mask.dtype == torch.bool else mask.new_zeros
    mask = mask.expand(*mask.shape[:-1], key.shape[-2])
    rows = seen(*mask.shape[:-1], count)
    if bias is None:
        return torch.cat([rows, mask], dim=-1)
    rows = rows + _per_window(bias, len(query)).to(rows.dtype)
    batch = [max(a, b) for a, b in zip(rows.shape[:-1], mask.shape[:-1], strict=True)]
    return torch.cat([rows.expand(*batch, count), mask.expand(*batch, mask.shape[-1])], dim=-1)
