"""Gradients of named losses with respect to the parts that learn, each as one flat vector."""

from __future__ import annotations

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from vpt.objectives import Gradients

Parts = dict[str, list[nn.Parameter]]


def add_gradients(total: Gradients, losses: dict[str, Tensor], parts: Parts, weight: float) -> None:
    """Add weight · ∂loss/∂part to `total`, for every named loss and part; the graph is freed after the last loss."""
    parameters = [p for values in parts.values() for p in values]
    for number, (name, loss) in enumerate(losses.items(), 1):
        found = torch.autograd.grad(loss * weight, parameters, retain_graph=number < len(losses), allow_unused=True)
        flat = [(torch.zeros_like(p) if g is None else g).flatten() for p, g in zip(parameters, found, strict=True)]
        own, start = total.setdefault(name, {}), 0
        for part, values in parts.items():
            vector = torch.cat(flat[start : start + len(values)])
            own[part] = own[part] + vector if part in own else vector
            start += len(values)


def no_gradients(losses: list[str], parts: Parts) -> Gradients:
    """Zeros for every loss and part."""
    return {
        name: {part: torch.cat([torch.zeros_like(p).flatten() for p in values]) for part, values in parts.items()}
        for name in losses
    }


def reduce_gradients(gradients: Gradients, accelerator: Accelerator) -> Gradients:
    """Sum over processes."""
    return {
        name: {part: accelerator.reduce(g, "sum") for part, g in sorted(own.items())} for name, own in sorted(gradients.items())
    }
