"""Prompts that begin late: the activations entering their first block are constants of each input,
computed once and kept.

A forward then skips every block before that one. Nothing about the model is changed beyond a
forward: modules that are skipped get another `forward` while it runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from vpt.backbones.acting.attachment import Attachment
from vpt.backbones.finding.structure import (
    Args,
    Call,
    Kwargs,
    first_sequence,
    recomputes,
    replace_sequence,
)
from vpt.backbones.frozen import Frozen, Output
from vpt.backbones.keeping.memo import Memo, input_keys
from vpt.sites import KeyValues, Observe, Pixels, Queries, Site, Tokens

Forwards = dict[nn.Module, Callable[..., object]]
TOLERANCE = 1e-4  # relative; a wrong shortcut is wrong by far more


def first_block(sites: tuple[Site, ...]) -> int:
    """The first block where something learned acts; 0 where it acts on the input, or nothing acts
    at all.
    """
    if not sites or any(isinstance(site, Pixels) for site in sites):
        return 0
    places = [
        site.first if isinstance(site, Tokens) else site.block
        for site in sites
        if isinstance(site, (Tokens, KeyValues, Queries, Observe))
    ]
    return min(places, default=0)


class FeatureCache(Memo):
    """Tokens `[N,D]` entering block `first`, of each input; `backbone.cache = …` puts it to work.

    budget, half: as for `Memo`.
    """

    def __init__(
        self, backbone: Frozen, first: int, *, budget: int = 2 << 30, half: bool = False
    ) -> None:
        super().__init__(budget, half)
        self.backbone = backbone
        self.first = first
        # what runs before block 0 → the shape it gives, but for B
        self._front_layers: dict[nn.Module, tuple[int, ...]] = {}

    def fits(self, sites: tuple[Site, ...]) -> bool:
        """Whether nothing learned acts before block `first`, or anywhere, and no block runs again
        after the forward.
        """
        return (not sites or first_block(sites) >= self.first) and not recomputes(
            self.backbone.model
        )

    def answer(self, x: Tensor, lengths: Tensor | None, attachment: Attachment) -> Any:
        """What the model answers to preprocessed input `[B,…]`, from block `first` on; missing
        activations are computed first.

        attachment: what acts in this forward.
        """

        def compute(missing: list[int]) -> Tensor:
            some = None if lengths is None else lengths[missing]
            return self._enter(x[missing], some, attachment)

        tokens = self.recall(input_keys(self.backbone.dtype, x, lengths), compute)
        return self._go_on(x, lengths, tokens.to(self._dtype) if self.half else tokens)

    # the two halves of a forward --------------------------------------------------------
    def _enter(self, x: Tensor, lengths: Tensor | None, attachment: Attachment) -> Tensor:
        """Tokens `[B,N,D]` entering block `first`."""
        blocks, seen = self.backbone.blocks, []

        def see(module: nn.Module, args: Args, kwargs: Kwargs) -> None:
            if (sequence := first_sequence(args, kwargs)) is not None:
                seen.append(sequence)

        skipped: dict[nn.Module, Callable[..., object]] = {
            block.module: _same for block in blocks[self.first :]
        }
        handle = blocks[self.first].module.register_forward_pre_hook(
            see, with_kwargs=True, prepend=True
        )
        try:
            with (
                torch.inference_mode(False),
                torch.no_grad(),
                attachment.off(),
                attachment.listening(),  # to nobody: this is not the answer
                _instead(skipped),
            ):
                self.backbone.call(x.clone() if x.is_inference() else x, lengths)
        finally:
            handle.remove()
        (tokens,) = seen
        self._dtype = tokens.dtype
        return tokens.transpose(0, 1) if blocks[self.first].seq_first else tokens

    def _go_on(self, x: Tensor, lengths: Tensor | None, tokens: Tensor) -> Any:
        """The model's answer, its tokens before block `first` being these `[B,N,D]`."""
        blocks = self.backbone.blocks
        tokens = tokens.transpose(0, 1) if blocks[self.first].seq_first else tokens

        def put(module: nn.Module, args: Args, kwargs: Kwargs) -> Call:
            return replace_sequence(args, kwargs, tokens)

        skipped: dict[nn.Module, Callable[..., object]] = {
            block.module: _same for block in blocks[: self.first]
        }
        skipped |= {layer: partial(_zeros, shape) for layer, shape in self._front_layers.items()}
        handle = blocks[self.first].module.register_forward_pre_hook(
            put, with_kwargs=True, prepend=True
        )
        try:
            with _instead(skipped):
                return self.backbone.call(x, lengths)
        finally:
            handle.remove()

    def watch_front(self, run: Callable[[], Output]) -> Output:
        """During a forward, find the layers that run before block 0, once each: a patch embedding,
        the convolutions of a wav2vec2.
        """
        before: list[tuple[nn.Module, tuple[int, ...]]] = []
        inside = False

        def see(module: nn.Module, args: Args, output: Tensor) -> None:
            if not inside and isinstance(output, Tensor) and len(output) == len(args[0]):
                before.append((module, tuple(output.shape[1:])))

        def enter(module: nn.Module, args: Args) -> None:
            nonlocal inside
            inside = True

        layers = [
            m
            for m in self.backbone.model.modules()
            if type(m) in (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
        ]
        handles = [layer.register_forward_hook(see) for layer in layers]
        handles.append(self.backbone.blocks[0].module.register_forward_pre_hook(enter))
        try:
            answer = run()
        finally:
            for handle in handles:
                handle.remove()
        called = [module for module, _ in before]
        self._front_layers = {
            module: shape for module, shape in before if called.count(module) == 1
        }
        return answer


def _same(*args: Any, **kwargs: Any) -> Tensor | None:
    """A block that is skipped."""
    return first_sequence(args, kwargs)


def _zeros(shape: tuple[int, ...], x: Tensor) -> Tensor:
    """A layer that is skipped: `[B,*shape]` of which nothing is used."""
    return x.new_zeros(len(x), *shape)


@contextmanager
def _instead(forwards: Forwards) -> Iterator[None]:
    """Inside, these modules run another `forward`."""
    before = {module: module.__dict__.get("forward") for module in forwards}
    try:
        for module, forward in forwards.items():
            module.__dict__["forward"] = forward
        yield
    finally:
        for module, own in before.items():
            if own is None:
                module.__dict__.pop("forward", None)
            else:
                module.__dict__["forward"] = own
