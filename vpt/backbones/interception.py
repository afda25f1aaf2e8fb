"""Keys and values beside a block's own: `scaled_dot_product_attention` is intercepted while the block's attention runs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle

from vpt.backbones.structure import Block
from vpt.errors import PromptError
from vpt.sites import KeyValues

SDPA_NAMES = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal")


class AttentionMode(TorchFunctionMode):
    """While active, hands every call of `scaled_dot_product_attention` to `rewrite(arguments)` first."""

    def __init__(self, interception: Interception) -> None:
        super().__init__()
        self.interception = interception

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        if func is not F.scaled_dot_product_attention:
            return func(*args, **kwargs)
        call = dict(zip(SDPA_NAMES, args, strict=False)) | kwargs
        return func(**self.interception.rewrite(call))


class Interception:
    """The `KeyValues` sites of one block at work; `acted` counts the attention calls that were given their rows."""

    def __init__(self, sites: list[KeyValues]) -> None:
        self.sites = sites
        self.acted = 0
        self._active: list[AttentionMode] = []

    def install(self, blocks: list[Block]) -> list[RemovableHandle]:
        """Hook the attention module only: a torch-function mode costs a little on every call inside it."""
        attention = blocks[self.sites[0].block].attention
        return [
            attention.register_forward_pre_hook(self.enter),
            attention.register_forward_hook(self.leave, always_call=True),
        ]

    def enter(self, module: nn.Module, args: tuple) -> None:
        """Before the attention module."""
        mode = AttentionMode(self)
        mode.__enter__()
        self._active.append(mode)

    def leave(self, module: nn.Module, args: tuple, output: Any) -> None:
        """After the attention module, also when it raised."""
        self.release()

    def release(self) -> None:
        """Leave every mode that is still active."""
        while self._active:
            self._active.pop().__exit__(None, None, None)

    def rewrite(self, call: dict[str, Any]) -> dict[str, Any]:
        """SDPA's arguments with each site's rows in front of the keys and values, and its mask padded to match."""
        for site in self.sites:
            key, value = call["key"], call["value"]
            if call.get("is_causal"):
                raise PromptError("This attention is causal: a key/value prefix has no place in it.")
            keys, values, bias = site.make(key, value)
            call["key"] = _in_front(keys, key)
            call["value"] = _in_front(values, value)
            call["attn_mask"] = _pad_mask(call.get("attn_mask"), bias, call["query"], key, site.count)
        self.acted += 1
        return call


def _in_front(rows: Tensor, own: Tensor) -> Tensor:
    rows = rows.to(own.dtype).expand(len(own), *rows.shape[1:])
    return torch.cat([rows, own], dim=-2)


def _pad_mask(mask: Tensor | None, bias: Tensor | None, query: Tensor, key: Tensor, count: int) -> Tensor | None:
    """The mask for `count` more keys in front: they are seen by every query, `bias` is added to their scores."""
    if mask is None and bias is None:
        return None
    if mask is None:
        mask = query.new_zeros(1, 1, query.shape[-2], key.shape[-2])
    elif mask.dtype == torch.bool and bias is not None:
        mask = torch.zeros_like(mask, dtype=query.dtype).masked_fill(~mask, float("-inf"))
    seen = mask.new_ones if mask.dtype == torch.bool else mask.new_zeros
    rows = seen(*mask.shape[:-1], count)
    if bias is None:
        return torch.cat([rows, mask], dim=-1)
    rows = rows + bias.to(rows.dtype)
    batch = [max(a, b) for a, b in zip(rows.shape[:-1], mask.shape[:-1], strict=True)]
    return torch.cat([rows.expand(*batch, count), mask.expand(*batch, mask.shape[-1])], dim=-1)
