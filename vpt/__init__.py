"""vpt: prompt tuning for frozen, stock vision and audio transformers.

Heavy libraries load when a name is first used: `import vpt` alone is quick.
"""

from __future__ import annotations

import ast
import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vpt import errors as errors

# Every public name, written once, with its home: type checkers read the block as it stands, and
# `__getattr__` reads it too.
if TYPE_CHECKING:
    from vpt import backbones as backbones
    from vpt import data as data
    from vpt import files as files
    from vpt import hf as hf
    from vpt import metrics as metrics
    from vpt import objectives as objectives
    from vpt import prompts as prompts
    from vpt import readouts as readouts
    from vpt import sklearn as sklearn
    from vpt.backbones import Backbone as Backbone
    from vpt.backbones import Images as Images
    from vpt.backbones import Sound as Sound
    from vpt.backbones import Waveform as Waveform
    from vpt.backbones import check as check
    from vpt.backbones import load_backbone as load_backbone
    from vpt.data import Data as Data
    from vpt.data import Examples as Examples
    from vpt.data import load_data as load_data
    from vpt.deploy.exporting import export as export
    from vpt.deploy.pushing import Pushed as Pushed
    from vpt.deploy.pushing import push as push
    from vpt.fairness.audited import audit as audit
    from vpt.fairness.influence import Influence as Influence
    from vpt.fairness.influence import influence as influence
    from vpt.fairness.outcome import Frontier as Frontier
    from vpt.fairness.reprogramming import reprogram as reprogram
    from vpt.fairness.tradeoff import frontier as frontier
    from vpt.files.saving import load as load
    from vpt.files.saving import save as save
    from vpt.model import PromptedModel as PromptedModel
    from vpt.objectives import Objective as Objective
    from vpt.objectives.classification import Classification as Classification
    from vpt.objectives.constrained import GapBound as GapBound
    from vpt.objectives.constrained import LossBound as LossBound
    from vpt.objectives.distillation import Distillation as Distillation
    from vpt.objectives.fair_reprogram import FairReprogram as FairReprogram
    from vpt.objectives.fair_reprogram import FairReprogramOfScores as FairReprogramOfScores
    from vpt.objectives.gap_penalty import GapPenalty as GapPenalty
    from vpt.objectives.worst_group import WorstGroup as WorstGroup
    from vpt.prompts import L2P as L2P
    from vpt.prompts import Border as Border
    from vpt.prompts import CODAPrompt as CODAPrompt
    from vpt.prompts import DeepTokens as DeepTokens
    from vpt.prompts import DualPrompt as DualPrompt
    from vpt.prompts import Full as Full
    from vpt.prompts import HardQueries as HardQueries
    from vpt.prompts import MultiTask as MultiTask
    from vpt.prompts import Patch as Patch
    from vpt.prompts import Prefix as Prefix
    from vpt.prompts import Prompt as Prompt
    from vpt.prompts import QueryTokens as QueryTokens
    from vpt.prompts import SampleMask as SampleMask
    from vpt.prompts import ShallowTokens as ShallowTokens
    from vpt.prompts import Stack as Stack
    from vpt.readouts import Average as Average
    from vpt.readouts import Identity as Identity
    from vpt.readouts import LabelMap as LabelMap
    from vpt.readouts import Linear as Linear
    from vpt.readouts import NearestMean as NearestMean
    from vpt.readouts import RandomRidge as RandomRidge
    from vpt.readouts import Readout as Readout
    from vpt.readouts import TaskHeads as TaskHeads
    from vpt.runs.adapting import adapt as adapt
    from vpt.runs.correcting import Correction as Correction
    from vpt.runs.correcting import correct as correct
    from vpt.runs.correcting import undo_correction as undo_correction
    from vpt.runs.erasing import erasing as erasing
    from vpt.runs.explaining import Explanation as Explanation
    from vpt.runs.explaining import explain as explain
    from vpt.runs.features import features as features
    from vpt.runs.occluding import gradient_input as gradient_input
    from vpt.runs.occluding import occlusion as occlusion
    from vpt.runs.predicting import Prediction as Prediction
    from vpt.runs.predicting import predict as predict
    from vpt.runs.result import Result as Result
    from vpt.tasks import sequence as continual
    from vpt.tasks import shared as multi_task
    from vpt.tasks.library import PromptLibrary as PromptLibrary
    from vpt.tasks.library import open_library as open_library
    from vpt.training.evaluation import evaluate as evaluate
    from vpt.training.loop import fit as fit
    from vpt.training.recipe import Recipe as Recipe

__version__ = "0.1.0"


def _homes() -> dict[str, tuple[str, str]]:
    """Public name → (module, name there), from the block above."""
    tree = ast.parse(Path(__file__).read_text(encoding="utf-8"))
    block = next(part for part in tree.body if isinstance(part, ast.If))
    found = [
        (part.module, alias)
        for part in block.body
        if isinstance(part, ast.ImportFrom)
        for alias in part.names
    ]
    return {alias.asname or alias.name: (str(module), alias.name) for module, alias in found}


_HOMES = _homes()

# two have another name at home
__all__ = ["continual", "multi_task"]
__all__ += sorted({*_HOMES, "errors"} - {*__all__})


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'vpt' has no attribute {name!r}")
    home, own = _HOMES[name]
    if home in ("vpt", "vpt.tasks"):
        value: Any = importlib.import_module(f"{home}.{own}")
    else:
        value = getattr(importlib.import_module(home), own)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
