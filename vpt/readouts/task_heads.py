"""Linear classifiers of several tasks side by side; for sequences of tasks they grow."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from vpt.errors import DataError, PromptError
from vpt.readouts.base import Readout
from vpt.readouts.features import Linear
from vpt.readouts.registry import register
from vpt.sites import BackboneLike, Config


@register("", "a linear classifier per task, side by side; grows with the tasks")
class TaskHeads(Readout):
    """A linear classifier per task on the same features; scores `[B,C]` of all classes, task after
    task.

    heads: task name → class names (or pairs of them), all different. incremental: tasks come one
        after another; only the newest head learns, and in training the scores of all others are
        −inf (L2P, DualPrompt and CODA-Prompt all do so); at test all classes seen so far compete.
        Otherwise each sample's task must be told (`asked`), and the scores of other tasks' classes
        are −inf. Heads start at zero. Raises `PromptError` for a class that appears twice.
    """

    spread: Tensor  # σ² of `start`, 0 before

    def __init__(
        self,
        features: int,
        heads: Mapping[str, Sequence[str]] | Sequence[tuple[str, Sequence[str]]],
        incremental: bool = False,
    ) -> None:
        super().__init__(None)
        self.features = features
        self.incremental = incremental
        self.heads: dict[str, list[str]] = {}
        self.linears = nn.ModuleList()
        self.register_buffer("spread", torch.zeros(()))
        self._asked: Tensor | None = None
        for task, classes in dict(heads).items():
            self.grow(task, classes)

    def grow(self, task: str, classes: Sequence[str]) -> None:
        """A head for another task. Raises `PromptError` for a task or class that is there already,
        or no classes.
        """
        classes = [str(name) for name in classes]
        if task in self.heads or not classes:
            raise PromptError(
                f"Found task {task!r} with {len(classes)} classes; needed is a new task with one"
                " class or more."
            )
        held = {name: other for other, names in self.heads.items() for name in names}
        both = [name for name in classes if name in held]
        if both or len(set(classes)) < len(classes):
            name = both[0] if both else next(name for name in classes if classes.count(name) > 1)
            raise PromptError(
                f"Class {name!r} appears in task {held.get(name, task)!r} and in task {task!r};"
                " needed are different ones."
            )
        head = Linear(self.features, classes)
        if self.linears:
            head.to(self.linears[0].weight)  # type: ignore[arg-type]
        if self.incremental:
            self.linears.requires_grad_(False)
        self.linears.append(head)
        self.heads[str(task)] = classes
        self.classes = [name for names in self.heads.values() for name in names]
        self.count = len(self.classes)

    @property
    def task_names(self) -> list[str]:
        """The tasks, where they are learned together and there are several."""
        return list(self.heads) if not self.incremental and len(self.heads) > 1 else []

    @property
    def task_of(self) -> list[int]:
        """The task's number of each class `[C]`."""
        return [t for t, names in enumerate(self.heads.values()) for _ in names]

    @torch.no_grad()
    def start(self, out: Tensor, y: Tensor, softness: float = 10.0) -> None:
        """Let the newest head begin as nearest class mean: features `[n,D]`, labels `[n]` among its
        own classes.

        Its scores are −‖x − μ_c‖² / (2 · softness · σ²) but for what all classes share, with σ² the
        mean variance per feature within the first task's classes: one scale for all heads, so that
        classes compare which were never learned together.
        """
        linear = self.linears[-1]
        out, y = out.to(self.spread.device), y.to(self.spread.device)
        counts = torch.bincount(y, minlength=len(linear.classes))  # type: ignore[arg-type]
        if not bool((counts > 0).all()):
            empty = linear.classes[int(counts.argmin())]  # type: ignore[index]
            raise DataError(
                f"Class {empty!r} has no training example; needed is at least one of each."
            )
        means = torch.stack([out[y == c].mean(0) for c in range(len(counts))])
        if not self.spread:
            # of one each nothing is known inside
            inside = out - means[y] if int(counts.max()) > 1 else out - out.mean(0)
            self.spread.copy_(inside.square().mean().clamp(min=1e-12))
        scale = softness * self.spread
        linear.weight.copy_(means / scale)  # type: ignore[operator]
        linear.bias.copy_(-means.square().sum(1) / (2 * scale))  # type: ignore[operator]

    @contextmanager
    def asked(self, tasks: Tensor | None) -> Iterator[None]:
        """Inside, each sample's task number `[B]` is known, and classes of other tasks score
        −inf.
        """
        before, self._asked = self._asked, tasks
        try:
            yield
        finally:
            self._asked = before

    def forward(self, out: Tensor) -> Tensor:
        """Features `[B,D]` → `[B,C]`."""
        scores = torch.cat([head(out) for head in self.linears], dim=1)
        own = torch.tensor(self.task_of, device=scores.device)
        if self._asked is not None:
            asked = self._asked.to(own.device)
            if len(asked) not in (1, len(scores)):
                raise PromptError(
                    f"Found {len(asked)} tasks for a batch of {len(scores)}; needed is one for each"
                    " sample, or one for all."
                )
            return scores.masked_fill(own != asked[:, None], float("-inf"))
        if self.incremental and self.training:
            return scores.masked_fill(own != len(self.heads) - 1, float("-inf"))
        return scores

    def export(self, task: str) -> Linear:
        """One task's head alone; class names lose the "task: " before them. Raises `PromptError`
        for an unknown task.
        """
        if task not in self.heads:
            raise PromptError(
                f"Found task {task!r}; these heads have {', '.join(list(self.heads)[:10])}."
            )
        linear = self.linears[list(self.heads).index(task)]
        alone = Linear(self.features, [name.removeprefix(f"{task}: ") for name in self.heads[task]])
        alone.load_state_dict(
            {name: value.detach().clone() for name, value in linear.state_dict().items()}
        )
        return alone

    def bind(self, backbone: BackboneLike) -> None:
        """Raise `PromptError` if the backbone's features have another width, or there is no head
        yet.
        """
        if not self.linears:
            raise PromptError(
                "Found no task; needed is one or more: TaskHeads(features, {'task': ['class', …]})."
            )
        self.linears[0].bind(backbone)  # type: ignore[operator]

    def config(self) -> Config:
        """Width, and the classes of each task."""
        heads = [[task, names] for task, names in self.heads.items()]  # JSON would sort a mapping
        return {"features": self.features, "heads": heads, "incremental": self.incremental}
