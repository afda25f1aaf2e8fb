"""Watch one forward: which blocks ran, what their attention was given, which layers said the
answer.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle

from vpt.backbones.finding.structure import (
    Args,
    Block,
    Kwargs,
    Structure,
    candidates,
    first_sequence,
    fused,
    logits_of,
    tokens_among,
)
from vpt.errors import BackboneError

ROTARY = "rope"  # the argument that holds rotary angles, in timm
SDPA_NAMES = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal")


class _Watcher(TorchFunctionMode):
    """Hooks for one forward: blocks' and attentions' inputs, SDPA's keys, linear layers' 2-D
    outputs. Removed by `close`.
    """

    def __init__(self, model: nn.Module, lists: list[list[Block]], batch: int) -> None:
        super().__init__()
        self.batch = batch
        self.inside: Block | None = None
        self.before: nn.Module | None = None
        self.seen = self.attending = False
        self.calls: list[nn.Module] = []
        self.linears: list[tuple[nn.Linear, Tensor, Tensor]] = []
        self.embedding = 0
        self.handles: list[RemovableHandle] = []
        self.blocks = {id(b.module): b for blocks in lists for b in blocks}
        for block in self.blocks.values():
            self.handles.append(
                block.module.register_forward_pre_hook(self._block, with_kwargs=True)
            )
            self.handles.append(block.module.register_forward_hook(self._after))
            self.handles.append(
                block.attention.register_forward_pre_hook(self._attention, with_kwargs=True)
            )
            self.handles.append(block.attention.register_forward_hook(self._attended))
            for child in block.module.children():
                self.handles.append(child.register_forward_hook(self._child))
        for module in model.modules():
            if isinstance(module, (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)):
                self.handles.append(module.register_forward_hook(self._layer))

    def _block(self, module: nn.Module, args: Args, kwargs: Kwargs) -> None:
        x, block = tokens_among(args, kwargs), self.blocks[id(module)]
        if x is None:
            return
        self.inside, self.before, self.seen = block, None, False
        self.calls.append(module)
        block.width, block.grid = x.shape[-1], x.ndim == 4
        block.seq_first = x.ndim == 3 and x.shape[0] != self.batch and x.shape[1] == self.batch
        count = x.shape[0] if block.seq_first else x.shape[1:-1].numel()
        extra = {f"argument {i}": value for i, value in enumerate(args)} | kwargs
        for name, value in extra.items():
            if not isinstance(value, Tensor) or value is x:
                continue
            if name == ROTARY:
                block.rotary = name
            elif count in value.shape:
                block.unknown = name

    def _after(self, module: nn.Module, args: Args, output: object) -> None:
        self.inside = None

    def _child(self, module: nn.Module, args: Args, output: object) -> None:
        """The last child that ran before the attention: the norm, in a block with windows."""
        if self.inside is not None and not self.seen:
            self.before = module

    def _attention(self, module: nn.Module, args: Args, kwargs: Kwargs) -> None:
        self.attending = True
        block, x = self.inside, first_sequence(args, kwargs)
        if block is None or module is not block.attention or self.seen:
            return
        self.seen, block.norm = True, self.before
        block.windowed = (
            x is not None and not block.seq_first and (block.grid or x.shape[0] != self.batch)
        )

    def _attended(self, module: nn.Module, args: Args, output: object) -> None:
        self.attending = False

    def _layer(self, module: nn.Module, args: Args, output: Tensor) -> None:
        if not self.embedding:
            self.embedding = module.weight[0].numel()  # type: ignore[index]
        if isinstance(module, nn.Linear) and output.ndim == 2:
            self.linears.append((module, args[0], output))

    def __torch_function__(
        self,
        func: Callable[..., object],
        types: object,
        args: Args = (),
        kwargs: Kwargs | None = None,
    ) -> object:
        block, kwargs = self.inside, kwargs or {}
        if block is not None and func in (
            F.scaled_dot_product_attention,
            F.multi_head_attention_forward,
        ):
            if not self.attending:  # what was taken for the attention is not
                block.attention = block.module
            if func is F.scaled_dot_product_attention:
                block.calls += 1
                call = dict(zip(SDPA_NAMES, args, strict=False)) | kwargs
                if call["key"].ndim == 4 and call["key"].shape == call["value"].shape:
                    block.heads, block.head_dim = call["key"].shape[1], call["key"].shape[3]
                block.masked |= call.get("attn_mask") is not None
            elif func is F.multi_head_attention_forward:
                block.calls += 1
                width, block.heads = args[3], args[4]
                block.head_dim = width // args[4]
                block.masked |= any(
                    kwargs.get(name) is not None for name in ("key_padding_mask", "attn_mask")
                )
        return func(*args, **kwargs)

    def close(self) -> None:
        for handle in self.handles:
            handle.remove()


def watch(model: nn.Module, batch: int, path: str | None, run: Callable[[], object]) -> Structure:
    """Run one forward and say what it showed. Raises `BackboneError` if the blocks named by `path`
    were not used.

    batch: B of that forward, no other dimension of which should have this size.
    """
    lists = candidates(model, path)
    with ExitStack() as stack:
        for block in (b for blocks in lists for b in blocks):
            stack.enter_context(fused(block.attention))
        watcher = _Watcher(model, lists, batch)
        stack.callback(watcher.close)
        with torch.no_grad(), watcher:
            answer = logits_of(run())
    used = [
        blocks
        for blocks in lists
        if [m for m in watcher.calls if any(m is b.module for b in blocks)] == _modules(blocks)
    ]
    if path is not None and not used:
        raise BackboneError(
            f"The modules in blocks={path!r} were not called once each, in order, with tokens"
            " [B,N,D]."
        )
    windowed = any(block.windowed for block in used[0]) if used else False
    for block in used[0] if used else []:
        block.windowed = windowed  # a last stage may be one window, which looks like a sequence
        if block.masked and block.heads:
            # it is the mask, and that is padded where attention is intercepted
            block.unknown = None
    classifiers = (
        _classifiers(watcher.linears, answer) if answer is not None and answer.ndim == 2 else []
    )
    return Structure(used[0] if used else [], classifiers, watcher.embedding)


def _modules(blocks: list[Block]) -> list[nn.Module]:
    return [block.module for block in blocks]


def _classifiers(
    linears: list[tuple[nn.Linear, Tensor, Tensor]], answer: Tensor
) -> list[nn.Linear]:
    """The linear layers whose outputs, averaged, are the model's answer: one, or two in a distilled
    model.
    """
    same = [(layer, out) for layer, _, out in linears if out.shape == answer.shape]
    for count in (1, 2):
        tail = same[-count:]
        if len(tail) < count:
            continue
        mean = torch.stack([out for _, out in tail]).mean(0)
        if torch.allclose(mean, answer, atol=1e-5, rtol=1e-4):
            layers = [layer for layer, _ in tail]
            return layers if len({layer.in_features for layer in layers}) == 1 else []
    return []
