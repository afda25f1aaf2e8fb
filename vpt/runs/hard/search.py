"""Queries that are real tokens: found among those of training examples, so that each can be looked
at as the place that it was taken from.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from vpt.readouts import Linear
from vpt.runs.hard.bank import Bank
from vpt.runs.kept import Kept
from vpt.runs.probe import Folds, fit_probe
from vpt.training.memory import Memory, read_all

SHORTLIST = 16  # candidates for a query's place that are tried
SWEEPS = 2  # over all queries
BATCH = 256

Choice = list[Tensor]  # of each block, which rows of the bank its queries are [M]


class Search:
    """Finds the rows of a bank that serve best as queries, on kept keys and values.

    memories: of each block. bank: of rows for each. kept: of the same inputs. folds: of the
    examples. classes: how many there are.
    """

    def __init__(
        self, memories: Sequence[Memory], bank: Bank, kept: Kept, folds: Folds, classes: int
    ) -> None:
        self.memories = memories
        self.bank = bank
        self.kept = kept
        self.folds = folds
        self.classes = classes
        self.strength: float | None = None  # C of the classifiers, once it is chosen
        pairs = zip(memories, bank.rows, strict=True)
        self.projected = [memory.projected(rows.to(memory.device)) for memory, rows in pairs]
        self._roots = [_root(memory) for memory in memories]
        self._seen = [r.mT.flatten(0, 1).T for r in map(_times, self.projected, self._roots)]

    def far(self, block: int, rows: Tensor) -> Tensor:
        """How unlike queries `[M,D]` the rows of the bank look `[M,R]`: the root of the mean square
        by which their attention scores differ over the training tokens, but for a constant.
        """
        memory = self.memories[block]
        own = _times(memory.projected(rows.to(memory.device)), self._roots[block])
        return torch.cdist(own.mT.flatten(0, 1).T, self._seen[block]).cpu()

    def project(self, queries: Sequence[Tensor]) -> Choice:
        """Soft queries `[M,D]` of each block → the nearest rows, all different."""
        choice = []
        for block, rows in enumerate(queries):
            far, own = self.far(block, rows), []
            for each in far:
                own.append(int(each.argmin()))
                far[:, own[-1]] = float("inf")
            choice.append(torch.tensor(own))
        return choice

    def snap(self, block: int, rows: Tensor) -> Tensor:
        """Queries `[E,M,D]` → the nearest rows of the bank, for projected gradients (PEZ, Wen et
        al., NeurIPS 2023, algorithm 1).
        """
        chosen = self.far(block, rows.flatten(0, 1)).argmin(1)
        return self.bank.rows[block][chosen].view_as(rows).to(rows.device)

    def rows(self, choice: Choice) -> list[Tensor]:
        """The queries themselves `[M,D]`."""
        return [rows[own] for rows, own in zip(self.bank.rows, choice, strict=True)]

    def read(self, queries: Sequence[Tensor]) -> Tensor:
        """What queries read of all inputs `[n,F]`."""
        memories = self.memories
        every = torch.arange(len(memories[0].keys)).split(BATCH)
        queries = [rows[None].to(m.device) for rows, m in zip(queries, memories, strict=True)]
        with torch.no_grad():
            return torch.cat([read_all(memories, queries, some)[:, 0] for some in every]).cpu()

    def flip(self, choice: Choice, say: Callable[[], None] = lambda: None) -> Choice:
        """Swap rows one query at a time, as long as less is lost on examples that are held out.

        For each query the gradient of the loss says which rows promise most (HotFlip, Ebrahimi et
        al., ACL 2018; AutoPrompt, Shin et al., EMNLP 2020, equation 2); those are tried exactly,
        the classifiers of the folds as they are. They are fitted anew after each sweep. say: is
        told after each query.
        """
        choice = [own.clone() for own in choice]
        for _ in range(SWEEPS):
            read = self.read(self.rows(choice))
            heads = self._heads(read)
            scores, before = heads.scores(read), [own.clone() for own in choice]
            at = 0
            for block, own in enumerate(choice):
                width = read.shape[1] // sum(map(len, choice))
                for number in range(len(own)):
                    here = slice(at, at + width)
                    own[number], scores = self._swap(block, own, number, here, heads, scores, read)
                    at += width
                    say()
            if all(torch.equal(one, two) for one, two in zip(before, choice, strict=True)):
                break
        return choice

    def _swap(
        self,
        block: int,
        rows: Tensor,
        number: int,
        own: slice,
        heads: _Heads,
        scores: Tensor,
        read: Tensor,
    ) -> tuple[int, Tensor]:
        """The best row for one query of a block, and the scores then.

        block: its place among them.
        rows: that its queries are.
        number: which of them is to be swapped.
        own: which numbers it reads.
        heads: by which it is judged.
        scores: with the row that it is.
        read: by all queries; what it reads then is written there.
        """
        memory, bank, now = self.memories[block], self.projected[block], int(rows[number])
        here = bank[:, [now]].clone().requires_grad_()
        every = torch.arange(len(scores)).split(BATCH)
        for some in every:
            out = memory.attend(here, some)[:, 0].cpu()
            added = heads.adds(out - read[some, own], own, some)
            heads.losses(scores[some] + added, some).sum().backward()
        promise = (bank * -_gradient(here)).sum((0, 2))
        promise[rows] = float("-inf")  # no token twice
        found_best = promise.topk(min(SHORTLIST, len(promise)))
        best = found_best.indices[found_best.values.isfinite()].tolist()
        tried = [now, *best]
        with torch.no_grad():
            outs = torch.cat([memory.attend(bank[:, tried], some).cpu() for some in every])
        everyone = torch.arange(len(scores))
        totals = [scores + heads.adds(out - read[:, own], own, everyone) for out in outs.unbind(1)]
        losses = [float(heads.losses(total, everyone).sum()) for total in totals]
        place = min(range(len(tried)), key=losses.__getitem__)
        read[:, own] = outs[:, place]
        return tried[place], totals[place]

    def _heads(self, read: Tensor) -> _Heads:
        """A classifier for each fold, which never saw what it judges."""
        x, y = self.kept.of_examples(read), self.kept.y
        if self.strength is None:
            self.strength = fit_probe(x, y, self.classes, of="queries")[1]
        heads = [
            fit_probe(x[kept], y[kept], self.classes, strength=self.strength, of="queries")[0]
            for kept, _ in self.folds
        ]
        judge = torch.full((len(y),), -1)
        for number, (_, held) in enumerate(self.folds):
            judge[held] = number
        return _Heads(heads, judge[self.kept.clips], y[self.kept.clips])


class _Heads:
    """Linear classifiers of the folds.

    judge: which of them judges each input `[n]`, or −1: none.
    """

    def __init__(self, heads: Sequence[Linear], judge: Tensor, y: Tensor) -> None:
        weights = [head.weight * head.scale * head.features**-0.5 for head in heads]
        self.weight = torch.stack(weights).detach()  # [E,C,F]
        self.bias = torch.stack(
            [head.bias - w @ head.mean for head, w in zip(heads, weights, strict=True)]
        ).detach()
        self.judge, self.y = judge, y

    def scores(self, read: Tensor) -> Tensor:
        """Of each input by its judge `[n,C]`."""
        return self.adds(read, slice(None), torch.arange(len(read))) + self.bias[self.judge]

    def adds(self, part: Tensor, own: slice, some: Tensor) -> Tensor:
        """What these numbers `[b,f]` of all that is read add to the scores of some inputs."""
        weight = self.weight[:, :, own]
        every = torch.einsum("bf,ecf->bec", part, weight)
        return every[torch.arange(len(some)), self.judge[some]]

    def losses(self, scores: Tensor, some: Tensor) -> Tensor:
        """Cross-entropy of each that has a judge, 0 for the others."""
        losses = F.cross_entropy(scores, self.y[some], reduction="none")
        return losses * (self.judge[some] >= 0)


def _gradient(leaf: Tensor) -> Tensor:
    """Of what was summed up over the batches."""
    return leaf.grad if leaf.grad is not None else torch.zeros_like(leaf)


def _root(memory: Memory) -> Tensor:
    """A square root of the covariance of each head's keys, over tokens of the same input
    `[heads,d,d]`.
    """
    heads, size = memory.keys.shape[2], memory.keys.shape[4]
    total = torch.zeros(heads, size, size, device=memory.device)
    for some in torch.arange(len(memory.keys)).split(BATCH):
        keys = memory.keys[some].float().to(memory.device)  # [b,W,heads,N,d]
        real = torch.ones(keys.shape[-2:-1], device=keys.device).expand(*keys.shape[:-1])
        if memory.valid is not None:
            real = memory.valid[some].to(keys)[:, None, None].expand_as(real)
        real = real[..., None]
        keys = (keys - (keys * real).sum(-2, True) / real.sum(-2, True).clamp(min=1)) * real
        total = total + torch.einsum("bwhnd,bwhne->hde", keys, keys)
    values, vectors = torch.linalg.eigh(total)
    return vectors * values.clamp(min=0).sqrt()[:, None]


def _times(rows: Tensor, roots: Tensor) -> Tensor:
    """Projected rows `[heads,R,d]` in the metric of `_root`."""
    return rows @ roots
