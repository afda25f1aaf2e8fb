"""What a run carries from update to update: what learns and how fast, and where it stands."""

from __future__ import annotations

from dataclasses import asdict

import torch
from accelerate import Accelerator
from torch import Tensor

from vpt.data import Examples
from vpt.files import learned, learned_copy, restore
from vpt.model import PromptedModel
from vpt.objectives import Objective
from vpt.sites import Config
from vpt.training.checkpoints import Position, digest, optimizer_tensors, restore_optimizer
from vpt.training.gradients import Parts
from vpt.training.plan import batches
from vpt.training.recipe import Recipe
from vpt.training.steadying import CUT


class State:
    """A run's model and objective, their optimizers, and the run's position.

    parts: what learns, by part. best, start: what the model had learned at its best epoch, and
    before training. begun: the objective's state before training. per_epoch: updates in an epoch.

    model: the one that is trained.
    train: its training examples, matched to the model.
    val: its validation examples, or None.
    objective: bound to the training examples.
    recipe: how it is trained.
    accelerator: on which it is trained.
    """

    def __init__(
        self,
        model: PromptedModel,
        train: Examples,
        val: Examples | None,
        objective: Objective,
        recipe: Recipe,
        accelerator: Accelerator,
    ) -> None:
        self.model = model
        self.train = train
        self.val = val
        self.objective = objective.to(accelerator.device)
        self.recipe = recipe
        self.accelerator = accelerator
        self.parts: Parts = {
            name: values for name, values in model.trained_parameters().items() if values
        }
        self.optimizer = self._optimizer()
        self.objective_optimizer = self.objective.optimizer()
        if self.objective_optimizer is not None:
            self.parts["objective"] = list(self.objective.parameters())
        self.per_epoch = len(batches(len(train), recipe.batch_size, recipe.seed, 1))
        self.position = Position()
        self.start = learned_copy(model)
        self.best = self.start
        self.begun = {name: value.clone() for name, value in self.objective.state_dict().items()}

    def _optimizer(self) -> torch.optim.Optimizer | None:
        """AdamW of prompt and readout; None where nothing of them learns by gradient."""
        recipe = self.recipe
        rates = {"prompt": recipe.lr, "readout": recipe.lr * recipe.readout_lr}
        groups = [
            {"params": [p], "base": rates[name]}
            for name, values in self.parts.items()
            for p in values
        ]
        if not groups:
            return None
        optimizer = torch.optim.AdamW(groups, lr=recipe.lr, weight_decay=recipe.weight_decay)
        return self.accelerator.prepare(optimizer)

    def identity(self) -> Config:
        """What two runs must share for one to go on where the other stopped."""
        model, train = self.model, self.train
        return {
            **asdict(self.recipe),
            "objective": type(self.objective).__name__ + digest(self.objective.config()),
            "prompt": digest(model.prompt.config()),
            "readout": digest(model.readout.config()),
            "learns": digest([name for name, p in model.named_parameters() if p.requires_grad]),
            "backbone": model.backbone.fingerprint(),
            "weights": str(model.backbone.dtype).removeprefix("torch."),
            "train": digest([train.targets, train.classes, train.grouped, train.group_names]),
            "val": digest(self.val.targets) if self.val is not None else None,
        }

    @property
    def total(self) -> int:
        """Updates in the whole run."""
        return self.recipe.epochs * self.per_epoch

    @property
    def done(self) -> int:
        """Updates that are behind it."""
        return (self.position.epoch - 1) * self.per_epoch + self.position.update

    @property
    def scale(self) -> float:
        """By which losses are multiplied under fp16; 1 otherwise."""
        return float(self.accelerator.scaler.get_scale()) if self.scaled else 1.0

    @property
    def scaled(self) -> bool:
        """Whether losses are scaled, so that an overflow is expected now and then."""
        scaler = self.accelerator.scaler
        return scaler is not None and scaler.is_enabled()

    def set_peaks(self) -> None:
        """The rates at their peak, in units of what each part of the prompt began as."""
        names = {
            id(p): name
            for part in self.parts
            for name, p in self.model.named_parameters()
            if name.startswith(f"{part}.")
        }
        for group in self.optimizer.param_groups if self.optimizer is not None else []:
            name = names[id(group["params"][0])]
            size = _size(self.start[name]) if name.startswith("prompt.") else 1.0
            group["peak"] = group["base"] * size / CUT**self.position.cuts

    def begin_anew(self) -> None:
        """Back to the start with a lower rate."""
        restore(self.model, self.start)
        self.best = learned_copy(self.model)
        self.objective.load_state_dict(self.begun)
        restore_optimizer(self.optimizer, {}, "optimizer", begun=False)
        restore_optimizer(self.objective_optimizer, {}, "own_optimizer", begun=False)
        self.position = Position(rows=self.position.rows[:1], cuts=self.position.cuts + 1)
        self.set_peaks()

    def tensors(self) -> dict[str, Tensor]:
        """All of it but the position, for a checkpoint."""
        kept = {
            "now": learned(self.model),
            "best": self.best,
            "start": self.start,
            "begun": self.begun,
            "objective": self.objective.state_dict(),
        }
        tensors = {
            f"{part}.{name}": value
            for part, values in kept.items()
            for name, value in values.items()
        }
        tensors |= optimizer_tensors(self.optimizer, "optimizer")
        return tensors | optimizer_tensors(self.objective_optimizer, "own_optimizer")

    def take(self, position: Position, tensors: dict[str, Tensor]) -> None:
        """Go on from what `tensors` gave at this position. Raises errors of several kinds where
        they are others.
        """

        def under(part: str) -> dict[str, Tensor]:
            return {
                name.removeprefix(f"{part}."): value
                for name, value in tensors.items()
                if name.startswith(f"{part}.")
            }

        self.position = position
        self.best = under("best")
        self.start = under("start")
        self.begun = under("begun")
        restore(self.model, self.start)  # all three must fit
        restore(self.model, self.best)
        restore(self.model, under("now"))
        self.objective.load_state_dict(under("objective"))
        begun = position.epoch > 1 or position.update > 0
        restore_optimizer(self.optimizer, tensors, "optimizer", begun)
        restore_optimizer(self.objective_optimizer, tensors, "own_optimizer", begun)


@torch.no_grad()
def _size(start: Tensor) -> float:
    """How large the numbers of a parameter are at the start (their RMS), where that is more than 1.

    AdamW moves each number by about the rate, whatever it is. Tokens that begin as a backbone's own
    are as large as these, 5 in one model and 1 in another, and a norm divides by that: so the rate
    is in units of it.
    """
    return max(1.0, float(start.float().square().mean().sqrt()))
