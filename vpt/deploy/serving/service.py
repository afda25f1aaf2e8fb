"""A folder of prompts on one frozen model, as anything may serve it.

It knows nothing of HTTP: the web application calls it, and so may an actor of Ray.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path

import torch
from torch.utils.data import default_collate

from vpt.backbones import Backbone
from vpt.data.files import Files
from vpt.data.readers import RawInput, Reader
from vpt.deploy.serving.batching import Answers, Batcher, Job
from vpt.deploy.serving.tasks import Tasks, UnknownTaskError
from vpt.errors import PromptError, PromptFileError
from vpt.errors.needs import whole
from vpt.files import read
from vpt.files.reopening import reopen
from vpt.sites import Config
from vpt.tasks.library import prompt_files_or_why
from vpt.training.evaluation import accelerator_in

KEPT = 256


class Service:
    """Answers of the tasks in a folder.

    folder: of prompt files, or of runs. What is put in or taken out while it serves is followed.
    backbone: the model; by default the one that a prompt names. Tasks of another are not served,
        and `tasks.broken` says so.
    like: a prompt file of that model, and then the folder may be empty; by default the first that
        can be read.
    dtype, seconds: as for `vpt.load`.
    batch: inputs in one forward.
    waiting: requests that may wait.
    keep: tasks that are held in memory; others are read when they are asked for.

    Raises `PromptFileError` for a folder of which nothing can be served, `BackboneError`.
    """

    def __init__(
        self,
        folder: str | Path,
        backbone: Backbone | str | Path | None = None,
        *,
        like: str | Path | None = None,
        dtype: str | None = None,
        seconds: float | None = None,
        batch: int = 32,
        waiting: int = 512,
        keep: int = KEPT,
    ) -> None:
        whole(PromptError, batch=batch, waiting=waiting, keep=keep)
        folder = Path(folder)
        self.like = Path(like) if like is not None else None
        if not isinstance(backbone, Backbone):
            self.like = self.like or _first(folder)
            backbone = reopen(read(self.like)[0], backbone, dtype=dtype, seconds=seconds)
        self.backbone = backbone.to(accelerator_in("no").device)
        self.tasks = Tasks(folder, backbone, keep)
        if not len(self.tasks) and like is None:
            self.tasks.library.close()
            raise PromptFileError(
                f"None of the prompts in {folder} can be served. "
                + " ".join(list(self.tasks.broken.values())[:3])
            )
        self.batches: list[int] = []  # sizes of those that ran since somebody looked
        self.batcher = Batcher(self._run, batch, waiting)

    def prepare(self, data: bytes | Path, name: str = "it") -> list[RawInput]:
        """A file, or the bytes of one → raw input as the model takes it: a picture, or the windows
        of a clip. Raises `DataError` with the reason.
        """
        opened = None if isinstance(data, Path) else lambda _: io.BytesIO(data)
        path = data if isinstance(data, Path) else Path(name)
        files = Files([path], Reader(self.backbone.inputs, opened))
        return [files(0, window) for window in files.windows(0)]

    def ask(self, windows: list[RawInput], tasks: Sequence[str]) -> Future[Answers]:
        """What these tasks will say. Raises `UnknownTaskError`, `Busy`, `Stopped`."""
        for name in tasks:
            if name not in self.tasks:
                raise UnknownTaskError(name)
        return self.batcher.submit(Job(windows, tuple(tasks)))

    def close(self) -> None:
        """Answer what waits, and take everything off the model."""
        self.batcher.close()
        self.tasks.library.close()

    @torch.no_grad()
    def _run(self, jobs: Sequence[Job]) -> list[Answers]:
        """One forward for the windows of all jobs, whatever tasks they ask for."""
        library = self.tasks.library
        with self.backbone.guard:  # or a task could be swapped before its classes are looked up
            names = {name for job in jobs for name in job.tasks}
            for name in names:
                if name not in library:
                    raise UnknownTaskError(name)
            found = self._each(jobs)
            classes = {name: library.task(name).readout.classes for name in names}
        answers: list[Answers] = []
        for job, each in zip(jobs, found, strict=True):
            said: Answers = {}
            for task in job.tasks:
                scores = torch.stack([one[task] for one in each]).mean(0).cpu()
                if not bool(scores.isfinite().all()):
                    raise PromptError(f"Task {task!r} gives NaN for this input.")
                said[task] = scores, classes[task]
            answers.append(said)
        return answers

    def _each(self, jobs: Sequence[Job]) -> list[list[dict[str, torch.Tensor]]]:
        """Scores by task of each window of each job, in forwards of no more rows than may be: a
        task that acts on the model has one of its own.
        """
        library, most = self.tasks.library, self.batcher.most
        found: list[list[dict[str, torch.Tensor]]] = [[{} for _ in job.windows] for job in jobs]
        pieces: list[tuple[int, int, list[str]]] = []  # (job, window, tasks of one forward)
        for j, job in enumerate(jobs):
            acting = [name for name in job.tasks if library.task(name).acts]
            parts = [acting[i : i + most] for i in range(0, len(acting), most)]
            if reading := [name for name in job.tasks if name not in acting]:
                parts.append(reading)
            pieces += [(j, w, part) for w in range(len(job.windows)) for part in parts]
        while pieces:
            rows, some = 0, 0
            for _, _, names in pieces:
                rows += len(names) if library.task(names[0]).acts else 1
                if some and rows > most:
                    break
                some += 1
            now, pieces = pieces[:some], pieces[some:]
            x = default_collate([jobs[j].windows[w] for j, w, _ in now])
            said = library.each(x, [names for _, _, names in now])
            for (j, w, _), scores in zip(now, said, strict=True):
                found[j][w] |= scores
            self.batches.append(len(now))
        return found


def answer(said: tuple[torch.Tensor, list[str] | None], top_k: int = 3) -> Config:
    """(Scores `[C]` of a task, its classes) in plain values, as `vpt predict --json` has them."""
    scores, classes = said
    values, order = scores.softmax(0).topk(min(top_k, len(scores)))
    named = [classes[c] if classes else str(c) for c in order.tolist()]
    top = list(zip(named, values.tolist(), strict=True))
    return {"class": top[0][0], "probability": top[0][1], "top": top}


def _first(folder: Path) -> Path:
    """The first prompt file that can be read. Raises `PromptFileError`."""
    files, broken = prompt_files_or_why(folder)
    for path in files.values():
        try:
            read(path)
        except (PromptFileError, OSError) as error:
            broken[path.name] = str(error)
            continue
        return path
    why = " ".join(list(broken.values())[:3]) or "needed are NAME.vpt, or runs' folders."
    raise PromptFileError(f"Found no prompt files in {folder} that can be read: {why}")
