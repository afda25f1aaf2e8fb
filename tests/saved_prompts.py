"""Saved prompts for tests, and what an attacker makes of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from families import FORMS

import vpt
from vpt import files


def saved(backbone: vpt.Backbone, path: Path, form: str = "stack") -> tuple[Path, torch.Tensor]:
    """(A prompt file with what a form of prompt learned, its scores of two examples)."""
    with vpt.PromptedModel(
        backbone, FORMS[form](backbone), vpt.Linear(32, ["ä cat", "dög", "☂"])
    ) as model:
        torch.nn.init.normal_(model.readout.weight)
        vpt.save(path, model, trained_on={"n": 3}, scores={"accuracy": 0.5})
        return path, model.eval()(backbone.inputs.example(2))


def rewritten(path: Path, change: Callable[[dict, dict], object]) -> Path:
    """The same file with another header, its hash made right again: what an attacker can do."""
    header, tensors = files.unpack(path.read_bytes(), "x")
    change(header, tensors)
    path.write_bytes(files.pack(tensors, header))
    return path
