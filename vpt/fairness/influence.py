"""Which training examples make a prompt unfair or wrong, and the prompt without them, without
refitting (FairIJ).

The fair infinitesimal jackknife (Sattigeri et al. 2022) on what was learned alone, prompt and
readout: θ are a few thousand numbers, so that every example's gradient is kept and the linear
system is solved exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from numbers import Integral
from typing import TypedDict

import torch
from torch import Tensor

from vpt.data import Examples
from vpt.errors import DataError, TrainingError
from vpt.errors.needs import one_of
from vpt.fairness.jackknife import System, by_gradient, measure_gradient, per_example
from vpt.fairness.measure import MEASURES, Measure
from vpt.metrics.classification import classification
from vpt.model import PromptedModel
from vpt.report.progress import progress_bar
from vpt.training.evaluation import evaluate, grouped, matched, scores

BYTES = 8 << 30  # of gradients kept at once


class Ranked(TypedDict):
    """A training example with its influence: its position, name, label, and group where it has
    one.
    """

    position: int
    name: str
    label: str
    group: str | None
    influence: float


@dataclass
class Influence:
    """What each training example does to a measure on validation, and the means to take some of
    them out.

    values `[N]`: how much the measure would rise if the example counted a little more, −∇Mᵀ H⁻¹ g;
    those above zero make it worse. measure: its value on validation as things stand.
    """

    model: PromptedModel
    train: Examples
    val: Examples
    of: str
    positive: str | None
    values: Tensor
    measure: float
    _gradients: Tensor  # [N,P]: g
    _system: System
    _before: dict[str, Tensor] = field(default_factory=dict)

    def ranked(self, count: int | None = None) -> list[Ranked]:
        """The examples that make the measure worst, first; `count` of them, or all."""
        train = self.train
        targets, names = train.targets, train.group_names or []
        groups = train.grouped or [-1] * len(train)
        return [
            Ranked(
                position=i,
                name=train.name(i),
                label=train.classes[targets[i]],
                group=names[groups[i]] if names and groups[i] >= 0 else None,
                influence=float(self.values[i]),
            )
            for i in torch.argsort(self.values, descending=True).tolist()[:count]
        ]

    def set_aside(self, examples: int | Sequence[int]) -> list[int]:
        """Give the model the prompt it would have without these training examples (or the worst
        `examples` of them, fewer where no more make the measure worse).

        θ + Σ H⁻¹ g over those set aside, from the prompt as it was found: what was set aside before
        counts no more. `undo` brings that one back, bit for bit. Returns the positions set aside.
        Raises `DataError`.
        """
        if isinstance(examples, (int, Integral)):
            if isinstance(examples, bool) or examples < 0:
                raise DataError(
                    f"Found {examples!r}; needed is how many to set aside, at least 0, or which"
                    " (their positions)."
                )
            worst = torch.argsort(self.values, descending=True)[: int(examples)]
            chosen = [int(i) for i in worst if self.values[i] > 0]
        else:
            chosen = sorted({int(i) for i in examples})
        strange = [i for i in chosen if not 0 <= i < len(self.values)]
        if strange:
            raise DataError(
                f"Found positions {strange[:5]}; the training examples are 0 to"
                f" {len(self.values) - 1}."
            )
        self.undo()
        parameters = by_gradient(self.model)
        self._before = {name: p.detach().clone() for name, p in parameters.items()}
        change = self._system.solve(self._gradients[chosen].sum(0))
        parts = change.split([p.numel() for p in parameters.values()])
        with torch.no_grad():
            for p, part in zip(parameters.values(), parts, strict=True):
                p.add_(part.view_as(p).to(p))
        return chosen

    def set_aside_within(
        self, budget: float = 0.01, most: float = 0.3, progress: bool = True
    ) -> list[int]:
        """Set aside as many of the worst as lowers the measure most, for at most `budget` of
        accuracy (in [0,1]) on validation.

        Twelve numbers of examples are tried, up to the share `most`: the change is linear in the
        examples and overshoots when too many are taken. Returns the positions set aside, none where
        nothing is gained.
        """
        self.undo()
        accuracy = evaluate(self.model, self.val)["accuracy"]
        measure = Measure(self.of, self.val, self.positive)
        count = min(int((self.values > 0).sum()), max(1, int(most * len(self.values))))
        counts = sorted({round(count * i / 12) for i in range(1, 13)} - {0})
        best, least = 0, self.measure
        with progress_bar(progress) as bar:
            for k in bar.track(counts, description="setting aside"):
                self.set_aside(k)
                logits, y = scores(self.model, self.val)
                now = float(measure(logits))
                kept = classification(logits, y)["accuracy"] >= accuracy - budget - 1e-9
                if now < least and kept:
                    best, least = k, now
        self.undo()
        return self.set_aside(best) if best else []

    def undo(self) -> None:
        """The prompt as it was found, bit for bit."""
        with torch.no_grad():
            for name, p in by_gradient(self.model).items():
                if name in self._before:
                    p.copy_(self._before[name])
        self._before = {}


def influence(
    model: PromptedModel,
    train: Examples,
    val: Examples,
    of: str = "eo",
    *,
    positive: str | None = None,
    weight_decay: float = 0.0,
    damping: float = 1e-2,
    progress: bool = True,
) -> Influence:
    """The influence of every training example on a measure on validation, through what the model
    learned (FairIJ).

    With J the Jacobian of the scores and A = diag(p) − ppᵀ, H = Σ Jᵀ A J + N (weight_decay + δ) I,
    δ being `damping` times the mean of its diagonal: the Gauss-Newton matrix, damped because a
    prompt that was stopped early is no minimum. Raises `TrainingError`, `DataError`.

    model: a trained one.
    train: the examples that it was trained on.
    val: those that the measure is of.
    of: "dp", "eopp" or "eo", the smooth gap between the groups' mean probabilities (over all, over
        the examples of the class `positive`, or summed over the labels), or "loss", the
        cross-entropy, whose worst examples are often mislabelled.
    positive: a class; the last by default.
    weight_decay: of the loss, as an L2 penalty (AdamW's is none).
    damping: see above.
    progress: whether to show how far it is.
    """
    one_of(TrainingError, MEASURES, of=of)
    if not isinstance(model, PromptedModel):
        raise TrainingError(
            f"Found {type(model).__name__}; needed is a PromptedModel whose prompt was trained."
        )
    if not (damping >= 0 and weight_decay >= 0 and damping + weight_decay > 0):
        raise TrainingError(
            f"Found damping={damping}, weight_decay={weight_decay}; needed are numbers of at least"
            " 0, not both 0."
        )
    train = matched(model, train)
    val = grouped(model, val, "validation") if of != "loss" else matched(model, val)
    # of a clip longer than what the model hears: one window, and all of them
    train, val = train.drawn(0, 1), val.windows()[0]
    size = sum(p.numel() for p in by_gradient(model).values())
    if not size:
        raise TrainingError(
            "This model learned nothing by gradient, so no example has an influence on it."
        )
    _refuse_large(len(train), size, model.readout.count or 0)
    measure = Measure(of, val, positive)
    was = model.training
    model.eval()
    try:
        value, slope = measure_gradient(model, val, measure)
        gradients, factors = per_example(model, train, progress)
    finally:
        model.train(was)
    level = float(factors.square().sum()) / size * damping / len(train) + weight_decay
    system = System(factors, level * len(train))
    values = -(gradients @ system.solve(slope).float())
    return Influence(model, train, val, of, positive, values, value, gradients, system)


def _refuse_large(examples: int, size: int, classes: int) -> None:
    """Raise `DataError` where the gradients of all examples have no room. size: of each."""
    rows = examples * (1 if classes == 2 else classes)
    need = 4 * size * (examples + rows) + 16 * min(rows, size) ** 2
    if need > BYTES:
        raise DataError(
            f"{examples} examples of {size:,} numbers each need {need / 1e9:.0f} GB; use fewer,"
            " or a smaller prompt."
        )
