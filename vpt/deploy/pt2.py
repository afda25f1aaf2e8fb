"""pt2: torch's own exported program."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vpt.deploy.graph import Graph
from vpt.deploy.targets import FACTS, Runs, Target, register
from vpt.deploy.tracing import facts_of, trace


@register("pt2", "a program of torch.export, opened by torch.export.load")
class Pt2(Target):
    """The graph and its weights; the facts are the extra file "vpt.json"."""

    ending = ".pt2"

    def write(self, graph: Graph, path: Path) -> None:
        """By torch.export.save."""
        extra = {f"{FACTS}.json": json.dumps(facts_of(graph))}
        program = trace(graph)
        with path.open("wb") as file:
            torch.export.save(program, file, extra_files=extra)

    def opened(self, path: Path, graph: Graph) -> Runs:
        """By torch alone."""
        extra = {f"{FACTS}.json": ""}
        with path.open("rb") as file:
            program = torch.export.load(file, extra_files=extra).module()
        names = json.loads(extra[f"{FACTS}.json"])["outputs"]

        def said(inputs: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
            with torch.no_grad():
                found = program(*inputs.values())
            return {name: one.numpy() for name, one in zip(names, found, strict=True)}

        return said
