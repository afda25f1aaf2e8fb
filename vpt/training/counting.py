"""What is counted during a run rather than learned by gradient: label maps, class means, running
statistics.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from accelerate import Accelerator
from torch.utils.data import DataLoader

from vpt.data import Examples
from vpt.model import PromptedModel
from vpt.objectives import Objective
from vpt.prompts import Prompt
from vpt.readouts import Readout
from vpt.training.evaluation import tasks_of


@torch.no_grad()
def learn_statistics(model: PromptedModel, train: Examples, first: bool = False) -> None:
    """Before training (`first`) or after an epoch: a pass over the training data where the readout
    wants one, then `settle`.
    """
    readout = model.readout
    if readout.refresh == "never" or (readout.refresh == "once" and not first):
        return
    if first or readout.refresh == "epoch":
        readout.reset()
        for batch in DataLoader(train.windows()[0], batch_size=64):
            with model.asked(tasks_of(model, batch)):
                out = model.outputs(batch[0])
            readout.update(out, torch.as_tensor(batch[1]).to(model.backbone.device))
    readout.settle()
    if readout.refresh == "reuse":
        readout.reset()


@torch.no_grad()
def average_buffers(prompt: Prompt, accelerator: Accelerator) -> None:
    """Running statistics of a prompt's own network (SMM): each process saw other examples, so they
    are averaged.
    """
    for buffer in prompt.buffers() if accelerator.num_processes > 1 else []:
        if buffer.is_floating_point():
            buffer.copy_(accelerator.reduce(buffer, "mean"))


@contextmanager
def adding_up(readout: Readout, objective: Objective, accelerator: Accelerator) -> Iterator[None]:
    """Around an update: what each process counts in it is added up, so that every process holds the
    counts of all.
    """
    counted = objective.statistics() + (readout.statistics() if readout.refresh == "reuse" else [])
    statistics = counted if accelerator.num_processes > 1 else []
    before = [value.clone() for value in statistics]
    yield
    for value, old in zip(statistics, before, strict=True):
        value.copy_(old + accelerator.reduce(value - old, "sum"))
