"""Where in a picture or a sound the tokens of a model come from."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.utils.data import default_collate

from vpt.backbones import Backbone
from vpt.data import Examples
from vpt.errors import PromptError

MOST_EXTRA = 16  # class, distillation and register tokens before those of places
Grid = tuple[int, int]  # rows and columns of places


@contextmanager
def shapes_of(backbone: Backbone) -> Iterator[list[Grid]]:
    """Inside, the shapes that convolutions give are noted, as (rows, columns)."""
    found: list[Grid] = []

    def note(module: nn.Module, args: object, out: Tensor) -> None:
        rows = out.shape[-2] if out.ndim == 4 else 1
        found.append((rows, out.shape[-1]))

    hooks = [
        module.register_forward_hook(note)
        for module in backbone.model.modules()
        if isinstance(module, (nn.Conv1d, nn.Conv2d))
    ]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


def grid_of(shapes: list[Grid], tokens: int) -> tuple[Grid, int]:
    """(rows and columns of the tokens that have a place, how many come before them). Raises
    `PromptError` where no convolution laid them out.
    """
    for rows, columns in reversed(shapes):
        if 0 <= tokens - rows * columns <= MOST_EXTRA:
            return (rows, columns), tokens - rows * columns
    raise PromptError(
        f"Found {tokens} tokens that no patch embedding laid out, so they have no places;"
        " vpt.occlusion explains any model of pictures."
    )


def grid_for(backbone: Backbone, examples: Examples, tokens: int) -> tuple[Grid, int]:
    """(rows and columns of a model's places, how many of its tokens come before them). Raises
    `PromptError` where its tokens have no places.
    """
    with shapes_of(backbone) as shapes, torch.no_grad():
        backbone.features(default_collate([examples.windows()[0][0][0]]))
    return grid_of(shapes, tokens)
