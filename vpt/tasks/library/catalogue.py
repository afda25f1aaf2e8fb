"""Prompts and readouts by task name, over one backbone."""

from __future__ import annotations

import difflib
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from vpt.backbones import Attachment, Backbone, Raw
from vpt.backbones.finding.structure import refuse_recomputing
from vpt.errors import PromptError, PromptFileError
from vpt.errors.needs import whole
from vpt.files import check_backbone, read, rebuild
from vpt.prompts import Prompt
from vpt.readouts import Readout
from vpt.tasks.library.admission import Task, admitted
from vpt.tasks.library.mixing import Mixer


class PromptLibrary:
    """Prompts and readouts by task name, over one backbone.

    keep: how many of the tasks that were added as files stay loaded; those used longest ago go
        first. Threads may share it: their batches follow one another, and `use` is of its own
        thread. It serves: prompts are in eval mode, and a prompt added as an object is used as it
        is, not copied. Raises `PromptError` for what does not fit.
    """

    def __init__(self, backbone: Backbone, keep: int = 64) -> None:
        whole(PromptError, keep=keep)
        self.backbone = backbone
        self.keep = keep
        self._default: str | None = None
        self._own = threading.local()
        self._order: dict[str, None] = {}
        self._fingerprint = backbone.fingerprint()
        self._witness = backbone.witness()
        self._files: dict[str, Path] = {}
        self._held: dict[str, Task] = {}
        self._loaded: OrderedDict[str, Task] = OrderedDict()
        self._mixer = Mixer(backbone)

    @property
    def attachment(self) -> Attachment:
        """What hangs on the backbone."""
        return self._mixer.attachment

    # what is in it ----------------------------------------------------------------------
    @property
    def names(self) -> list[str]:
        """The tasks' names, in the order in which they were added."""
        return list(self._order)

    @property
    def current(self) -> str | None:
        """The task that acts where no other is asked for: of this thread's `use`, or of the last
        `swap`.
        """
        return getattr(self._own, "name", None) or self._default

    def __len__(self) -> int:
        return len(self._order)

    def __contains__(self, name: object) -> bool:
        return name in self._order

    def add(
        self, name: str, prompt: Prompt | str | Path | None, readout: Readout | None = None
    ) -> None:
        """Add a task: a prompt and its readout, or the path of a prompt file, which is loaded when
        it is first used.

        prompt: None for a bare readout. Raises `PromptError` for a name that is taken or parts that
            do not fit, `PromptFileError` for a file that is unsound or was made for another
            backbone.
        """
        if name in self:
            raise PromptError(
                f"The library has a task {name!r} already. Remove it first:"
                f" library.remove({name!r})."
            )
        if isinstance(prompt, (str, Path)):
            if readout is not None:
                raise PromptError("A prompt file holds its own readout; pass the path alone.")
            check_backbone(
                *read(prompt), self.backbone, str(prompt), self._fingerprint, self._witness
            )
            self._files[name] = Path(prompt)
            self._order[name] = None
            return
        prompt = Prompt() if prompt is None else prompt
        if not isinstance(prompt, Prompt) or not isinstance(readout, Readout):
            raise PromptError(
                f"Found prompt {type(prompt).__name__} and readout {type(readout).__name__} for"
                f" task {name!r}; needed are a prompt and a readout, or the path of a prompt file."
            )
        self._held[name] = self._fit(prompt, readout)
        self._order[name] = None

    def remove(self, name: str) -> None:
        """Take a task out. Raises `PromptError` for one that is not there."""
        self._require([name])
        for place in (self._held, self._files, self._loaded, self._order):
            place.pop(name, None)
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

    def task(self, name: str) -> Task:
        """A task's prompt and readout, loaded if need be. Raises `PromptError`,
        `PromptFileError`.
        """
        with self.backbone.guard:
            self._require([name])
            if name in self._held:
                return self._held[name]
            if name not in self._loaded:
                self._loaded[name] = self._read_file(self._files[name])
            self._loaded.move_to_end(name)
            while len(self._loaded) > self.keep:
                self._loaded.popitem(last=False)
            return self._loaded[name]

    def _serving(self, name: str) -> Task:
        """A task in eval mode, whatever its owner did with it."""
        (task := self.task(name)).prompt.eval()
        return task

    def _read_file(self, path: Path) -> Task:
        header, tensors = read(path)
        check_backbone(header, tensors, self.backbone, str(path), self._fingerprint, self._witness)
        try:
            with torch.inference_mode(False):  # or it could not be used outside of the caller's
                return self._fit(*rebuild(header, tensors))
        except (PromptError, PromptFileError) as error:
            raise PromptFileError(f"{path}: {error}") from error

    def close(self) -> None:
        """Take everything off the backbone; the tasks stay."""
        self.attachment.remove()

    def __enter__(self) -> PromptLibrary:
        """Use as a context: `close` follows."""
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _require(self, names: Sequence[str]) -> None:
        unknown = sorted({str(name) for name in names if name not in self})
        if unknown:
            near = difflib.get_close_matches(unknown[0], self.names, 3) or self.names[:5]
            has = f"Near: {', '.join(near)}." if near else "It is empty."
            raise PromptError(f"The library has no task {', '.join(map(repr, unknown[:5]))}. {has}")

    def _fit(self, prompt: Prompt, readout: Readout) -> Task:
        """A task on this backbone, tried alone; its places are hooked from now on."""
        with self.backbone.guard:
            self._require_open()
            task = admitted(self.backbone, prompt, readout)
            self._mixer.hook(task.places)
        return task

    def _require_open(self) -> None:
        if self.backbone.attachment is not self.attachment:
            raise PromptError(
                "This library was closed, or its backbone now carries another prompt. Make a new"
                " PromptLibrary."
            )

    # at work ----------------------------------------------------------------------------
    def __call__(self, x: Raw, tasks: Sequence[str] | None = None) -> Tensor | list[Tensor]:
        """Raw input of B samples → class scores `[B,C]`, or one tensor `[C]` per sample where tasks
        have different classes.

        tasks: a name per sample; by default all have the current one. Raises `PromptError` for an
            unknown task, or names that are not one per sample.
        """
        x = tuple(x) if isinstance(x, list) else x  # sound, as a DataLoader gives it
        count = len(x[0] if isinstance(x, tuple) else x)
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
            distinct = list(dict.fromkeys(tasks))
            members = [self._serving(name) for name in distinct]
            numbers = [distinct.index(name) for name in tasks[:count]]
            index = torch.tensor(numbers, device=self.backbone.device, dtype=torch.long)
            found = self._mixer.run(x, members, index)
            scores = [task.readout(read) for task, read in zip(members, found, strict=True)]
        if len(members) == 1:
            return scores[0]
        left = [iter(rows) for rows in scores]
        each = [next(left[number]) for number in numbers]
        return torch.stack(each) if len({len(row) for row in each}) == 1 else each

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
