"""The tasks of a folder on one model, kept in step with the folder while they are served."""

from __future__ import annotations

import os
import re
import secrets
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path

from vpt.backbones import Backbone
from vpt.errors import PromptError, PromptFileError, VptError
from vpt.files import read
from vpt.sites import Config
from vpt.tasks.library import PromptLibrary, prompt_files_or_why

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")  # of a task that comes over the network


class UnknownTaskError(PromptError):
    """There is no such task."""

    def __init__(self, name: str) -> None:
        super().__init__(f"There is no task {name[:120]!r}.")


class OfRunError(PromptFileError):
    """A task is the folder of a run, whose numbers and pages are of its own prompt."""


@dataclass(frozen=True)
class Listed:
    """A task as its file says it. stamp: of the file, by which a change is seen."""

    path: Path
    stamp: tuple[int, int, int]
    facts: Config


class Tasks:
    """Those that can be served; `broken` says why others cannot.

    folder: of prompt files, or of runs. backbone: the model. keep: as for `PromptLibrary`.
    """

    def __init__(self, folder: Path, backbone: Backbone, keep: int) -> None:
        self.folder = folder
        self.backbone = backbone
        self.library = PromptLibrary(backbone, keep)
        self.broken: dict[str, str] = {}
        self._listed: dict[str, Listed] = {}
        self._changing = threading.RLock()
        self.refresh()

    @property
    def facts(self) -> dict[str, Config]:
        """What each task is, by name: its classes, its prompt, the bytes of its file."""
        return {name: one.facts for name, one in self._listed.items()}

    def __contains__(self, name: object) -> bool:
        return name in self._listed

    def __len__(self) -> int:
        return len(self._listed)

    def refresh(self) -> None:
        """Follow the folder: files that came, changed or went. One that cannot be served is left
        out, and `broken` says why.
        """
        with self._changing:
            files, broken = prompt_files_or_why(self.folder)
            listed = dict(self._listed)
            for name in self._listed.keys() - files.keys():
                self.library.remove(name)
                del listed[name]
            for name, path in files.items():
                try:
                    stamp = _stamp(path)
                    if name in listed and listed[name].stamp == stamp:
                        continue
                    facts = _facts(path)
                    with self.backbone.guard:  # no batch sees it gone
                        listed.pop(name, None)
                        if name in self.library:
                            self.library.remove(name)
                        self.library.add(name, path)
                    listed[name] = Listed(path, stamp, facts)
                except (VptError, OSError) as error:
                    if name in self.library:
                        self.library.remove(name)
                    listed.pop(name, None)
                    broken[name] = str(error)
            inside = f"{self.folder}{os.sep}"  # where that is concerns nobody who asks
            self.broken = {name: why.replace(inside, "") for name, why in broken.items()}
            self._listed = listed

    def put(self, name: str, data: bytes) -> bool:
        """Add a task, or put another prompt in the place of one; whether it is new. It is checked
        before it is in the folder.

        Raises `PromptError` for a name that is none, `PromptFileError` for a file that cannot be
        served, `OfRunError` for the name of a run, `OSError` where the folder cannot be written.
        """
        if not NAME.fullmatch(name):
            raise PromptError(
                f"Found the name {name!r:.120}; needed are letters, digits, '.', '_' and '-', 100"
                " at most, beginning with a letter or a digit."
            )
        place = self.folder / f"{name}.vpt"
        with self._changing:
            self._refuse_run(name)
            handle, part = tempfile.mkstemp(dir=self.folder, prefix=".", suffix=".part")
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(data)
                self._check(Path(part), name)
                new = not place.exists()
                os.chmod(part, 0o644)
                os.replace(part, place)
            finally:
                Path(part).unlink(missing_ok=True)
            self.refresh()
        return new

    def take_out(self, name: str) -> None:
        """Delete a task's prompt file; a batch that runs with it ends as it began. Raises
        `UnknownTaskError`, `OfRunError`, `OSError`.
        """
        with self._changing:
            self._refuse_run(name)
            path = prompt_files_or_why(self.folder)[0].get(name)
            if path is None:
                raise UnknownTaskError(name)
            if name in self.library:  # before its file, which a batch may ask for
                self._listed = {one: of for one, of in self._listed.items() if one != name}
                self.library.remove(name)
            path.unlink()
            self.refresh()

    def _refuse_run(self, name: str) -> None:
        path = prompt_files_or_why(self.folder)[0].get(name)
        if path is not None and path.parent != self.folder:
            raise OfRunError(
                f"{name!r} is the folder of a run, with its numbers and its page: change it where"
                " the run was made, or take another name."
            )

    def _check(self, path: Path, name: str) -> None:
        """Raise `PromptFileError` for a file that this model cannot serve."""
        trial = f"{name}, not yet in use ({secrets.token_hex(4)})"
        try:
            self.library.add(trial, path)
            self.library.task(trial)
        except VptError as error:
            raise PromptFileError(str(error).replace(str(path), name)) from error
        finally:
            if trial in self.library:
                self.library.remove(trial)


def _facts(path: Path) -> Config:
    header, size = read(path)[0], path.stat().st_size
    return {"classes": header["classes"], "prompt": header["prompt"]["name"], "bytes": size}


def _stamp(path: Path) -> tuple[int, int, int]:
    found = path.stat()
    return found.st_mtime_ns, found.st_size, found.st_ino
