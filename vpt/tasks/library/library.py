"""A library at work: one task at a time, or each sample of a batch its own, or several."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain

import torch
from torch import Tensor

from vpt.backbones import Backbone, Raw
from vpt.backbones.finding.structure import refuse_recomputing
from vpt.errors import PromptError
from vpt.tasks.library.admission import Task
from vpt.tasks.library.catalogue import Catalogue
from vpt.tasks.library.mixing import count_of


class PromptLibrary(Catalogue):
    """Prompts and readouts by task name, over one backbone.

    keep: how many of the tasks that were added as files stay loaded; those used longest ago go
        first. Threads may share it: their batches follow one another, and `use` is of its own
        thread. It serves: prompts are in eval mode, and a prompt added as an object is used as it
        is, not copied. Raises `PromptError` for what does not fit.
    """

    def __init__(self, backbone: Backbone, keep: int = 64) -> None:
        super().__init__(backbone, keep)
        self._default: str | None = None
        self._own = threading.local()

    @property
    def current(self) -> str | None:
        """The task that acts where no other is asked for: of this thread's `use`, or of the last
        `swap`.
        """
        return getattr(self._own, "name", None) or self._default

    def remove(self, name: str) -> None:
        """Take a task out. Raises `PromptError` for one that is not there."""
        super().remove(name)
        if self._default == name:
            self._default = None

    def swap(self, name: str) -> None:
        """Let this task act wherever no other is asked for; nothing is hooked anew. Raises
        `PromptError`.
        """
        self._require([name])
        self._default = name

    @contextmanager
    def use(self, name: str) -> Iterator[PromptLibrary]:
        """Inside, in this thread, this task acts wherever no other is asked for."""
        self._require([name])
        before = getattr(self._own, "name", None)
        self._own.name = name
        try:
            yield self
        finally:
            self._own.name = before

    def close(self) -> None:
        """Take everything off the backbone; the tasks stay."""
        self.attachment.remove()

    def __enter__(self) -> PromptLibrary:
        """Use as a context: `close` follows."""
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __call__(self, x: Raw, tasks: Sequence[str] | None = None) -> Tensor | list[Tensor]:
        """Raw input of B samples → class scores `[B,C]`, or one tensor `[C]` per sample where tasks
        have different classes.

        tasks: a name per sample; by default all have the current one. Raises `PromptError` for an
            unknown task, or names that are not one per sample.
        """
        x = tuple(x) if isinstance(x, list) else x  # sound, as a DataLoader gives it
        count = count_of(x)
        if isinstance(tasks, str) or (tasks is not None and len(tasks) != count):
            raise PromptError(
                f"Found tasks={tasks!r:.60} for {count} samples; needed is a list of one name per"
                " sample."
            )
        if tasks is None or not count:
            if self.current is None:
                raise PromptError(
                    "No task was chosen. Say tasks=[…], a name per sample, or library.swap(name)."
                )
            tasks = [self.current] * max(1, count)
        self._require(tasks)
        refuse_recomputing(self.backbone.model, "A library")
        with self.backbone.guard:
            self._require_open()
            scores = self._scores(x, list(dict.fromkeys(tasks)), [[name] for name in tasks[:count]])
        if len(scores) == 1:
            return next(iter(scores.values()))
        left = {name: iter(rows) for name, rows in scores.items()}
        each = [next(left[name]) for name in tasks]
        return torch.stack(each) if len({len(row) for row in each}) == 1 else each

    def each(self, x: Raw, tasks: Sequence[Sequence[str]]) -> list[dict[str, Tensor]]:
        """Raw input of B samples → class scores `[C]` of the tasks of each sample, by name.

        tasks: for each sample the names of one task or several. What of a sample is only read
            (queries, or none) shares its place in the batch, so that it goes through the model
            once; each task that acts on the model takes a place of its own. Raises `PromptError`.
        """
        x = tuple(x) if isinstance(x, list) else x
        count = count_of(x)
        if len(tasks) != count or any(isinstance(names, str) or not names for names in tasks):
            raise PromptError(
                f"Found tasks={tasks!r:.60} for {count} samples; needed is a list of names each."
            )
        wanted = [list(dict.fromkeys(names)) for names in tasks]
        distinct = list(dict.fromkeys(chain.from_iterable(wanted)))
        refuse_recomputing(self.backbone.model, "A library")
        with self.backbone.guard:
            self._require(distinct)
            self._require_open()
            scores = self._scores(x, distinct, wanted) if count else {}
        left = {name: iter(rows) for name, rows in scores.items()}
        return [{name: next(left[name]) for name in names} for names in wanted]

    def all(self, x: Raw) -> dict[str, Tensor]:
        """Raw input of B samples → class scores `[B,C]` of every task, by name.

        All tasks whose prompts only read (queries, or none) share one forward of the model; each
        that acts on it takes one of its own. More files than `keep` are loaded anew in every call.
        """
        x = tuple(x) if isinstance(x, list) else x
        refuse_recomputing(self.backbone.model, "A library")
        with self.backbone.guard:
            self._require_open()
            members = {name: self._serving(name) for name in self.names}
            shared = [name for name, task in members.items() if not task.acts]
            apart = [[name] for name, task in members.items() if task.acts]
            scores: dict[str, Tensor] = {}
            for names in [shared, *apart] if shared else apart:
                found = self._mixer.run_all(x, [members[name] for name in names])
                for name, read in zip(names, found, strict=True):
                    scores[name] = members[name].readout(read)
        return {name: scores[name] for name in self.names}

    def _scores(
        self, x: Raw, distinct: list[str], wanted: Sequence[Sequence[str]]
    ) -> dict[str, Tensor]:
        """Scores `[n,C]` of each of these tasks, of the samples that want it, in order."""
        members = [self._serving(name) for name in distinct]
        number = {name: t for t, name in enumerate(distinct)}
        reader = next((t for t, task in enumerate(members) if not task.acts), 0)
        places: dict[tuple[int, int], int] = {}  # (sample, task that acts there) → row of the batch
        rows: list[list[int]] = [[] for _ in members]
        for sample, names in enumerate(wanted):
            for t in (number[name] for name in names):
                acting = t if members[t].acts else reader
                rows[t].append(places.setdefault((sample, acting), len(places)))
        found = self._mixer.run(x, members, list(places), rows)
        return {
            name: task.readout(read)
            for name, task, read in zip(distinct, members, found, strict=True)
        }

    def _serving(self, name: str) -> Task:
        """A task in eval mode, whatever its owner did with it."""
        (task := self.task(name)).prompt.eval()
        return task
