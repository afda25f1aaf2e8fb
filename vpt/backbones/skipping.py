"""Whether a model can skip its first blocks, tried on an example."""

from __future__ import annotations

import torch

from vpt.backbones.base import Backbone
from vpt.backbones.finding.structure import recomputes
from vpt.backbones.frozen import Output
from vpt.backbones.keeping.activations import TOLERANCE, FeatureCache
from vpt.errors import VptError


def cannot_skip(backbone: Backbone, cache: FeatureCache) -> str | None:
    """Why this model cannot skip its first blocks with a cache, tried on an example; None if it
    can.
    """
    if recomputes(backbone.model):
        return "activation checkpointing is on"
    x, half, before = backbone.inputs.example(2), cache.half, backbone.cache
    cache.half = False
    try:
        with torch.no_grad():
            needed = cache.watch_front(lambda: backbone.run(x))
            backbone.cache = cache
            found = backbone.run(x)
    except (
        VptError,
        RuntimeError,
        ValueError,
        TypeError,
        AttributeError,
        IndexError,
        KeyError,
    ) as error:
        return f"its first blocks cannot be skipped ({type(error).__name__})"
    finally:
        backbone.cache, cache.half = before, half
        cache.start_over()
    return (
        None
        if _off(found, needed) < TOLERANCE
        else "its answer also comes from what its first blocks gave"
    )


def _off(found: Output, needed: Output) -> float:
    """Relative difference of two outputs."""
    pairs = [(a, b) for a, b in zip(found, needed, strict=True) if a is not None and b is not None]
    return max(float((a - b).norm() / b.norm().clamp(min=1e-12)) for a, b in pairs)
