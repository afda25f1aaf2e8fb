"""vpt: prompt tuning for frozen, stock vision and audio transformers.

Heavy libraries load when a name is first used: `import vpt` alone is quick.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from vpt import errors

if TYPE_CHECKING:
    from vpt import continual, multi_task
    from vpt.adapting import Result, adapt
    from vpt.backbones import Backbone, Images, Sound, Waveform, check, load_backbone
    from vpt.data import load_data
    from vpt.evaluation import evaluate
    from vpt.files import load, save
    from vpt.jackknife import Influence, influence
    from vpt.library import PromptLibrary, open_library
    from vpt.model import PromptedModel
    from vpt.objectives import Classification, Distillation, FairReprogram, GapPenalty, WorstGroup
    from vpt.prompts import (
        L2P,
        Border,
        CODAPrompt,
        DeepTokens,
        DualPrompt,
        Full,
        MultiTask,
        Patch,
        Prefix,
        Prompt,
        SampleMask,
        ShallowTokens,
        Stack,
    )
    from vpt.readouts import Identity, LabelMap, Linear, NearestMean, RandomRidge, Readout, TaskHeads
    from vpt.recipes import Recipe
    from vpt.reprogramming import audit, reprogram
    from vpt.tradeoff import Frontier, frontier
    from vpt.training import fit

__version__ = "0.1.0"

_HOMES = {
    "adapting": ("Result", "adapt"),
    "backbones": ("Backbone", "Images", "Sound", "Waveform", "check", "load_backbone"),
    "data": ("load_data",),
    "files": ("load", "save"),
    "model": ("PromptedModel",),
    "objectives": ("Classification", "Distillation", "FairReprogram", "GapPenalty", "WorstGroup"),
    "prompts": (
        "Border",
        "CODAPrompt",
        "DeepTokens",
        "DualPrompt",
        "Full",
        "L2P",
        "MultiTask",
        "Patch",
        "Prefix",
        "Prompt",
        "SampleMask",
        "ShallowTokens",
        "Stack",
    ),
    "readouts": ("Identity", "LabelMap", "Linear", "NearestMean", "RandomRidge", "Readout", "TaskHeads"),
    "evaluation": ("evaluate",),
    "jackknife": ("Influence", "influence"),
    "library": ("PromptLibrary", "open_library"),
    "recipes": ("Recipe",),
    "reprogramming": ("audit", "reprogram"),
    "tradeoff": ("Frontier", "frontier"),
    "training": ("fit",),
}
_MODULES = ("continual", "multi_task")  # used by their own names: vpt.continual.run, vpt.multi_task.share
_HOME = {name: home for home, names in _HOMES.items() for name in names}

__all__ = ["L2P", "Backbone", "Border", "CODAPrompt", "Classification", "DeepTokens", "Distillation", "DualPrompt",
           "FairReprogram", "Frontier", "Full", "GapPenalty", "Identity", "Images", "Influence", "LabelMap", "Linear",
           "MultiTask", "NearestMean", "Patch", "Prefix", "Prompt", "PromptLibrary", "PromptedModel", "RandomRidge",
           "Readout", "Recipe", "Result", "SampleMask", "ShallowTokens", "Sound", "Stack", "TaskHeads", "Waveform",
           "WorstGroup", "adapt", "audit", "check", "continual", "errors", "evaluate", "fit", "frontier", "influence",
           "load", "load_backbone", "load_data", "multi_task", "open_library", "reprogram", "save"]  # fmt: skip  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"vpt.{name}")
    if name not in _HOME:
        raise AttributeError(f"module 'vpt' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"vpt.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
