"""What a sequence of tasks leaves in its folder, so that a run that was killed goes on."""

from __future__ import annotations

import json
from pathlib import Path

from torch import Tensor

from vpt.errors import TrainingError
from vpt.errors.places import is_there
from vpt.files import read, save, write_atomically
from vpt.files.naming import PROMPT
from vpt.model import PromptedModel
from vpt.sites import Config
from vpt.tasks.sequence.outcome import Outcome
from vpt.training.checkpoints import CHECKPOINT

RESULTS = "results.json"
Rows = list[list[float]]  # accuracies, `[T][i ≤ t]`


class Journal:
    """The folder of a run: its prompt file, and its numbers.

    folder: where that is; None for a run that leaves nothing.
    identity: what two runs must share for one to go on where the other stopped.
    resume: whether a run that was stopped goes on.
    overwrite: whether what another run left is given up.
    main: whether this process writes.
    """

    def __init__(
        self, folder: Path | None, identity: str, resume: bool, overwrite: bool, main: bool
    ) -> None:
        self.folder = folder
        self.identity = identity
        self.resume = resume
        self.overwrite = overwrite
        self.main = main

    def of_task(self, t: int) -> Path | None:
        """The folder of task t's training."""
        return self.folder / f"task-{t + 1}" if self.folder is not None else None

    def earlier(self) -> Rows | None:
        """The accuracies of an earlier run in the folder; None where there is none. Raises
        `TrainingError` for another run's.
        """
        if self.folder is None:
            return None
        if not is_there(self.folder / RESULTS):
            if is_there(self.folder / PROMPT) and not self.overwrite:
                raise TrainingError(
                    f"{self.folder} holds a finished run of another kind. Choose another folder"
                    " (out=…), or overwrite=True."
                )
            return None
        kept = json.loads((self.folder / RESULTS).read_text(encoding="utf-8"))
        if kept.get("identity") != self.identity:
            raise TrainingError(
                f"{self.folder} holds a run of other tasks or settings. Choose another folder"
                " (out=…), or overwrite=True."
            )
        if not self.resume:
            raise TrainingError(
                f"{self.folder} holds a run already. Go on with resume=True, choose another folder"
                " (out=…), or begin again with overwrite=True."
            )
        return kept["accuracy"]

    def begun(self) -> tuple[Rows, int, dict[str, Tensor]]:
        """(the accuracies of an interrupted run, how many tasks its prompt has learned, what that
        is); nothing of each where there was none. Raises `TrainingError` for another run's.
        """
        rows = self.earlier()
        if self.folder is None:
            return [], 0, {}
        # so that whose the folder is is known before there is a prompt file
        if rows is None and self.main:
            write_atomically(self.folder / RESULTS, self._numbers([]))
        if rows is None or not is_there(self.folder / PROMPT):
            return [], 0, {}
        header, tensors = read(self.folder / PROMPT)
        return rows, int(header["trained_on"]["tasks"]), tensors

    def keep(self, model: PromptedModel, done: int, rows: Rows) -> None:
        """The prompt file first, then the accuracies. done: how many tasks it has learned."""
        if self.folder is None or not self.main:
            return
        save(self.folder / PROMPT, model, trained_on={"tasks": done})
        write_atomically(self.folder / RESULTS, self._numbers(rows))
        (self.folder / f"task-{done}" / CHECKPOINT).unlink(missing_ok=True)

    def _numbers(self, rows: Rows) -> bytes:
        return json.dumps({"identity": self.identity, "accuracy": rows}).encode()

    def finish(self, outcome: Outcome) -> Outcome:
        """The outcome, with its file, once its numbers are written."""
        if self.folder is None:
            return outcome
        if (self.folder / PROMPT).exists():
            outcome.file = self.folder / PROMPT
        if self.main:
            numbers: Config = {"identity": self.identity, **outcome.report()}
            write_atomically(self.folder / RESULTS, json.dumps(numbers, indent=1).encode())
        return outcome
