"""A task of a library: its prompt and readout, tried alone on the backbone before they go in."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from vpt.backbones import Attachment, Backbone
from vpt.errors import PromptError
from vpt.prompts import MultiTask, Prompt
from vpt.readouts import Readout
from vpt.sites import KeyValues, Pixels, Rows, Tokens

Span = tuple[int, int]
Place = Span | int | str  # a span of blocks, a block's attention, or "pixels"


@dataclass
class Task:
    """A prompt and its readout, with the prompt's sites by place."""

    prompt: Prompt
    readout: Readout
    pixels: list[Pixels] = field(default_factory=list)
    spans: dict[Span, list[Tokens]] = field(default_factory=dict)
    blocks: dict[int, list[KeyValues]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for site in self.prompt.sites():
            if isinstance(site, Pixels):
                self.pixels.append(site)
            elif isinstance(site, Tokens):
                self.spans.setdefault((site.first, site.last), []).append(site)
            elif isinstance(site, KeyValues):
                self.blocks.setdefault(site.block, []).append(site)

    def places(self) -> set[Place]:
        """Where it acts."""
        pixels: set[Place] = {"pixels"} if self.pixels else set()
        return pixels | self.spans.keys() | self.blocks.keys()


def admitted(backbone: Backbone, prompt: Prompt, readout: Readout) -> Task:
    """A task on this backbone, tried alone. Raises `PromptError` for a prompt or a readout that
    does not fit, or that cannot be in a library.
    """
    if isinstance(prompt, MultiTask) and not prompt.task_names:
        prompt = prompt.export(prompt.tasks[0])
    if readout.task_names:
        raise PromptError(
            "Heads of several tasks cannot be in a library; add each task alone:"
            " readout.export(task)."
        )
    if prompt.reads or not readout.named.plain:
        raise PromptError(
            f"Found a readout of {readout.named.text!r}; a library hands out the model's own"
            " features only (cls). Use a PromptedModel of its own."
        )
    readout.bind(backbone)
    task = Task(prompt.to(backbone.device).eval(), readout.to(backbone.device).eval())
    Attachment(backbone, prompt.sites()).remove()  # says what does not fit
    if any(getattr(part, "selects", False) for part in prompt.modules()):
        raise PromptError(
            "A prompt that is chosen or made for each sample cannot be in a library: use a"
            " PromptedModel of its own. Of a MultiTask prompt, add one task: prompt.export(task)."
        )
    _require_shared(backbone, task)
    return task


@torch.no_grad()
def _require_shared(backbone: Backbone, task: Task) -> None:
    """Raise `PromptError` for a prompt whose rows depend on the sample: its samples share them
    here.
    """
    for (first, _), tokens in task.spans.items():
        x = torch.randn(2, 1, backbone.widths[first], device=backbone.device)
        made = [rows_of(site, x) for site in tokens]
        if any(not torch.equal(rows[0], rows[1]) for rows in made):
            raise PromptError(
                "A prompt that is made from its input cannot be in a library: use a"
                " PromptedModel of its own."
            )
    for block, prefixes in task.blocks.items():
        heads, size = backbone.heads[block] or (0, 0)
        keys = torch.randn(2, heads, 1, size, device=backbone.device)
        for rows, values, bias in [site.make(keys, keys) for site in prefixes]:
            alike = all(len(part) == 1 or torch.equal(part[0], part[1]) for part in (rows, values))
            if not alike or bias is not None:
                raise PromptError(
                    "A prefix that is made from its input, or has a bias of its own, cannot be"
                    " in a library: use a PromptedModel of its own."
                )


def rows_of(site: Tokens, x: Tensor) -> Tensor:
    """The tokens of a prompt that is the same for every sample."""
    made = site.make(x)
    if isinstance(made, Rows):
        raise PromptError(
            "A prompt of several tasks cannot be in a library: take one task out of it:"
            " prompt.export(task)."
        )
    return made
