"""What a method made of a sequence of tasks: accuracies, forgetting, and what was used."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vpt.metrics.classification import forgetting_coda, forgetting_l2p
from vpt.model import PromptedModel
from vpt.sites import Config


@dataclass
class Outcome:
    """What a method made of a sequence of tasks; `model` holds its prompt and heads, still
    attached.

    accuracy: `[T][i ≤ t]`, on task i's test examples after task t, all classes seen so far
        competing. sizes: how many test examples each task has. usage: per prompted block, how much
        each part of the prompt was used by each task's test examples `[T,M]`; empty for prompts
        without parts to choose from.
    """

    method: str
    tasks: list[list[str]]
    sizes: list[int]
    accuracy: list[list[float]]
    usage: list[list[list[float]]]
    model: PromptedModel
    file: Path | None = None

    @property
    def _in_turn(self) -> bool:
        """Whether the tasks were learned one after another."""
        return len(self.accuracy) == len(self.tasks)

    @property
    def forgetting_l2p(self) -> float | None:
        """Mean over earlier tasks of the best accuracy minus the last (L2P); None for joint
        training.
        """
        return forgetting_l2p(self.accuracy) if self._in_turn else None

    @property
    def forgetting_coda(self) -> float | None:
        """CODA-Prompt's F_N, a much smaller number; None for joint training."""
        return forgetting_coda(self.accuracy) if self._in_turn else None

    @property
    def after_each_task(self) -> list[float]:
        """Accuracy over the test examples of all tasks seen so far, after each of them; one number
        for joint training.
        """
        return [float(np.average(row, weights=self.sizes[: len(row)])) for row in self.accuracy]

    @property
    def final_average(self) -> float:
        """Accuracy over all test examples after the last task."""
        return self.after_each_task[-1]

    @property
    def parts_used(self) -> float | None:
        """Which share of a prompt's parts is in use, exp(entropy of their mean weights) ÷ their
        number; 1/M (L2P: top/M) where the choice collapsed.
        """
        if not self.usage:
            return None
        used = []
        for block in self.usage:
            mean = np.mean(block, axis=0)
            share = mean / max(np.sum(mean), 1e-12)
            entropy = -np.sum(share * np.log(np.clip(share, 1e-12, None)))
            used.append(np.exp(entropy) / len(share))
        return float(np.mean(used))

    def report(self) -> Config:
        """All numbers, as plain values."""
        return {
            "method": self.method,
            "tasks": self.tasks,
            "accuracy": self.accuracy,
            "final_average": self.final_average,
            "forgetting_l2p": self.forgetting_l2p,
            "forgetting_coda": self.forgetting_coda,
            "parts_used": self.parts_used,
            "usage": self.usage,
        }
