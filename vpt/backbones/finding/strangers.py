"""What others changed on a model: their hooks, and its settings. Shortcuts that were measured
without them may be wrong with them.
"""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn
from torch.nn.modules import module as torch_module

KINDS = ("_forward_hooks", "_forward_pre_hooks")
# ours, and torch's own weight_norm, which came with the model
PARTS_OF_MODELS = ("vpt.", "torch.nn.utils.")


def foreign_hooks(modules: Iterable[nn.Module]) -> list[tuple[int, int]]:
    """(module, hook) of every forward hook that is neither ours nor torch's own, by identity."""
    found = []
    for module in modules:
        for kind in KINDS:
            found += [
                (id(module), id(hook))
                for hook in module.__dict__[kind].values()
                if not _known(hook)
            ]
    return found


def global_hooks() -> list[tuple[int, int]]:
    """Hooks that someone put on all modules of this process."""
    every = (torch_module._global_forward_hooks, torch_module._global_forward_pre_hooks)
    return [(0, id(hook)) for hooks in every for hook in hooks.values()]


def _known(hook: object) -> bool:
    hook = getattr(hook, "func", hook)  # of a partial
    of = getattr(hook, "__self__", hook)  # of a method
    return f"{of.__module__}.".startswith(PARTS_OF_MODELS)


def settings_of(model: nn.Module) -> int:
    """A number that changes when a plain setting of any module does (pooling, heads, a function of
    its own).
    """
    plain = (bool, int, float, str, type(None))
    rows = [
        (
            type(module).__qualname__,
            *(
                (k, v)
                for k, v in module.__dict__.items()
                if k != "training" and isinstance(v, plain)
            ),
            "forward" in module.__dict__,
        )
        for module in model.modules()
    ]
    return hash(tuple(rows))
