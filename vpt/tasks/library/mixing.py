"""One batch, many tasks: the sites of all prompts joined into sites that ask, for each batch, which
sample has what.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from vpt.backbones import Attachment, Backbone, Output, Raw
from vpt.errors import PromptError
from vpt.sites import KeyValues, Observe, Pixels, Queries, Rows, Site, Tokens
from vpt.tasks.library.admission import Places, ReadAt, Span, Task, rows_of
from vpt.tasks.library.padding import padded


@dataclass
class Batch:
    """The tasks of the batch that is running, and which of them each sample has `[B]`.

    sums: what was seen on the way, by block.
    """

    tasks: list[Task] = field(default_factory=list)
    index: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.long))
    sums: dict[int, Tensor] = field(default_factory=dict)


class Mixer:
    """The places of a backbone where tasks act, hooked once, however many tasks there are."""

    def __init__(self, backbone: Backbone) -> None:
        self.backbone = backbone
        self._batch = Batch()
        self._places = Places()
        self._grouped = False
        self.attachment: Attachment = backbone.insert([])

    def hook(self, places: Places) -> None:
        """Let tasks act at these places, too; all is as before if that cannot be."""
        before, self._places = self._places, self._places | places
        if self._places == before:
            return
        try:
            self._attach()
        except BaseException:
            self._places = before
            self._attach()
            raise

    def run(
        self,
        x: Raw,
        members: list[Task],
        places: Sequence[tuple[int, int]],
        rows: Sequence[Sequence[int]],
    ) -> list[Tensor]:
        """What each task's readout reads of its own rows of a batch `[n_t,F]`.

        x: raw input of some samples.
        members: the tasks.
        places: of each row of the batch, which sample it is, and which task acts on it.
        rows: of each task, those that it reads.

        One forward for all; a forward per task where attention cannot be told who has what.
        """
        samples, acting = (
            torch.tensor([place[part] for place in places], dtype=torch.long) for part in (0, 1)
        )
        parts = [torch.tensor(own, dtype=torch.long) for own in rows]
        if self._grouped and len(members) > 1:
            return [
                self.run_all(_chosen(x, samples[part]), [task])[0]
                for part, task in zip(parts, members, strict=True)
            ]
        if samples.tolist() != list(range(count_of(x))):
            x = _chosen(x, samples)
        device = self.backbone.device
        found = self._run(x, Batch(members, acting.to(device)))
        return [read[part.to(device)] for read, part in zip(found, parts, strict=True)]

    def run_all(self, x: Raw, members: list[Task]) -> list[Tensor]:
        """What each task's readout reads of all samples `[B,F]`, from one forward: of one task, or
        of several that only read.
        """
        index = torch.zeros(count_of(x), dtype=torch.long, device=self.backbone.device)
        return self._run(x, Batch(members, index))

    def _run(self, x: Raw, batch: Batch) -> list[Tensor]:
        self._batch = batch
        try:
            out = self.backbone.run(x)
            read: dict[int, Tensor] = {}  # two tasks may share a prompt
            for task in batch.tasks:
                if task.queries and len(batch.index) and id(task.prompt) not in read:
                    read[id(task.prompt)] = task.prompt.read()
            return [self._read(out, task, read.get(id(task.prompt))) for task in batch.tasks]
        finally:
            self._batch = Batch()

    def _read(self, out: Output, task: Task, read: Tensor | None) -> Tensor:
        """What a task's readout reads of all samples."""
        if task.readout.reads == "logits":
            if out.logits is None:
                raise PromptError(
                    "A task's readout reads logits, and this model has no classifier."
                )
            return out.logits
        named = task.readout.named
        if not len(out.features):
            return out.features.new_zeros(0, named.width(self.backbone, task.prompt.reads))
        return named.of(out.features, self._batch.sums, read, self.backbone)

    # sites, made anew for each batch by what is in it -----------------------------------
    def _attach(self) -> None:
        spans = sorted(self._places.spans)
        inserted = [
            span
            for span in spans
            if span[0] != span[1]
            or self.backbone.reach.refused
            or self.backbone.blocks[span[0]].unknown
        ]
        meet = any(a is not b and a[0] <= b[1] and b[0] <= a[1] for a in inserted for b in inserted)
        self._grouped = meet or not all(_reachable(self.backbone, span) for span in spans)
        sites: list[Site] = [Pixels(self._pixels)] if self._places.pixels else []
        for first, last in spans:
            make = partial(self._tokens, (first, last))
            sites.append(Tokens(first, last, None, make, mixed=not self._grouped))
        for block in sorted(self._places.blocks):
            sites.append(KeyValues(block, None, partial(self._key_values, block)))
        for at in sorted(self._places.read):
            queries, receive = partial(self._queries, at), partial(self._receive, at)
            sites.append(Queries(at[0], None, queries, receive, at[1]))
        for place in sorted(self._places.summed):
            sites.append(Observe(place, summary=partial(self._take, place)))
        self.attachment.remove()
        self.attachment = self.backbone.insert(sites)

    def _pixels(self, x: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor | None]:
        batch = self._batch
        for t, task in enumerate(batch.tasks):
            if not task.pixels:
                continue
            own = (batch.index == t).nonzero()[:, 0]
            part, part_lengths = x[own], None if lengths is None else lengths[own]
            for site in task.pixels:
                part, part_lengths = site.apply(part, part_lengths)
            x = x.index_copy(0, own, part.to(x.dtype))
            if lengths is not None and part_lengths is not None:
                lengths = lengths.index_copy(0, own, part_lengths.to(lengths.dtype))
        return x, lengths

    def _tokens(self, span: Span, x: Tensor) -> Tensor | Rows:
        """Each task's tokens in this span `[T,P,D]`, padded to the longest; `[B,P,D]` where all
        samples of a batch have one task.
        """
        batch, empty = self._batch, x.new_zeros(1, 0, x.shape[-1])
        if not batch.tasks:  # the bare model
            if self._grouped:
                return empty.expand(len(x), -1, -1)
            return Rows(empty, torch.zeros(len(x), dtype=torch.long, device=x.device))
        rows = [
            torch.cat([empty, *(rows_of(s, x[:1]) for s in task.spans.get(span, []))], dim=1)
            for task in batch.tasks
        ]
        joined, bias = padded(rows, batch.index)
        if self._grouped:  # one task, or several that have no tokens
            return joined[:1].expand(len(x), -1, -1)
        return Rows(joined, batch.index, bias)

    def _key_values(
        self, block: int, keys: Tensor, values: Tensor
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Each sample's prefix in this block `[B,heads,P,d]`, padded to the longest."""
        batch = self._batch
        if not batch.tasks:
            return keys[..., :0, :], values[..., :0, :], None
        found: list[tuple[Tensor, Tensor]] = []
        for task in batch.tasks:
            made = [site.make(keys[:1], values[:1]) for site in task.blocks.get(block, [])]
            found.append(
                (
                    torch.cat([keys[:1, :, :0], *(k for k, *_ in made)], dim=2),
                    torch.cat([values[:1, :, :0], *(v for _, v, _ in made)], dim=2),
                )
            )
        all_keys, bias = padded([k for k, _ in found], batch.index)
        all_values, _ = padded([v for _, v in found], batch.index)
        return all_keys[batch.index], all_values[batch.index], bias

    def _queries(self, at: ReadAt, x: Tensor) -> Tensor:
        """The queries of all tasks, one behind the other `[1,R,D]`: none sees another, and each
        reads every sample, which costs little.
        """
        rows = (rows_of(site, x[:1]) for site in self._reading(at))
        return torch.cat([x.new_zeros(1, 0, x.shape[-1]), *rows], 1)

    def _receive(self, at: ReadAt, out: Tensor) -> None:
        """Hand out what they read `[B,R,…]`."""
        start = 0
        for site in self._reading(at):
            count = site.count or 0
            site.receive(out[:, start : start + count])
            start += count

    def _reading(self, at: ReadAt) -> list[Queries]:
        """The sites that read there; a prompt that tasks share reads once."""
        prompts = {id(task.prompt): task for task in self._batch.tasks}
        return [site for task in prompts.values() for site in task.queries.get(at, [])]

    def _take(self, place: int, sums: Tensor) -> None:
        self._batch.sums[place] = sums


def count_of(x: Raw) -> int:
    """How many samples raw input has."""
    return len(x[0] if isinstance(x, tuple) else x)


def _chosen(x: Raw, chosen: Tensor) -> Raw:
    if isinstance(x, tuple):
        waves, lengths = x
        return waves[chosen.to(waves.device)], lengths[chosen.to(lengths.device)]
    return x[chosen.to(x.device)]


def _reachable(backbone: Backbone, span: Span) -> bool:
    """Whether attention in all blocks of a span can be told which keys are padding."""
    try:
        backbone.reach.need_attention(range(span[0], span[1] + 1))
    except PromptError:
        return False
    return True
