"""What is in a library: prompts and readouts by task name, held or as files."""

from __future__ import annotations

import difflib
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

import torch

from vpt.backbones import Attachment, Backbone
from vpt.errors import PromptError, PromptFileError
from vpt.errors.needs import whole
from vpt.files import check_backbone, read, rebuild
from vpt.prompts import Prompt
from vpt.readouts import Readout
from vpt.tasks.library.admission import Task, admitted
from vpt.tasks.library.mixing import Mixer


class Catalogue:
    """Tasks by name, each a prompt and a readout that were tried on the backbone, or a prompt file
    that is loaded when it is first used.

    keep: how many of those that were added as files stay loaded; those used longest ago go first.
    Raises `PromptError` for what does not fit.
    """

    def __init__(self, backbone: Backbone, keep: int = 64) -> None:
        whole(PromptError, keep=keep)
        self.backbone = backbone
        self.keep = keep
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

    @property
    def names(self) -> list[str]:
        """The tasks' names, in the order in which they were added."""
        return list(self._order)

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
        with self.backbone.guard:  # or a thread that loads it would put it back
            self._require([name])
            for place in (self._held, self._files, self._loaded, self._order):
                place.pop(name, None)

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

    def _read_file(self, path: Path) -> Task:
        header, tensors = read(path)
        check_backbone(header, tensors, self.backbone, str(path), self._fingerprint, self._witness)
        try:
            with torch.inference_mode(False):  # or it could not be used outside of the caller's
                return self._fit(*rebuild(header, tensors))
        except (PromptError, PromptFileError) as error:
            raise PromptFileError(f"{path}: {error}") from error

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
