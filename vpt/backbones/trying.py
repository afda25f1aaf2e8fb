"""The raw sites that the six checks try, each with its parameters."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from vpt.backbones.base import Backbone
from vpt.backbones.finding.pooling import Output
from vpt.backbones.finding.structure import Args, Kwargs, first_sequence
from vpt.backbones.inputs.images import Raw
from vpt.errors import VptError
from vpt.sites import KeyValues, Pixels, Site, Tokens

COUNT = 3
Learned = tuple[list[nn.Parameter], Callable[[bool], list[Site]]]


def forms_of(backbone: Backbone) -> dict[str, Learned]:
    """Raw sites to try, each with its parameters; `sites(True)` puts the rows in reverse order."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> nn.Parameter:
        return nn.Parameter((torch.randn(shape, generator=generator) * 0.5).to(backbone.device))

    pixels = draw(*backbone.inputs.shape)
    forms: dict[str, Learned] = {
        "pixels": ([pixels], lambda reverse: [Pixels(lambda x, n: (x + pixels, n))])
    }
    every = range(backbone.depth)
    if _allows(backbone.reach.need_tokens, [(0, backbone.depth - 1)]):
        shallow = draw(COUNT, backbone.widths[0])
        forms["shallow"] = (
            [shallow],
            lambda reverse: [
                Tokens(0, backbone.depth - 1, COUNT, partial(_rows, shallow, reverse))
            ],
        )
    deep = [draw(COUNT, width) for width in backbone.widths]
    spans: Learned = (
        deep,
        lambda reverse: [
            Tokens(i, i, COUNT, partial(_rows, t, reverse)) for i, t in enumerate(deep)
        ],
    )
    if _allows(backbone.reach.need_tokens, [(i, i) for i in every]):
        forms["deep"] = spans
    can = [
        i
        for i in every
        if not backbone.blocks[i].windowed and _allows(backbone.reach.need_tokens, [(i, i, True)])
    ]
    if can:
        rows = [deep[i] for i in can]
        forms["recorded"] = (
            rows,
            lambda reverse: [Tokens(i, i, COUNT, partial(_rows, deep[i], reverse)) for i in can],
        )
    if _allows(backbone.reach.need_prefix, [([i],) for i in every]):
        prefix = [
            draw(2, *((heads or (0, 0))[0], COUNT, (heads or (0, 0))[1]))
            for heads in backbone.heads
        ]
        forms["prefix"] = (
            prefix,
            lambda reverse: [
                KeyValues(i, COUNT, partial(_key_values, t, reverse)) for i, t in enumerate(prefix)
            ],
        )
    return forms


def _allows(require: Callable[..., None], places: list[Args]) -> bool:
    """Whether nothing speaks against any of these places, and there is one."""
    try:
        for place in places:
            require(*place)
    except VptError:
        return False
    return bool(places)


def _rows(tokens: Tensor, reverse: bool, x: Tensor) -> Tensor:
    return (tokens.flip(0) if reverse else tokens).expand(len(x), -1, -1)


def _key_values(
    tensor: Tensor, reverse: bool, keys: Tensor, values: Tensor
) -> tuple[Tensor, Tensor, None]:
    tensor = tensor.flip(2) if reverse else tensor
    return tensor[0][None], tensor[1][None], None


def token_counts(backbone: Backbone, x: Raw) -> list[int]:
    """The sequence length that every block hands on, prompts acting."""
    counts: list[int] = []

    def see(tokens: Tensor | None) -> None:
        if tokens is not None:
            counts.append(tokens.numel() // (tokens.shape[-1] * 2))

    def before(module: nn.Module, args: Args, kwargs: Kwargs) -> None:
        see(first_sequence(args, kwargs))

    def after(module: nn.Module, args: Args, output: Tensor | Args) -> None:
        see(output[0] if isinstance(output, tuple) else output)

    modules = [block.module for block in backbone.blocks]
    handles = [
        m.register_forward_pre_hook(before, with_kwargs=True, prepend=True) for m in modules[1:]
    ]
    handles += [m.register_forward_hook(after) for m in modules[-1:]]
    try:
        with torch.no_grad():
            backbone.run(x)
    finally:
        for handle in handles:
            handle.remove()
    return counts


def flat(out: Output) -> Tensor:
    """Both outputs in one vector."""
    return torch.cat([t for t in out if t is not None], dim=1)


def equal(a: Output, b: Output) -> bool:
    """Whether two outputs are the same to the bit."""
    return all(
        (u is None and v is None) or (u is not None and v is not None and torch.equal(u, v))
        for u, v in zip(a, b, strict=True)
    )


def relative(a: Tensor, b: Tensor) -> float:
    """The norm of the difference, relative to that of the second."""
    return float((a - b).norm() / b.norm().clamp(min=1e-12))
