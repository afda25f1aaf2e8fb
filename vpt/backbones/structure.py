"""Find a transformer's blocks, attention and classifier by structure and by watching one forward. No table of paths."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch._dynamo.eval_frame import OptimizedModule
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle

from vpt.errors import BackboneError


@dataclass(eq=False)
class Block:
    """One transformer block: its module, the attention inside it, and what one forward showed of them.

    width: D of its tokens `[B,N,D]`. heads, head_dim: of the keys that `scaled_dot_product_attention` was given, None
    where it was never called. seq_first: tokens are `[N,B,D]`. masked: it gets token-sized tensors besides the tokens.
    """

    name: str
    module: nn.Module
    attention: nn.Module
    width: int = 0
    heads: int | None = None
    head_dim: int | None = None
    seq_first: bool = False
    masked: str | None = None


@dataclass
class Structure:
    """What `observe` found: blocks in order, the final linear layers, the fan-in of the patch embedding (C·ph·pw)."""

    blocks: list[Block] = field(default_factory=list)
    classifiers: list[nn.Linear] = field(default_factory=list)
    patch_dim: int = 1


def first_sequence(args: tuple, kwargs: dict[str, Any]) -> Tensor | None:
    """The token sequence `[B,N,D]` among a block's arguments: its first tensor of three dimensions."""
    for value in (*args, *kwargs.values()):
        if isinstance(value, Tensor) and value.ndim == 3 and value.is_floating_point():
            return value
    return None


def replace_sequence(args: tuple, kwargs: dict[str, Any], new: Tensor) -> tuple[tuple, dict[str, Any]]:
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


def block_lists(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """Every list of two or more modules of one class whose first holds an attention module, longest first."""
    found = []
    for name, module in model.named_modules():
        if not isinstance(module, (nn.ModuleList, nn.Sequential)) or len(module) < 2:
            continue
        if len({type(child) for child in module}) == 1 and next(_holds_attention(module[0]), None) is not None:
            found.append((name, module))
    outermost = [(n, m) for n, m in found if not any(n.startswith(f"{o}.") for o, _ in found if o)]
    return sorted(outermost, key=lambda item: -len(item[1]))  # type: ignore[arg-type]


def candidates(model: nn.Module, path: str | None) -> list[list[Block]]:
    """Lists of blocks to watch: the one at `path`, or those found by structure. Raises `BackboneError` for a bad path."""
    if path is None:
        lists = block_lists(model)
    else:
        try:
            lists = [(path, model.get_submodule(path))]
        except AttributeError as error:
            near = ", ".join(name for name, _ in block_lists(model)) or "none found by structure"
            raise BackboneError(f"{type(model).__name__} has no module {path!r} (blocks=…). Lists of blocks: {near}.") from error
    return [
        [Block(f"{name}.{i}", child, next(_holds_attention(child), child)) for i, child in child_list.named_children()]
        for name, child_list in lists
    ]


class _Watcher(TorchFunctionMode):
    """Hooks for one forward: blocks' inputs, SDPA's keys, linear layers' 2-D outputs. Removed by `close`."""

    def __init__(self, model: nn.Module, lists: list[list[Block]], batch: int) -> None:
        super().__init__()
        self.batch = batch
        self.inside: Block | None = None
        self.calls: list[Block] = []
        self.linears: list[tuple[nn.Linear, Tensor, Tensor]] = []
        self.embedding = 0
        self.handles: list[RemovableHandle] = []
        for block in (b for blocks in lists for b in blocks):
            self.handles.append(block.module.register_forward_pre_hook(self._bind(block), with_kwargs=True))
        for module in model.modules():
            if isinstance(module, (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)):
                self.handles.append(module.register_forward_hook(self._layer))

    def _bind(self, block: Block) -> Any:
        def before(module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
            x = first_sequence(args, kwargs)
            if x is None:
                return
            self.inside = block
            self.calls.append(block)
            block.width = x.shape[-1]
            block.seq_first = x.shape[0] != self.batch and x.shape[1] == self.batch
            count = x.shape[0] if block.seq_first else x.shape[1]
            extra = {f"argument {i}": value for i, value in enumerate(args)} | kwargs
            for name, value in extra.items():
                if isinstance(value, Tensor) and value is not x and count in value.shape:
                    block.masked = name

        return before

    def _layer(self, module: nn.Module, args: tuple, output: Tensor) -> None:
        if not self.embedding:
            self.embedding = module.weight[0].numel()  # type: ignore[index]
        if isinstance(module, nn.Linear) and output.ndim == 2:
            self.linears.append((module, args[0], output))

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention and self.inside is not None:
            key = kwargs.get("key", args[1] if len(args) > 1 else None)
            if key is not None and key.ndim == 4 and self.inside.heads is None:
                self.inside.heads, self.inside.head_dim = key.shape[1], key.shape[3]
        return func(*args, **kwargs)

    def close(self) -> None:
        for handle in self.handles:
            handle.remove()


def watch(model: nn.Module, x: Tensor, path: str | None, run: Callable[[Tensor], Any]) -> Structure:
    """Run one forward on `x` and say what it showed. Raises `BackboneError` if the blocks named by `path` were not used."""
    lists = candidates(model, path)
    watcher = _Watcher(model, lists, len(x))
    try:
        with torch.no_grad(), watcher:
            answer = logits_of(run(x))
    finally:
        watcher.close()
    used = [blocks for blocks in lists if [b for b in watcher.calls if any(b is c for c in blocks)] == blocks]
    if path is not None and not used:
        raise BackboneError(f"The modules in blocks={path!r} were not called once each, in order, with tokens [B,N,D].")
    classifiers = _classifiers(watcher.linears, answer) if answer is not None and answer.ndim == 2 else []
    return Structure(used[0] if used else [], classifiers, watcher.embedding)


def logits_of(output: Any) -> Tensor | None:
    """What a model says: the tensor it returned, or the `logits` of a transformers output."""
    if isinstance(output, Tensor):
        return output
    return getattr(output, "logits", None)


def _classifiers(linears: list[tuple[nn.Linear, Tensor, Tensor]], answer: Tensor) -> list[nn.Linear]:
    """The linear layers whose outputs, averaged, are the model's answer: one, or two in a distilled model."""
    same = [(layer, out) for layer, _, out in linears if out.shape == answer.shape]
    for count in (1, 2):
        tail = same[-count:]
        if len(tail) == count and torch.allclose(sum(out for _, out in tail) / count, answer, atol=1e-5, rtol=1e-4):  # type: ignore[arg-type]
            return [layer for layer, _ in tail]
    return []


def refuse_compiled(model: nn.Module) -> None:
    """Raise `BackboneError` for a compiled or scripted module: it would ignore hooks without a word."""
    for name, module in model.named_modules():
        if isinstance(module, (OptimizedModule, torch.jit.ScriptModule)) or module._compiled_call_impl is not None:
            raise BackboneError(
                f"{name or type(module).__name__} is compiled: it would ignore prompts without a word. Pass the module as it was "
                "before torch.compile (or torch.jit), attach the prompt, and compile the PromptedModel afterwards."
            )
