"""How many hooks a model has, of each kind."""

from __future__ import annotations

from torch import nn


def count_hooks(model: nn.Module) -> dict[str, int]:
    """Number of forward and backward hooks of each module that has any."""
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    counts = {
        name: sum(len(getattr(m, kind)) for kind in kinds) for name, m in model.named_modules()
    }
    return {name: count for name, count in counts.items() if count}
