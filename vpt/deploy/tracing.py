"""A graph as torch.export sees it, and what travels with it."""

from __future__ import annotations

import warnings
from importlib import metadata

import torch
from torch import Tensor
from torch.export import ExportedProgram

from vpt.backbones import Backbone
from vpt.deploy.graph import Graph
from vpt.errors import ExportError, VptError
from vpt.sites import Config


def trace(graph: Graph) -> ExportedProgram:
    """The graph as torch.export sees it, with a free batch. Raises `ExportError`."""
    inputs = inputs_of(graph.backbone)
    free = {name: {0: torch.export.Dim.DYNAMIC} for name in inputs}
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what a forward notes for itself, on its way
            return torch.export.export(
                graph, tuple(inputs.values()), dynamic_shapes=tuple(free.values()), strict=False
            )
    except VptError:
        raise
    except Exception as error:
        said = str(error).strip()
        why = said.splitlines()[0] if said else type(error).__name__
        if "specialized it to be a constant" in said:
            why = "its forward fixes the batch, as len(x) does; say x.shape[0] there"
        raise ExportError(
            f"{type(graph.backbone.model).__name__} cannot be traced by torch.export: {why}."
        ) from error


def inputs_of(backbone: Backbone, batch: int = 2, seed: int = 0) -> dict[str, Tensor]:
    """Random raw inputs by name, as a graph takes them: images `[B,C,H,W]` in [0,1]."""
    example = backbone.inputs.example(batch + seed)
    parts = example if isinstance(example, tuple) else (example,)
    return dict(zip(("x", "lengths"), (part[seed:] for part in parts), strict=False))


def facts_of(graph: Graph) -> Config:
    """What travels with the file, in plain values."""
    backbone = graph.backbone
    return {
        "vpt": metadata.version("vpt"),
        "inputs": list(inputs_of(backbone)),
        "outputs": graph.names,
        "classes": graph.classes,
        "preparation": backbone.inputs.describe(),
        "prompts": {
            name: prompt.describe()  # type: ignore[operator]
            for name, prompt in zip(graph.names, graph.prompts, strict=True)
        },
        "backbone": {
            "identity": backbone.identity,
            "model": type(backbone.model).__name__,
            "fingerprint": backbone.fingerprint(),
        },
    }
