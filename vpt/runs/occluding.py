"""Why any model says what it says: how far a score falls when a part of the picture is covered."""

from __future__ import annotations

import torch
from torch import Tensor

from vpt.errors import PromptError
from vpt.errors.needs import whole
from vpt.model import PromptedModel
from vpt.runs.explaining import lead_of, targets_of


@torch.no_grad()
def occlusion(
    model: PromptedModel,
    x: Tensor,
    target: Tensor | int | None = None,
    *,
    rows: int = 7,
    columns: int = 7,
    fill: float | Tensor | None = None,
    batch_size: int = 32,
) -> Tensor:
    """How far the score of a class falls when each part of a picture is covered `[B,rows,columns]`
    (Zeiler and Fergus, ECCV 2014); works for every prompt and every model of pictures.

    model: any.
    x: pictures `[B,C,H,W]` in [0,1].
    target: as for `explain`.
    rows: parts from top to bottom.
    columns: parts from left to right.
    fill: what covers a part; the picture's own mean by default.
    batch_size: pictures at a time.

    The score is the class's logit less the mean of all. Raises `PromptError` for other input.
    """
    whole(PromptError, rows=rows, columns=columns, batch_size=batch_size)
    if not isinstance(x, Tensor) or x.ndim != 4:
        raise PromptError("occlusion covers parts of pictures [B,C,H,W].")
    was = model.training
    model.eval()
    height, width = x.shape[-2:]
    tops = [height * i // rows for i in range(rows + 1)]
    lefts = [width * i // columns for i in range(columns + 1)]
    found = torch.zeros(len(x), rows, columns)
    for number, picture in enumerate(x):
        plain = model(picture[None])
        own = target[number : number + 1] if isinstance(target, Tensor) else target
        label = int(targets_of(plain, own)[0])

        cover = picture.mean((1, 2))[:, None, None] if fill is None else fill
        covered = []
        for i in range(rows):
            for j in range(columns):
                one = picture.clone()
                one[:, tops[i] : tops[i + 1], lefts[j] : lefts[j + 1]] = cover
                covered.append(one)
        scores = torch.cat([model(part) for part in torch.stack(covered).split(batch_size)])
        falls = (plain[:, label] - plain.mean(1)) - (scores[:, label] - scores.mean(1))
        found[number] = falls.view(rows, columns).cpu()
    model.train(was)
    return found


def gradient_input(model: PromptedModel, x: Tensor, target: Tensor | int | None = None) -> Tensor:
    """Gradient × input of a class's score, summed over channels `[B,H,W]` (Shrikumar et al., 2016);
    one backward pass, for every prompt and every model of pictures. The insertion and deletion of
    `examples/explained` found such maps no better than chance under queries: prefer `vpt.explain`
    there.

    model: any. x: pictures `[B,C,H,W]` in [0,1]. target: as for `explain`. The score is the class's
    logit less the mean of all. Raises `PromptError` for other input.
    """
    if not isinstance(x, Tensor) or x.ndim != 4:
        raise PromptError("gradient_input explains pictures [B,C,H,W].")
    was = model.training
    model.eval()
    try:
        with torch.enable_grad():
            learns = x.detach().clone().requires_grad_()
            scores = model(learns)
            lead = lead_of(scores, targets_of(scores.detach(), target))
            slope = torch.autograd.grad(lead.sum(), learns)[0]
    finally:
        model.train(was)
    return (slope * x).sum(1).detach()
