"""The teachers of a shared prompt: each task's head, and its own prompt, learned first."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor

from vpt.backbones import Backbone
from vpt.data import Data, Examples
from vpt.errors import DataError
from vpt.model import PromptedModel
from vpt.readouts import Linear, TaskHeads
from vpt.training.evaluation import evaluate, scores
from vpt.training.loop import History

Learn = Callable[..., History]  # `fit`, with how it is done


def check_classes(data: Data, task: str) -> None:
    """Raise `DataError` for a task with nothing to tell apart."""
    count = len(set(data.train.targets))
    if count < 2:
        raise DataError(f"Task {task!r} has examples of {count} classes; needed are two or more.")


def class_means(backbone: Backbone, data: Data, accelerator: Accelerator) -> Linear:
    """A head that begins at the class means of the bare features; a probe would leave nothing to
    learn.
    """
    heads = TaskHeads(backbone.out_features, {"": data.train.classes}, incremental=True)
    with PromptedModel(backbone, None, heads) as model:
        heads.start(*scores(model, data.train, outputs=True, accelerator=accelerator))
    return heads.export("")


@torch.no_grad()
def copy_state(source: torch.nn.Module, to: torch.nn.Module) -> None:
    """Give one module the values of another."""
    to.load_state_dict({name: value.clone() for name, value in source.state_dict().items()})


def taught(
    model: PromptedModel, data: Data, learn: Learn, out: Path | None, accelerator: Accelerator
) -> tuple[Tensor, float]:
    """A teacher, once it has learned its task: (its scores of the training examples `[n,C]`, its
    accuracy). The model is closed.
    """
    with model:
        learn(model, data.train, validation(data), out=out)
        answers = scores(model, data.train, accelerator=accelerator)[0]
        scored = evaluate(model, validation(data) or data.train, accelerator=accelerator)
    return answers, scored["accuracy"]


def validation(data: Data) -> Examples | None:
    """The validation examples, where there are any."""
    return data.val if data.val is not None and len(data.val) else None
