"""A folder of prompts on one frozen model, kept in step with the folder, as anything may serve it.

It knows nothing of HTTP: the web application calls it, and so may an actor of Ray.
"""

from __future__ import annotations

import io
import os
import re
import tempfile
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.utils.data import default_collate

from vpt.backbones import Backbone
from vpt.data.files import Files
from vpt.data.readers import Reader
from vpt.deploy.serving.batching import Batcher, Job, Scores
from vpt.errors import PromptError, PromptFileError, VptError
from vpt.errors.needs import whole
from vpt.files import read
from vpt.files.reopening import reopen
from vpt.sites import Config
from vpt.tasks.library import PromptLibrary, prompt_files
from vpt.training.evaluation import accelerator_in

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")  # of a task that comes over the network


@dataclass(frozen=True)
class Listed:
    """A task as its file says it. stamp: of the file, by which a change is seen."""

    path: Path
    stamp: tuple[int, int, int]
    facts: Config


class Service:
    """Answers of the tasks in a folder.

    folder: of prompt files, or of runs. What is put in or taken out while it serves is followed.
    backbone: the model; by default the one that the first prompt names. Tasks of another are not
        served, and `broken` says so.
    dtype, seconds: as for `vpt.load`.
    batch: inputs in one forward.
    waiting: requests that may wait.
    keep: tasks that are held in memory; others are read when they are asked for.
    """

    def __init__(
        self,
        folder: str | Path,
        backbone: Backbone | str | Path | None = None,
        *,
        dtype: str | None = None,
        seconds: float | None = None,
        batch: int = 32,
        waiting: int = 512,
        keep: int = 64,
    ) -> None:
        whole(PromptError, batch=batch, waiting=waiting, keep=keep)
        self.folder = Path(folder)
        if not isinstance(backbone, Backbone):
            first = next(iter(prompt_files(self.folder).values()))
            backbone = reopen(read(first)[0], backbone, dtype=dtype, seconds=seconds)
        self.backbone = backbone.to(accelerator_in("no").device)
        self.broken: dict[str, str] = {}
        self._listed: dict[str, Listed] = {}
        self._library = PromptLibrary(backbone, keep)
        self._changing = threading.RLock()
        self.refresh()
        if not self._listed:
            self._library.close()
            raise PromptFileError(
                f"None of the prompts in {self.folder} can be served. "
                + " ".join(list(self.broken.values())[:3])
            )
        self.batches: list[int] = []  # sizes of those that ran since somebody looked
        self.batcher = Batcher(self._run, batch, waiting)

    @property
    def tasks(self) -> dict[str, Config]:
        """What each task is, by name: its classes, its prompt, the bytes of its file."""
        return {name: one.facts for name, one in self._listed.items()}

    # asking -----------------------------------------------------------------------------
    def prepare(self, data: bytes | Path, name: str = "it") -> list[object]:
        """A file, or the bytes of one → raw input as the model takes it: a picture, or the windows
        of a clip. Raises `DataError` with the reason.
        """
        opened = None if isinstance(data, Path) else lambda _: io.BytesIO(data)
        path = data if isinstance(data, Path) else Path(name)
        files = Files([path], Reader(self.backbone.inputs, opened))
        return [files(0, window) for window in files.windows(0)]

    def ask(self, windows: list[object], tasks: Sequence[str]) -> Future[Scores]:
        """What these tasks will say. Raises `PromptError` for one that is not there; `Busy`."""
        for name in tasks:
            if name not in self._listed:
                raise PromptError(f"There is no task {name!r}.")
        return self.batcher.submit(Job(windows, tuple(tasks)))  # type: ignore[arg-type]

    def answer(self, task: str, scores: torch.Tensor, top_k: int = 3) -> Config:
        """Scores `[C]` of a task in plain values, as `vpt predict --json` has them."""
        listed = self._listed.get(task)
        names = (listed.facts["classes"] if listed else None) or list(map(str, range(len(scores))))
        values, order = scores.softmax(0).topk(min(top_k, len(scores)))
        top = [(names[c], p) for c, p in zip(order.tolist(), values.tolist(), strict=True)]
        return {"class": top[0][0], "probability": top[0][1], "top": top}

    @torch.no_grad()
    def _run(self, jobs: Sequence[Job]) -> list[Scores]:
        """One forward for the windows of all jobs, whatever tasks they ask for."""
        flat = [(window, job.tasks) for job in jobs for window in job.windows]
        x = default_collate([window for window, _ in flat])
        found = iter(self._library.each(x, [tasks for _, tasks in flat]))
        self.batches.append(len(flat))
        answers = []
        for job in jobs:
            each = [next(found) for _ in job.windows]
            scores = {t: torch.stack([one[t] for one in each]).mean(0).cpu() for t in job.tasks}
            for task, values in scores.items():
                if not bool(values.isfinite().all()):
                    raise PromptError(f"Task {task!r} gives NaN for this input.")
            answers.append(scores)
        return answers

    # the folder -------------------------------------------------------------------------
    def refresh(self) -> None:
        """Follow the folder: files that came, changed or went. One that cannot be served is left
        out, and `broken` says why.
        """
        with self._changing:
            files = self._files()
            broken = {name: self.broken[name] for name in files.keys() & self.broken.keys()}
            listed = dict(self._listed)
            for name in self._listed.keys() - files.keys():
                self._library.remove(name)
                del listed[name]
            for name, path in files.items():
                try:
                    stamp = _stamp(path)
                    if name in listed and listed[name].stamp == stamp:
                        continue
                    facts = self._facts(path)
                    with self.backbone.guard:  # no batch sees it gone
                        if name in self._library:
                            self._library.remove(name)
                        listed.pop(name, None)
                        self._library.add(name, path)
                    listed[name] = Listed(path, stamp, facts)
                    broken.pop(name, None)
                except (VptError, OSError) as error:
                    listed.pop(name, None)
                    broken[name] = str(error)
            self._listed, self.broken = listed, broken

    def put(self, name: str, data: bytes) -> bool:
        """Add a task, or put another prompt in the place of one; whether it is new. It is checked
        before it is in the folder. Raises `PromptError` for a name that is none, `PromptFileError`
        for a file that cannot be served.
        """
        if not NAME.fullmatch(name):
            raise PromptError(
                f"Found the name {name!r}; needed are letters, digits, '.', '_' and '-', 100 at"
                " most, beginning with a letter or a digit."
            )
        handle, part = tempfile.mkstemp(dir=self.folder, prefix=".", suffix=".part")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
            self._check(Path(part), name)
            with self._changing:
                path = self._files().get(name, self.folder / f"{name}.vpt")
                new = not path.exists()
                os.chmod(part, 0o644)
                os.replace(part, path)
                self.refresh()
        finally:
            Path(part).unlink(missing_ok=True)
        return new

    def take_out(self, name: str) -> None:
        """Delete a task's prompt file; batches that run with it end as they began. Raises
        `PromptError` for one that is not there, or that is a run's.
        """
        with self._changing:
            path = self._files().get(name)
            if path is None:
                raise PromptError(f"There is no task {name!r}.")
            if path.parent != self.folder:
                raise PromptFileError(
                    f"{name!r} is the folder of a run; delete it where the run was made."
                )
            path.unlink()
            self.refresh()

    def close(self) -> None:
        """Answer what waits, and take everything off the model."""
        self.batcher.close()
        self._library.close()

    def _check(self, path: Path, name: str) -> None:
        """Raise `PromptFileError` for a file that this model cannot serve."""
        trial = f"{name} (not yet in use)"
        try:
            self._library.add(trial, path)
            self._library.task(trial)
        except VptError as error:
            said = str(error).replace(str(path), name)
            raise PromptFileError(said) from error
        finally:
            if trial in self._library:
                self._library.remove(trial)

    def _files(self) -> dict[str, Path]:
        """The prompt files of the folder, which may be empty by now."""
        try:
            return prompt_files(self.folder)
        except PromptFileError:
            if any(self.folder.glob("*.vpt")):  # two of one name
                raise
            return {}

    def _facts(self, path: Path) -> Config:
        header, size = read(path)[0], path.stat().st_size
        return {"classes": header["classes"], "prompt": header["prompt"]["name"], "bytes": size}


def _stamp(path: Path) -> tuple[int, int, int]:
    found = path.stat()
    return found.st_mtime_ns, found.st_size, found.st_ino
