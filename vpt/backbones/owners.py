"""Whose a module is. It carries one backbone at a time: two would let the prompts of both act in
both, without a word.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterable
from typing import Any

from torch import nn

from vpt.backbones.guard import Guard
from vpt.errors import BackboneError

Flags = tuple[list[tuple[weakref.ref[Any], bool]], list[tuple[weakref.ref[Any], bool]]]

_OWNERS: weakref.WeakKeyDictionary[nn.Module, weakref.ref[nn.Module]] = weakref.WeakKeyDictionary()
_LOCK = Guard()


def owns(backbone: nn.Module, model: nn.Module) -> bool:
    """Whether the backbone has its model to itself."""
    found = _OWNERS.get(model)
    return found is not None and found() is backbone


def claim(backbone: nn.Module, model: nn.Module) -> None:
    """Take every module of the backbone's model. Raises `BackboneError`, naming it, where another
    backbone has one of them.
    """
    modules = dict(model.named_modules())
    with _LOCK:
        if _other(modules, backbone) is not None:
            gc.collect()  # it may be nobody's any more
        taken = _other(modules, backbone)
        if taken is not None:
            what = f"its part {taken!r}" if taken else "it"
            raise BackboneError(
                f"{type(model).__name__} cannot carry this backbone: {what} carries another one"
                " already, and a module carries one at a time. Use that backbone, or let it go"
                " first: model.close(), or backbone.release()."
            )
        mine = weakref.ref(backbone)
        for module in modules.values():
            _OWNERS[module] = mine


def disown(backbone: nn.Module, model: nn.Module) -> None:
    """Let every module go."""
    with _LOCK:
        for module in model.modules():
            found = _OWNERS.get(module)
            if found is not None and found() in (backbone, None):
                del _OWNERS[module]


def _other(modules: dict[str, nn.Module], backbone: nn.Module) -> str | None:
    """The name of the first module that another backbone has."""
    for name, module in modules.items():
        found = _OWNERS.get(module)
        owner = found() if found is not None else None
        if owner is not None and owner is not backbone:
            return name
    return None


def flags_of(model: nn.Module) -> Flags:
    """What every parameter and module had set, to be given back even when the backbone is gone; it
    keeps nothing alive.
    """
    return (
        [(weakref.ref(p), p.requires_grad) for p in model.parameters()],
        [(weakref.ref(m), m.training) for m in model.modules()],
    )


def give_back(flags: Flags) -> None:
    """Set again what `flags_of` found, of what is still there."""
    set_again(
        ((held, needed) for parameter, needed in flags[0] if (held := parameter()) is not None),
        ((held, training) for module, training in flags[1] if (held := module()) is not None),
    )


def set_again(
    parameters: Iterable[tuple[nn.Parameter, bool]], modules: Iterable[tuple[nn.Module, bool]]
) -> None:
    """Set `requires_grad` and `training`. Weights made in inference mode, which outside of it can
    have no gradient, stay as they are.
    """
    for parameter, needed in parameters:
        if parameter.requires_grad != needed and not parameter.is_inference():
            parameter.requires_grad_(needed)
    for module, training in modules:
        module.training = training
