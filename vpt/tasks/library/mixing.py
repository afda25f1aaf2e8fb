"""One batch, many tasks: the sites of all prompts joined into sites that ask, for each batch, which
sample has what.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from vpt.backbones import Attachment, Backbone, Output, Raw
from vpt.errors import PromptError
from vpt.sites import KeyValues, Pixels, Rows, Site, Tokens
from vpt.tasks.library.admission import Place, Span, Task, rows_of


@dataclass
class Batch:
    """The tasks of the batch that is running, and which of them each sample has `[B]`."""

    tasks: list[Task] = field(default_factory=list)
    index: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.long))


class Mixer:
    """The places of a backbone where tasks act, hooked once, however many tasks there are."""

    def __init__(self, backbone: Backbone) -> None:
        self.backbone = backbone
        self._batch = Batch()
        self._places: set[Place] = set()
        self._grouped = False
        self.attachment: Attachment = backbone.insert([])

    def hook(self, places: set[Place]) -> None:
        """Let tasks act at these places, too; all is as before if that cannot be."""
        if places <= self._places:
            return
        before, self._places = self._places, self._places | places
        try:
            self._attach()
        except BaseException:
            self._places = before
            self._attach()
            raise

    def run(self, x: Raw, members: list[Task], index: Tensor) -> Output:
        """One forward for all; a forward per task where attention cannot be told who has what."""
        if self._grouped and len(members) > 1:
            parts = [(index == t).nonzero()[:, 0] for t in range(len(members))]
            found = [
                self.run(_chosen(x, part), [task], torch.zeros_like(part))
                for part, task in zip(parts, members, strict=True)
            ]
            back = torch.argsort(torch.cat(parts))
            logits = [one.logits for one in found if one.logits is not None]
            return Output(
                torch.cat([one.features for one in found])[back],
                torch.cat(logits)[back] if logits else None,
            )
        self._batch = Batch(members, index)
        try:
            return self.backbone.run(x)
        finally:
            self._batch = Batch()

    # sites, made anew for each batch by what is in it -----------------------------------
    def _attach(self) -> None:
        spans = [place for place in self._places if isinstance(place, tuple)]
        inserted = [
            span
            for span in spans
            if span[0] != span[1]
            or self.backbone.reach.refused
            or self.backbone.blocks[span[0]].unknown
        ]
        meet = any(a is not b and a[0] <= b[1] and b[0] <= a[1] for a in inserted for b in inserted)
        self._grouped = meet or not all(_reachable(self.backbone, span) for span in spans)
        sites: list[Site] = [Pixels(self._pixels)] if "pixels" in self._places else []
        for first, last in spans:
            make = partial(self._tokens, (first, last))
            sites.append(Tokens(first, last, None, make, mixed=not self._grouped))
        sites += [
            KeyValues(place, None, partial(self._key_values, place))
            for place in self._places
            if isinstance(place, int)
        ]
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
        joined, bias = _padded(rows, batch.index)
        return joined.expand(len(x), -1, -1) if self._grouped else Rows(joined, batch.index, bias)

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
        all_keys, bias = _padded([k for k, _ in found], batch.index)
        all_values, _ = _padded([v for _, v in found], batch.index)
        return all_keys[batch.index], all_values[batch.index], bias


def _padded(rows: list[Tensor], index: Tensor) -> tuple[Tensor, Tensor | None]:
    """Rows `[1,…,P_t,D]` of T tasks → `[T,…,P,D]`, and the bias `[B,1,1,P]` that hides the padding
    of each sample, if any.
    """
    lengths = [part.shape[-2] for part in rows]
    longest = max(lengths)
    joined = torch.cat(
        [
            F.pad(part, (0, 0, 0, longest - length))
            for part, length in zip(rows, lengths, strict=True)
        ]
    )
    if min(lengths) == longest:
        return joined, None
    hidden = (
        torch.arange(longest, device=joined.device)
        >= torch.tensor(lengths, device=joined.device)[:, None]
    )
    bias = torch.zeros(hidden.shape, device=joined.device).masked_fill(hidden, float("-inf"))
    return joined, bias[index][:, None, None]


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
