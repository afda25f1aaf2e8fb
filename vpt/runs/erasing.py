"""Which parts of a learned border, patch or pattern do the work: what is lost without each."""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
from torch import Tensor

from vpt.errors import PromptError
from vpt.errors.needs import whole
from vpt.model import PromptedModel
from vpt.prompts import PixelPrompt, Prompt, Stack
from vpt.runs.explaining import lead_of, targets_of
from vpt.runs.folder import pixel_prompts
from vpt.sites import Pixels, Site


class _Erased(Prompt):
    """A pixel prompt, some of whose own pixels are black. It is never saved."""

    def __init__(self, prompt: PixelPrompt, gone: Tensor) -> None:
        super().__init__()
        self.prompt = prompt
        self.gone = gone  # `[H,W]`

    def sites(self) -> tuple[Site, ...]:
        return tuple(
            replace(site, apply=self.apply_to) if isinstance(site, Pixels) else site
            for site in self.prompt.sites()
        )

    def apply_to(self, x: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor | None]:
        found, lengths = self.prompt.apply_to(x, lengths)
        return found.masked_fill(self.gone, self.prompt.base), lengths


@torch.no_grad()
def erasing(
    model: PromptedModel,
    x: Tensor,
    target: Tensor | int | None = None,
    *,
    rows: int = 7,
    columns: int = 7,
) -> Tensor:
    """How far the score of a class falls when the learned pixels within each part of the picture
    are black `[B,rows,columns]`; 0 where there are none.

    model: whose prompt is a border, a patch or a pattern, alone or beside others.
    x: pictures `[B,C,H,W]` in [0,1].
    target: as for `vpt.explain`.
    rows: parts from top to bottom.
    columns: parts from left to right.

    The score is the class's logit less the mean of all. Raises `PromptError` for other models.
    """
    whole(PromptError, rows=rows, columns=columns)
    parts = [part for part in pixel_prompts(model.prompt) if part.is_image]
    if len(parts) != 1 or x.ndim != 4:
        raise PromptError(
            f"Found {model.prompt.describe()} and input {list(x.shape)}; needed is a model with one"
            " border, patch or pattern, and pictures [B,C,H,W]."
        )
    own, whole_prompt, was = parts[0], model.prompt, model.training
    area = _area(own)
    model.eval()
    plain = model(x)
    label = targets_of(plain, target)
    score = lead_of(plain, label)
    found = torch.zeros(len(x), rows, columns)
    height, width = area.shape
    try:
        for i in range(rows):
            for j in range(columns):
                gone = torch.zeros_like(area)
                top, bottom = height * i // rows, height * (i + 1) // rows
                left, right = width * j // columns, width * (j + 1) // columns
                gone[top:bottom, left:right] = area[top:bottom, left:right]
                if gone.any():
                    model.swap(_without(whole_prompt, own, gone))
                    found[:, i, j] = (score - lead_of(model(x), label)).cpu()
    finally:
        model.swap(whole_prompt)
        model.train(was)
    return found


def _without(prompt: Prompt, own: PixelPrompt, gone: Tensor) -> Prompt:
    erased = _Erased(own, gone)
    if isinstance(prompt, Stack):
        return Stack([erased if part is own else part for part in prompt.members])
    return erased


def _area(prompt: PixelPrompt) -> Tensor:
    """Which pixels are the prompt's own `[H,W]`."""
    marked = copy.deepcopy(prompt)
    marked.pixels.fill_(1.0)
    return (marked.canvas() != 0).any(0)
