"""Gradients of named losses with respect to the parts that learn, each as one flat vector."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from vpt.backbones import Raw
from vpt.errors import PromptError
from vpt.model import PromptedModel
from vpt.objectives import Gradients

Parts = dict[str, list[nn.Parameter]]


def add_gradients(total: Gradients, losses: dict[str, Tensor], parts: Parts, weight: float) -> None:
    """Add weight · ∂loss/∂part to `total`, for every named loss and part; the graph is freed after
    the last loss.
    """
    parameters = [p for values in parts.values() for p in values]
    sizes = [sum(p.numel() for p in values) for values in parts.values()]
    for number, (name, loss) in enumerate(losses.items(), 1):
        flat = flat_gradient(loss * weight, parameters, number < len(losses))
        sums = total.setdefault(name, {})
        for part, vector in zip(parts, flat.split(sizes), strict=True):
            sums[part] = sums[part] + vector if part in sums else vector


def flat_gradient(value: Tensor, parameters: Sequence[Tensor], keep_graph: bool = False) -> Tensor:
    """The gradient of a scalar as one vector `[P]`, with zeros for parameters that it does not
    depend on.
    """
    gradients = torch.autograd.grad(value, parameters, retain_graph=keep_graph, allow_unused=True)
    pairs = zip(parameters, gradients, strict=True)
    return torch.cat([(torch.zeros_like(p) if g is None else g).flatten() for p, g in pairs])


def no_gradients(losses: list[str], parts: Parts) -> Gradients:
    """Zeros for every loss and part."""
    return {
        name: {
            part: torch.cat([torch.zeros_like(p).flatten() for p in values])
            for part, values in parts.items()
        }
        for name in losses
    }


def reduce_gradients(gradients: Gradients, accelerator: Accelerator) -> Gradients:
    """Sum over processes."""
    return {
        name: {part: accelerator.reduce(g, "sum") for part, g in sorted(parts.items())}
        for name, parts in sorted(gradients.items())
    }


def check_reach(model: PromptedModel, x: Raw) -> None:
    """Raise `PromptError` if a parameter of the prompt has no influence at all on what the readout
    reads of `x`.

    Those of a prompt that selects among its parts are not asked: some may be for other inputs.
    """
    selected = {
        id(p)
        for part in model.prompt.modules()
        if getattr(part, "selects", False)
        for p in part.parameters()
    }
    learned = {
        name: p
        for name, p in model.prompt.named_parameters()
        if p.requires_grad and id(p) not in selected
    }
    if not learned:
        return
    start = [p.detach().clone() for p in learned.values()]
    generator = torch.Generator().manual_seed(0)
    try:  # a little off its start, where products of parameters may be zero
        with torch.no_grad():
            for p in learned.values():
                p.add_(0.1 * torch.randn(p.shape, generator=generator).to(p))
        out = model.eval().outputs(x)
        slope = torch.linspace(-1, 1, out.shape[1], device=out.device)
        gradients = torch.autograd.grad((out * slope).sum(), [*learned.values()], allow_unused=True)
    finally:
        with torch.no_grad():
            for p, value in zip(learned.values(), start, strict=True):
                p.copy_(value)
    for name, gradient in zip(learned, gradients, strict=True):
        if gradient is None or not gradient.count_nonzero():
            raise PromptError(
                f"Prompt parameter {name!r} has no influence on the model's output: it reaches"
                " nothing that the model reads (audio spectrogram transformers skip the last bins"
                " and frames that fill no patch). Move or widen it."
            )
