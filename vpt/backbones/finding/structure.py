"""Find a transformer's blocks and their attention by structure. No table of paths."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch._dynamo.eval_frame import OptimizedModule

from vpt.errors import BackboneError, PromptError

Kwargs = dict[str, Any]  # of a module of someone else's, as it is called
Args = tuple[Any, ...]
Call = tuple[Args, Kwargs]


@dataclass(eq=False)
class Block:
    """One transformer block: its module, the attention inside it, and what one forward showed of
    them.

    width: D of its tokens `[B,N,D]`. heads, head_dim: of the keys that
        `scaled_dot_product_attention` was given, None where it was never called, or with other
        layouts. calls: how often it was. seq_first: tokens are `[N,B,D]`. masked: that attention
        was given a mask or bias. rotary: the argument that holds rotary angles. unknown: an
        argument with one entry per token of which nothing else is known. grid: the block gets maps
        `[B,H,W,D]`. windowed: its attention sees windows `[B·windows,n,D]`, as some in its list do.
        norm: the child that ran before the attention.
    """

    name: str
    module: nn.Module
    attention: nn.Module
    width: int = 0
    heads: int | None = None
    head_dim: int | None = None
    calls: int = 0
    seq_first: bool = False
    masked: bool = False
    rotary: str | None = None
    unknown: str | None = None
    grid: bool = False
    windowed: bool = False
    norm: nn.Module | None = None


@dataclass
class Structure:
    """What `observe` found: blocks in order, the final linear layers, the fan-in of the patch
    embedding (C·ph·pw).
    """

    blocks: list[Block] = field(default_factory=list)
    classifiers: list[nn.Linear] = field(default_factory=list)
    patch_dim: int = 1


def first_sequence(args: Args, kwargs: Kwargs) -> Tensor | None:
    """The token sequence `[B,N,D]` among a block's arguments: its first tensor of three
    dimensions.
    """
    for value in (*args, *kwargs.values()):
        if isinstance(value, Tensor) and value.ndim == 3 and value.is_floating_point():
            return value
    return None


def tokens_among(args: Args, kwargs: Kwargs) -> Tensor | None:
    """A block's tokens: its sequence `[B,N,D]`, or else its first tensor of four dimensions, a map
    `[B,H,W,D]`.
    """
    sequence = first_sequence(args, kwargs)
    if sequence is not None:
        return sequence
    return next(
        (
            v
            for v in (*args, *kwargs.values())
            if isinstance(v, Tensor) and v.ndim == 4 and v.is_floating_point()
        ),
        None,
    )


def replace_sequence(args: Args, kwargs: Kwargs, new: Tensor) -> Call:
    """The same arguments with the token sequence replaced."""
    old = first_sequence(args, kwargs)
    if any(value is old for value in args):
        return tuple(new if value is old else value for value in args), kwargs
    return args, {name: new if value is old else value for name, value in kwargs.items()}


def _holds_attention(module: nn.Module) -> Iterator[nn.Module]:
    """Attention modules below `module`, outermost first, by class or attribute name."""
    for name, child in module.named_modules():
        words = f"{name.rsplit('.', 1)[-1]} {type(child).__name__}".lower()
        if child is not module and ("attn" in words or "attention" in words):
            yield child


def _is_block(module: nn.Module) -> bool:
    """Whether a module holds attention and, beside it, layers of its own: an MLP."""
    inside = {id(m) for attention in _holds_attention(module) for m in attention.modules()}
    layers = [
        m
        for m in module.modules()
        if isinstance(m, (nn.Linear, nn.Conv1d, nn.Conv2d)) and id(m) not in inside
    ]
    return bool(inside) and len(layers) > 1


def _attention_of(module: nn.Module) -> nn.Module:
    """The outermost attention module with weights in a block; the block itself where it attends by
    itself.
    """
    return next(
        (m for m in _holds_attention(module) if next(m.parameters(), None) is not None), module
    )


def block_lists(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """Every list of modules of one class whose first holds an attention module, and which holds no
    such list itself.
    """
    found = []
    for name, module in model.named_modules():
        if not isinstance(module, (nn.ModuleList, nn.Sequential)) or not len(module):
            continue
        if (
            len({type(child) for child in module}) == 1
            and next(_holds_attention(module[0]), None) is not None
        ):
            found.append((name, module))
    found = [(n, m) for n, m in found if _is_block(m[0])] or found
    return [
        (n, m) for n, m in found if not any(o.startswith(f"{n}.") if n else o for o, _ in found)
    ]


def candidates(model: nn.Module, path: str | None) -> list[list[Block]]:
    """Lists of blocks to watch, longest first: the one at `path`, or those found by structure.

    The lists of a model with stages (Swin) hold blocks of one class and are tried as one. Raises
    `BackboneError` for a bad path.
    """
    lists = block_lists(model)
    if path is not None:
        try:
            lists = [(path, model.get_submodule(path))]
        except AttributeError as error:
            near = ", ".join(name for name, _ in lists) or "none found by structure"
            raise BackboneError(
                f"{type(model).__name__} has no module {path!r} (blocks=…). Lists of blocks:"
                f" {near}."
            ) from error
    single = [
        [
            Block(f"{name}.{i}", child, _attention_of(child))
            for i, child in child_list.named_children()
        ]
        for name, child_list in lists
    ]
    stages: dict[type, list[Block]] = {}
    for blocks in single:
        stages.setdefault(type(blocks[0].module), []).extend(blocks)
    found = [*stages.values(), *single] if len(stages) < len(single) else single
    return sorted(
        (blocks for blocks in found if len(blocks) > 1 or path is not None),
        key=lambda blocks: -len(blocks),
    )


@contextmanager
def fused(attention: nn.Module) -> Iterator[None]:
    """Inside, an attention of timm that can call `scaled_dot_product_attention` does so (Swin does
    not by default).
    """
    switched = [m for m in attention.modules() if getattr(m, "fused_attn", None) is False]
    for module in switched:
        module.fused_attn = True  # type: ignore[assignment]
    try:
        yield
    finally:
        for module in switched:
            module.fused_attn = False  # type: ignore[assignment]


def logits_of(output: Any) -> Tensor | None:
    """What a model says: the tensor it returned, or the `logits` of a transformers output."""
    if isinstance(output, Tensor):
        return output
    return getattr(output, "logits", None)


def refuse_compiled(model: nn.Module) -> None:
    """Raise `BackboneError` for a compiled or scripted module: it would ignore hooks without a
    word.
    """
    for name, module in model.named_modules():
        if (
            isinstance(module, (OptimizedModule, torch.jit.ScriptModule))
            or module._compiled_call_impl is not None
        ):
            raise BackboneError(
                f"{name or type(module).__name__} is compiled: it would ignore prompts without a"
                " word. Pass the module as it was before torch.compile (or torch.jit), attach the"
                " prompt, and compile the PromptedModel afterwards."
            )


def recomputes(model: nn.Module) -> bool:
    """Whether timm's activation checkpointing is on: blocks run, and their hooks act, once more in
    the backward pass.
    """
    return any(getattr(module, "grad_checkpointing", False) is True for module in model.modules())


def refuse_recomputing(model: nn.Module, what: str) -> None:
    """Raise `PromptError` where blocks would run again in the backward pass, when what belongs to
    their batch is forgotten.
    """
    if torch.is_grad_enabled() and recomputes(model):
        raise PromptError(
            f"{what} cannot learn under activation checkpointing, which runs blocks again when the"
            " batch is forgotten. Switch it off (model.set_grad_checkpointing(False)), or use"
            " torch.no_grad()."
        )


def refuse_checkpointing(model: nn.Module) -> None:
    """Raise `BackboneError` for activation checkpointing of transformers, which does nothing in
    eval mode.

    timm's (`model.set_grad_checkpointing()`) works: it runs a block and its hooks again in the
    backward pass.
    """
    if any(getattr(module, "gradient_checkpointing", False) for module in model.modules()):
        raise BackboneError(
            f"{type(model).__name__} has activation checkpointing on. transformers checkpoints in"
            " training mode only, and a backbone stays in eval mode (dropout would change what"
            " prompts learn), so it would save nothing. Switch it off:"
            " model.activation_checkpointing_disable(). timm models do checkpoint:"
            " model.set_grad_checkpointing()."
        )
