"""A task of a library: its prompt and readout, tried alone on the backbone before they go in."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from vpt.backbones import Attachment, Backbone
from vpt.errors import PromptError
from vpt.prompts import MultiTask, Prompt
from vpt.readouts import Readout
from vpt.sites import KeyValues, Pixels, Queries, Rows, Tokens

Span = tuple[int, int]
ReadAt = tuple[int, bool]  # a block, and whether queries go through the rest of it


@dataclass
class Places:
    """Where tasks act on a model, or look at it.

    pixels: whether at the input. spans: of blocks, that carry tokens. blocks: whose attention has
        prefixes. read: where queries read. summed: before which blocks sums of tokens are taken.
    """

    pixels: bool = False
    spans: set[Span] = field(default_factory=set)
    blocks: set[int] = field(default_factory=set)
    read: set[ReadAt] = field(default_factory=set)
    summed: set[int] = field(default_factory=set)

    def __or__(self, other: Places) -> Places:
        """Those of both."""
        return Places(
            self.pixels or other.pixels,
            self.spans | other.spans,
            self.blocks | other.blocks,
            self.read | other.read,
            self.summed | other.summed,
        )


@dataclass
class Task:
    """A prompt and its readout, with the prompt's sites by place.

    summed: the blocks before which its readout wants sums of tokens.
    """

    prompt: Prompt
    readout: Readout
    summed: set[int] = field(default_factory=set)
    pixels: list[Pixels] = field(default_factory=list)
    spans: dict[Span, list[Tokens]] = field(default_factory=dict)
    blocks: dict[int, list[KeyValues]] = field(default_factory=dict)
    queries: dict[ReadAt, list[Queries]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for site in self.prompt.sites():
            if isinstance(site, Pixels):
                self.pixels.append(site)
            elif isinstance(site, Tokens):
                self.spans.setdefault((site.first, site.last), []).append(site)
            elif isinstance(site, KeyValues):
                self.blocks.setdefault(site.block, []).append(site)
            elif isinstance(site, Queries):
                self.queries.setdefault((site.block, site.through), []).append(site)
            else:
                raise PromptError(
                    f"{type(self.prompt).__name__} looks at the model's own tokens or features, so"
                    " it cannot be in a library: use a PromptedModel of its own."
                )

    @property
    def places(self) -> Places:
        """Where it acts or looks."""
        return Places(
            bool(self.pixels), set(self.spans), set(self.blocks), set(self.queries), self.summed
        )

    @property
    def acts(self) -> bool:
        """Whether it changes the model's own tokens; what only reads can share a forward."""
        return bool(self.pixels or self.spans or self.blocks)


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
    if any(getattr(part, "selects", False) for part in prompt.modules()):
        raise PromptError(
            "A prompt that is chosen or made for each sample cannot be in a library: use a"
            " PromptedModel of its own. Of a MultiTask prompt, add one task: prompt.export(task)."
        )
    readout.bind(backbone)
    named = readout.named
    named.check(backbone, prompt.reads, getattr(readout, "features", None))
    prompt, readout = prompt.to(backbone.device).eval(), readout.to(backbone.device).eval()
    task = Task(prompt, readout, set(named.places(backbone)))
    Attachment(backbone, prompt.sites()).remove()  # says what does not fit
    _require_shared(backbone, task)
    return task


@torch.no_grad()
def _require_shared(backbone: Backbone, task: Task) -> None:
    """Raise `PromptError` for a prompt whose rows depend on the sample: its samples share them
    here.
    """
    rows_made: list[tuple[int, Tokens | Queries]] = [
        (place[0], site)
        for places in (task.spans, task.queries)
        for place, sites in places.items()
        for site in sites
    ]
    for block, site in rows_made:
        x = torch.randn(2, 1, backbone.widths[block], device=backbone.device)
        rows = rows_of(site, x)
        if len(rows) > 1 and not torch.equal(rows[0], rows[1]):
            raise PromptError(
                "A prompt that is made from its input cannot be in a library: use a"
                " PromptedModel of its own."
            )
    for block, prefixes in task.blocks.items():
        heads, size = backbone.heads[block] or (0, 0)
        keys = torch.randn(2, heads, 1, size, device=backbone.device)
        for made_keys, values, bias in [site.make(keys, keys) for site in prefixes]:
            parts = (made_keys, values)
            alike = all(len(part) == 1 or torch.equal(part[0], part[1]) for part in parts)
            if not alike or bias is not None:
                raise PromptError(
                    "A prefix that is made from its input, or has a bias of its own, cannot be"
                    " in a library: use a PromptedModel of its own."
                )


def rows_of(site: Tokens | Queries, x: Tensor) -> Tensor:
    """The tokens of a prompt that is the same for every sample."""
    made = site.make(x)
    if isinstance(made, Rows):
        raise PromptError(
            "A prompt of several tasks cannot be in a library: take one task out of it:"
            " prompt.export(task)."
        )
    return made
