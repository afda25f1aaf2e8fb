"""Which queries earn their place: what is lost without each, where it looks, and leaving out those
without which nothing is lost.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from vpt.metrics.calibrating import slope_of
from vpt.prompts import QueryTokens
from vpt.readouts import Linear
from vpt.sites import Config
from vpt.training.memory import Memory, read_all
from vpt.training.side_by_side import Members

LOOKED = 128  # inputs on which it is measured where queries look
BATCH = 64
ALIKE = 0.95  # correlation of what two queries look at, above which they are one
EVEN = 0.98  # share of the greatest entropy, above which a query looks everywhere alike
NARROW = 0.05  # and below which at one token


@dataclass(frozen=True)
class Worth:
    """What one query is worth.

    block: which it reads. query: its number there. moves: its share of all by which queries move
    the scores. costs: log loss without it less that with it, on examples that were held out; below
    0 it does harm. spread: entropy of where it looks, 1 for everywhere alike, 0 for one token.
    """

    block: int
    query: int
    moves: float
    costs: float
    spread: float

    def as_dict(self) -> Config:
        """In plain values."""
        return asdict(self)


@dataclass
class Parts:
    """What each query adds to the scores of examples that its classifier never saw.

    adds: `[n,S,C]` of S queries, block by block. rest: what stands there without any `[n,C]`. y:
        labels `[n]`.
    """

    adds: Tensor
    rest: Tensor
    y: Tensor

    def loss(self, kept: Sequence[int]) -> float:
        """Log loss with these queries alone, calibrated anew."""
        scores = self.scores(kept)
        return float(F.cross_entropy(scores * slope_of(scores, self.y), self.y))

    def scores(self, kept: Sequence[int]) -> Tensor:
        """With these queries alone `[n,C]`."""
        return self.rest + self.adds[:, list(kept)].sum(1)

    def take(self, rows: Tensor) -> Parts:
        """Of these examples alone."""
        return Parts(self.adds[rows], self.rest[rows], self.y[rows])


@torch.no_grad()
def parts_of(
    members: Members, memories: Sequence[Memory], prompt: QueryTokens, judge: Tensor, y: Tensor
) -> Parts:
    """What each query of the member that judges an input adds to its scores.

    members: that have learned.
    memories: of the blocks that their queries read.
    prompt: of which the queries are made.
    judge: which member judges each input `[n]`.
    y: labels `[n]`.
    """
    slots = slots_of(prompt)
    added = []
    for some in torch.arange(len(judge)).split(BATCH):
        read = read_all(memories, members.queries, some)
        z = (read - members.mean) * (members.scale * read.shape[2] ** -0.5)  # [b,E,F]
        each = torch.zeros(len(some), len(slots), members.weight.shape[1])
        for member in judge[some].unique().tolist():
            rows = (judge[some] == member).nonzero()[:, 0]
            own, weight = z[rows.to(z.device), member], members.weight[member]
            each[rows] = torch.stack([own[:, s] @ weight[:, s].T for s in slots], 1).cpu()
        added.append(each)
    return Parts(torch.cat(added), members.bias.cpu()[judge], y)


def slots_of(prompt: QueryTokens) -> list[slice]:
    """Which of all numbers that are read each query reads, block by block."""
    found, at = [], 0
    for count, width in zip(prompt.counts, prompt.outputs, strict=True):
        for _ in range(count):
            found.append(slice(at, at + width))
            at += width
    return found


def prune(parts: Parts) -> list[int]:
    """Leave out one query after the other, as long as no more is lost on examples that were held
    out: those that stay, at least one.
    """
    kept = list(range(parts.adds.shape[1]))
    best = parts.loss(kept)
    while len(kept) > 1:
        losses = {out: parts.loss([s for s in kept if s != out]) for out in kept}
        least = min(kept, key=losses.__getitem__)
        if losses[least] > best:
            break
        best = losses[least]
        kept.remove(least)
    return kept


def narrowed(
    prompt: QueryTokens, readout: Linear, kept: Sequence[int]
) -> tuple[QueryTokens, Linear]:
    """The queries that stay, and the classifier of what they read: the same scores as with the
    others left out.
    """
    slots = slots_of(prompt)
    places = [(i, number) for i, count in enumerate(prompt.counts) for number in range(count)]
    rows: dict[int, list[int]] = {}
    for slot in kept:
        rows.setdefault(places[slot][0], []).append(places[slot][1])
    made = QueryTokens(
        [len(own) for own in rows.values()],
        [prompt.widths[i] for i in rows],
        [prompt.outputs[i] for i in rows],
        [prompt.blocks[i] for i in rows],
        prompt.through,
        prompt.dropout.p,
    )
    columns = torch.cat([torch.arange(slots[s].start, slots[s].stop) for s in sorted(kept)])
    small = Linear(made.reads, readout.classes or readout.size[0], "queries")
    with torch.no_grad():
        for own, (i, numbers) in zip(made.queries, rows.items(), strict=True):
            own.copy_(prompt.queries[i][numbers])
        # standardised features are divided by the root of their number
        less = (made.reads / readout.features) ** 0.5
        small.weight.copy_(readout.weight[:, columns] * less)
        small.bias.copy_(readout.bias)
        small.mean.copy_(readout.mean[columns])
        small.scale.copy_(readout.scale[columns])
    return made, small


@torch.no_grad()
def worth_of(
    parts: Parts, prompt: QueryTokens, memories: Sequence[Memory]
) -> tuple[list[Worth], list[str]]:
    """What each query is worth, and what is odd about them, in sentences.

    parts: on examples that were held out. prompt: with what it learned. memories: of its blocks.
    """
    every = list(range(parts.adds.shape[1]))
    whole = parts.loss(every)
    own = parts.adds - parts.adds.mean(2, keepdim=True)
    own = own - own.mean(0)  # what is the same for all examples moves none
    moved = own.abs().mean((0, 2))
    moved = moved / moved.sum().clamp(min=1e-9)
    found: list[Worth] = []
    odd: list[str] = []
    slot = 0
    for i, block in enumerate(prompt.blocks):
        looked = torch.arange(len(memories[i].keys))[:LOOKED]
        shares = memories[i].looks(prompt.queries[i], looked)
        valid = memories[i].valid
        tokens = torch.full((len(looked),), shares.shape[-1])
        if valid is not None:  # padding is looked at by nobody
            tokens = valid[looked].sum(1) * (shares.shape[-1] // valid.shape[1])
        most = tokens.clamp(min=2).log()[:, None, None]
        spread = (torch.special.entr(shares).sum(-1) / most).mean((0, 1))
        for number in range(prompt.counts[i]):
            costs = parts.loss([s for s in every if s != slot]) - whole
            one = Worth(block, number, float(moved[slot]), costs, float(spread[number]))
            found.append(one)
            slot += 1
            if one.spread > EVEN:
                odd.append(f"query {number} of block {block} looks everywhere alike")
            elif one.spread < NARROW:
                odd.append(f"query {number} of block {block} looks at one token alone")
        odd += _alike(shares, block)
    return found, odd


def _alike(shares: Tensor, block: int) -> list[str]:
    """Queries of a block that look at the same `[n,heads,M,N]`."""
    rows = shares.transpose(1, 2).flatten(2).transpose(0, 1).flatten(1)  # [M, n·heads·N]
    if len(rows) < 2:
        return []
    close = torch.corrcoef(rows)
    pairs = [(i, j) for i in range(len(rows)) for j in range(i) if close[i, j] > ALIKE]
    return [f"queries {j} and {i} of block {block} look at the same" for i, j in pairs]
