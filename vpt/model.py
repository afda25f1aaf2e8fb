"""A backbone, a prompt and a readout joined."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext

import torch
from torch import Tensor, nn

from vpt.backbones import Attachment, Backbone, Raw
from vpt.backbones.finding.structure import refuse_recomputing
from vpt.errors import BackboneError, PromptError
from vpt.prompts import Prompt
from vpt.prompts.multi_task import Tasks, task_numbers
from vpt.readouts import Readout


class PromptedModel(nn.Module):
    """Raw input → class scores `[B,C]`, with the prompt acting on a frozen backbone.

    backbone: from `vpt.load_backbone`. prompt: None for a bare readout. via: how deep tokens act,
        "insert" (through the blocks, as in VPT's equation 6) or "record" (as the keys and values
        that they are to a frozen block: the same function for less work); "auto" records wherever
        that can be. Raises `PromptError` when prompt or readout do not fit, or another prompt is
        attached already.
    """

    def __init__(
        self, backbone: Backbone, prompt: Prompt | None, readout: Readout, *, via: str = "auto"
    ) -> None:
        super().__init__()
        if not isinstance(backbone, Backbone):
            raise BackboneError(
                f"Found {type(backbone).__name__} as backbone; needed is vpt.load_backbone(model)."
            )
        self.backbone = backbone
        self.via = via
        self._told: Tensor | None = None
        self._held: list[Attachment] = []  # the one that acts, also for when the model is gone
        self.prompt: Prompt
        self.readout: Readout
        self._join(prompt, readout)
        weakref.finalize(self, _take_off, self._held).atexit = False

    def _join(self, prompt: Prompt | None, readout: Readout) -> None:
        prompt = prompt if prompt is not None else Prompt()
        if not isinstance(prompt, Prompt) or not isinstance(readout, Readout):
            raise PromptError(
                f"Found prompt {type(prompt).__name__} and readout {type(readout).__name__}; needed"
                " are e.g. vpt.DeepTokens.like(backbone) and vpt.Linear(backbone.out_features,"
                " classes)."
            )
        if prompt.task_names and readout.task_names and prompt.task_names != readout.task_names:
            raise PromptError(
                f"Found a prompt for the tasks {', '.join(prompt.task_names[:8])} and heads for"
                f" {', '.join(readout.task_names[:8])}; needed are the same, in the same"
                " order."
            )
        readout.bind(self.backbone)
        readout.named.check(self.backbone, prompt.reads, getattr(readout, "features", None))
        prompt, readout = prompt.to(self.backbone.device), readout.to(self.backbone.device)
        self._keep(self._attach(prompt, readout))
        self.prompt, self.readout = prompt, readout

    def _keep(self, attachment: Attachment) -> None:
        self.attachment = attachment
        self._held[:] = [attachment]

    def _attach(self, prompt: Prompt, readout: Readout) -> Attachment:
        """Attach in eval mode: what an attachment tries out must not move running statistics."""
        training = prompt.training
        prompt.eval()
        try:
            looks = readout.named.sites(self.backbone)
            return self.backbone.insert([*prompt.sites(), *looks], self.via)
        finally:
            prompt.train(training)

    @property
    def classes(self) -> list[str] | None:
        """Class names of the scores, where they are known."""
        return self.readout.classes

    def outputs(self, x: Raw) -> Tensor:
        """Raw input → what the readout reads: features `[B,D]` or logits `[B,K]`, prompts
        acting.
        """
        if self.backbone.attachment is not self.attachment:
            raise PromptError(
                "This model was closed, or its backbone now carries another prompt. Make a new"
                " PromptedModel."
            )
        if self.tasks and self._told is None:
            raise PromptError(
                f"This model has {len(self.tasks)} tasks ({', '.join(self.tasks[:8])}). Say which"
                " each sample has: model(x, tasks=[…]); or take one out:"
                " vpt.multi_task.export(path, model, task)."
            )
        if self.readout.reads == "logits":
            out = self.backbone.logits(x)
        else:
            out = self._named(self.backbone.features(x))
        if self._told is not None and len(self._told) not in (1, len(out)):
            raise PromptError(
                f"Found {len(self._told)} tasks for a batch of {len(out)}; needed is one for each"
                " sample, or one for all."
            )
        return out

    def _named(self, features: Tensor) -> Tensor:
        """What the readout names, of the forward that has just run."""
        named = self.readout.named
        if named.plain:
            return features
        if not self.attachment.enabled:
            raise PromptError(
                f"The readout reads {named.text!r} under a prompt that acts on the model, so the"
                " model without it cannot be compared. Use queries alone, or a readout of 'cls'."
            )
        if features.shape[0] == 0:
            return features.new_zeros(0, named.width(self.backbone, self.prompt.reads))
        read = self.prompt.read() if named.queries else None
        return named.gather(features, read, self.backbone)

    def forward(self, x: Raw, tasks: Tasks | None = None) -> Tensor:
        """Raw input → class scores `[B,C]`. tasks: of each sample, for models of several (`asked`).

        Prompt and readout are of one time, also while another thread swaps them.
        """
        if torch.compiler.is_compiling():  # which knows no locks
            return self.readout(self.outputs(x))
        with self.backbone.guard, self.asked(tasks):
            return self.readout(self.outputs(x))

    @property
    def tasks(self) -> list[str]:
        """The tasks among which each sample's must be told; empty for a model that asks nothing."""
        return self.prompt.task_names or self.readout.task_names

    @contextmanager
    def asked(self, tasks: Tasks | None) -> Iterator[None]:
        """Inside, each sample's task is known: names or numbers `[B]`, or one name for all.

        Nothing happens to a model that asks nothing. Raises `PromptError` for a task that is not
        there; a forward inside does for tasks of another number than samples.
        """
        names = self.tasks
        if not names or tasks is None:
            yield
            return
        refuse_recomputing(self.backbone.model, "A prompt of several tasks")
        numbers = task_numbers(tasks, names)
        with self.backbone.guard, ExitStack() as stack:
            for part in (self.prompt, self.readout):
                if part.task_names:
                    stack.enter_context(part.asked(numbers))  # type: ignore[operator]
            before, self._told = self._told, numbers
            try:
                yield
            finally:
                self._told = before

    def trained_parameters(self) -> dict[str, list[nn.Parameter]]:
        """What learns by gradient, by part: "prompt" and "readout"."""
        return {
            "prompt": [p for p in self.prompt.parameters() if p.requires_grad],
            "readout": [
                p for p in self.readout.parameters() if p.requires_grad and self.readout.trainable
            ],
        }

    @contextmanager
    def prompts_off(self) -> Iterator[None]:
        """Inside this context the backbone runs bare; queries still read what it makes, unless the
        prompt also acts on it.
        """
        with self.attachment.off() if self.attachment.acts else nullcontext():
            yield

    @contextmanager
    def baked(self) -> Iterator[PromptedModel]:
        """For serving: inside this context deep tokens are not run through their blocks'
        projections again in every forward.

        Their keys and values are computed on entry (under the autocast that holds there) and kept
        until the end: a prompt that changes meanwhile is not seen, nor does it learn. Raises
        `PromptError` for a model in training mode.
        """
        if self.prompt.training:
            raise PromptError(
                "This model is in training mode, and a baked prompt learns nothing. Call"
                " model.eval() first."
            )
        with self.attachment.baked(lambda: self.backbone.run(self.backbone.inputs.example(2))):
            yield self

    def swap(self, prompt: Prompt | None, readout: Readout | None = None) -> PromptedModel:
        """Exchange the prompt (and readout); the old ones stay usable. On a misfit the model is
        left as it was.

        A forward of another thread sees the old ones or the new ones, never one of each.
        """
        with self.backbone.guard:
            self.attachment.remove()
            try:
                self._join(prompt, readout if readout is not None else self.readout)
            except BaseException:
                if self.backbone.attachment is None:
                    self._keep(self._attach(self.prompt, self.readout))
                raise
        return self

    def close(self) -> nn.Module:
        """Take everything off and return the bare model, bit for bit as it was found. The prompt
        keeps what it learned.
        """
        self.attachment.remove()
        return self.backbone.release()

    def __enter__(self) -> PromptedModel:
        """Use as a context: `close` follows, also after an exception."""
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def _take_off(held: list[Attachment]) -> None:
    """A model that nobody has any more leaves no hooks behind."""
    for attachment in held:
        attachment.remove()
