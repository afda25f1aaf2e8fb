"""A prompted model as one function of tensors: raw input in, scores out, of one task or several."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial

from torch import Tensor, nn

from vpt.backbones import Backbone
from vpt.errors import PromptError
from vpt.model import PromptedModel
from vpt.prompts import Prompt
from vpt.readouts import Readout
from vpt.sites import Observe, Queries

Summary = Callable[[Tensor], None]
SCORES = "scores"  # the name of the output of a single task


class Graph(nn.Module):
    """One forward of a frozen model, and of it the scores of each task.

    names: of the outputs. classes: of each output, where they are known. Raises `PromptError` for
    a prompt that cannot be in a graph, and for several that do not share a forward.
    """

    def __init__(self, backbone: Backbone, tasks: Mapping[str, tuple[Prompt, Readout]]) -> None:
        super().__init__()
        self.backbone = backbone
        self.names = list(tasks)
        self.prompts = nn.ModuleList(prompt.eval() for prompt, _ in tasks.values())
        self.readouts = nn.ModuleList(readout.eval() for _, readout in tasks.values())
        for name, (prompt, readout) in tasks.items():
            _refuse_what_cannot_be_baked(name, prompt, readout)
            if len(tasks) > 1 and not _only_reads(prompt):
                raise PromptError(
                    f"The prompt of {name!r} acts on the model ({prompt.describe()}), so that it"
                    " needs a forward of its own; in one file go tasks whose prompts only read"
                    " (queries), or have none. Export it alone."
                )

    @classmethod
    def of(cls, model: PromptedModel) -> Graph:
        """Of a model with its prompt and readout: one output, "scores"."""
        return cls(model.backbone, {SCORES: (model.prompt, model.readout)})

    @property
    def classes(self) -> dict[str, list[str] | None]:
        """Class names of each output, where they are known."""
        return dict(zip(self.names, (readout.classes for readout in self.parts), strict=True))

    @property
    def parts(self) -> list[Readout]:
        """The readouts, in the order of the outputs."""
        return list(self.readouts)  # type: ignore[arg-type]

    @contextmanager
    def attached(self) -> Iterator[Graph]:
        """Inside, what the tasks need hangs on the backbone, once for all of them."""
        if self.backbone.attachment is not None:  # a model's own
            yield self
            return
        takes: dict[int, list[Summary]] = defaultdict(list)
        for readout in self.parts:
            readout.bind(self.backbone)
            for look in readout.named.sites(self.backbone):
                if look.summary is not None:
                    takes[look.block].append(look.summary)
        looks = [Observe(block, summary=partial(_tell, told)) for block, told in takes.items()]
        sites = [site for prompt in self.prompts for site in prompt.sites()]  # type: ignore[operator]
        held = self.backbone.insert([*sites, *looks])
        try:
            yield self
        finally:
            held.remove()

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, ...]:
        """Raw input, with the lengths `[B]` of clips that have some → scores `[B,C]` of each task.
        Softmax of them gives the probabilities that `vpt predict` says.
        """
        out = self.backbone.run(x if lengths is None else (x, lengths))
        found = []
        for prompt, readout in zip(self.prompts, self.parts, strict=True):
            if readout.reads == "logits":
                found.append(readout(out.logits))
                continue
            features = out.features
            if not readout.named.plain:
                read = prompt.read() if readout.named.queries else None  # type: ignore[operator]
                features = readout.named.gather(features, read, self.backbone)
            found.append(readout(features))
        return tuple(found)


def _tell(told: Sequence[Summary], sums: Tensor) -> None:
    for take in told:
        take(sums)


def _only_reads(prompt: Prompt) -> bool:
    return all(isinstance(site, (Queries, Observe)) for site in prompt.sites())


def _refuse_what_cannot_be_baked(name: str, prompt: Prompt, readout: Readout) -> None:
    """Raise `PromptError` for what differs from sample to sample, or is told its task."""
    of = "" if name == SCORES else f" of {name!r}"
    if prompt.task_names or readout.task_names:
        raise PromptError(
            f"The prompt{of} has several tasks, and is told which for each sample: take them out"
            " one by one (vpt.multi_task.export), and export those."
        )
    made = [type(part).__name__ for part in prompt.modules() if getattr(part, "selects", False)]
    if made:
        raise PromptError(
            f"The prompt{of}, {made[0]}, is chosen or made for each sample by the bare model's"
            " features, so that it cannot be baked into a graph. Needed are tokens, prefixes,"
            " queries or pixels that are alike for all samples."
        )
