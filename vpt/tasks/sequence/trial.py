"""Tasks on a backbone: what every method shares."""

from __future__ import annotations

from functools import partial

from torch import Tensor

from vpt.backbones import Backbone
from vpt.data import Data, Examples
from vpt.model import PromptedModel
from vpt.report.progress import notice
from vpt.training.checkpoints import digest
from vpt.training.evaluation import accelerator_in, evaluate, scores


class Trial:
    """Tasks on a backbone, and what is measured there.

    tasks: one after the other.
    backbone: on which they are learned.
    part: what is tested on, "test" or "val".
    seed: of all that is drawn.
    precision: in which it is computed.
    progress: whether to show how far it is, and say what is done.
    """

    def __init__(
        self,
        tasks: list[Data],
        backbone: Backbone,
        part: str,
        seed: int,
        precision: str,
        progress: bool,
    ) -> None:
        self.tasks = tasks
        self.backbone = backbone
        self.part = part
        self.seed = seed
        self.progress = progress
        self.classes = [task.train.classes for task in tasks]
        self.sizes = [len(self.tested(t)) for t in range(len(tasks))]
        self.accelerator = accelerator_in(precision)
        self.main = self.accelerator.is_main_process
        self.say = partial(notice, shown=progress and self.main)

    @property
    def all_classes(self) -> list[str]:
        """The classes of all tasks."""
        return [name for classes in self.classes for name in classes]

    def tested(self, t: int) -> Examples:
        """What task t is tested on."""
        examples: Examples = getattr(self.tasks[t], self.part)
        return examples

    def accuracy(self, model: PromptedModel, t: int) -> float:
        """On what task t is tested on."""
        scored = evaluate(
            model, self.tested(t), accelerator=self.accelerator, progress=self.progress
        )
        return scored["accuracy"]

    def features(self, model: PromptedModel, examples: Examples) -> tuple[Tensor, Tensor]:
        """(what the readout reads `[n,D]`, labels `[n]`)."""
        return scores(
            model,
            examples,
            outputs=True,
            accelerator=self.accelerator,
            progress=self.progress,
            what="features",
        )

    def identity(self, *facts: object) -> str:
        """What two runs must share for one to go on where the other stopped."""
        sizes = [
            [len(task.train), len(task.val or ()), len(self.tested(t))]
            for t, task in enumerate(self.tasks)
        ]
        return digest(
            [*facts, self.seed, self.part, self.classes, sizes, self.backbone.fingerprint()]
        )
