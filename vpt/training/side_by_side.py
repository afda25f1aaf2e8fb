"""Queries that learn from kept keys and values, several members side by side.

A member has queries and a linear classifier of its own, and its own examples to learn from: one for
each fold of a cross-validation, and one for all. They share the reading of the memory, which is
what costs; nothing passes through the model, forward or backward.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from vpt.prompts import QueryTokens
from vpt.readouts import Linear
from vpt.readouts.features import scale_of
from vpt.report.progress import progress_bar
from vpt.training.memory import Memory, read_all

BATCH = 64
RATE = 2e-2  # of queries and classifiers, at the peak
DROPOUT = 0.2  # of what queries read
STEPS = 80  # for 200 inputs; it grows with the root of their number
FEWEST = 60
WARM = 0.1  # share of the steps in which the rate rises

Snap = Callable[[int, Tensor], Tensor]


@dataclass(frozen=True)
class Members:
    """E members that have learned: queries `[E,M,D]` of each block, and the classifiers.

    mean, scale: by which what they read is standardised `[E,F]`. weight `[E,C,F]`, bias `[E,C]`.
    """

    queries: list[Tensor]
    mean: Tensor
    scale: Tensor
    weight: Tensor
    bias: Tensor

    @torch.no_grad()
    def scores(self, memories: Sequence[Memory]) -> Tensor:
        """Of all inputs `[n,E,C]`."""
        index = torch.arange(len(memories[0].keys))
        parts = [
            _scores(read_all(memories, self.queries, some), self.mean, self.scale, self.weight)
            for some in index.split(BATCH)
        ]
        return (torch.cat(parts) + self.bias).cpu()

    @torch.no_grad()
    def into(self, prompt: QueryTokens, classes: Sequence[str]) -> Linear:
        """Give the queries of the last member to a prompt; its classifier."""
        readout = Linear(prompt.reads, classes, "queries")
        for rows, learned in zip(prompt.queries, self.queries, strict=True):
            rows.copy_(learned[-1])
        for name in ("mean", "scale", "weight", "bias"):
            getattr(readout, name).copy_(getattr(self, name)[-1])
        return readout


def learn_side_by_side(
    memories: Sequence[Memory],
    start: Sequence[Tensor],
    y: Tensor,
    shares: Tensor,
    classes: int,
    *,
    decay: float,
    steps: int | None = None,
    seed: int = 0,
    snap: Snap | None = None,
    progress: bool = False,
) -> Members:
    """Learn queries and classifiers by cross-entropy; each member is what it would be alone.

    memories: of each block.
    start: where the queries of each block begin, `[M,D]`.
    y: labels of the inputs `[n]`, or what each member is to say of them, as shares of classes
        `[E,n,C]`.
    shares: how much each member learns from each input `[E,n]`; 0 for what is held out.
    classes: C.
    decay: weight decay of the classifiers, decoupled (Loshchilov and Hutter 2019).
    steps: how many, instead of `steps_for` the number of inputs.
    seed: of the order of inputs, and of dropout.
    snap: to which queries those of a block (its place among them, `[E,M,D]`) are held in every
        step; the gradient goes on to what is held (straight through).
    progress: whether to show how far it is.
    """
    generator = torch.Generator().manual_seed(seed)
    members, count = shares.shape
    device = memories[0].device
    begin = [rows.detach().float().to(device).expand(members, -1, -1) for rows in start]
    queries = [rows.clone().requires_grad_() for rows in begin]
    mean, scale = _standards(memories, queries, shares)
    weight = torch.zeros(members, classes, mean.shape[1], device=device, requires_grad=True)
    bias = torch.zeros(members, classes, device=device, requires_grad=True)
    optimizer = torch.optim.AdamW([*queries, weight, bias], lr=RATE, weight_decay=0.0)
    steps = steps or steps_for(count)
    order: list[Tensor] = []
    with progress_bar(progress) as bar:
        task = bar.add_task("learning queries", total=steps)
        for step in range(steps):
            if not order:
                order = list(torch.randperm(count, generator=generator).split(BATCH))
            index = order.pop()
            rate = RATE * _share_of_rate(step / steps)
            for group in optimizer.param_groups:
                group["lr"] = rate
            read = read_all(memories, _held(queries, snap), index)
            dropped = torch.rand(len(index), 1, read.shape[2], generator=generator) < DROPOUT
            scores = _scores(read, mean, scale, weight, dropped.to(device)) + bias
            told = y[index].repeat_interleave(members) if y.ndim == 1 else y[:, index]
            told = told if y.ndim == 1 else told.transpose(0, 1).flatten(0, 1)
            each = F.cross_entropy(scores.flatten(0, 1), told.to(device), reduction="none")
            part = shares[:, index].T.to(device)
            losses = (each.view(-1, members) * part).sum(0) / part.sum(0).clamp(min=1e-6)
            optimizer.zero_grad()
            losses.sum().backward()
            with torch.no_grad():
                weight.mul_(1 - rate * decay)
            optimizer.step()
            bar.advance(task)
    queries = _held(queries, snap)
    return Members([rows.detach() for rows in queries], mean, scale, weight.detach(), bias.detach())


def _held(queries: list[Tensor], snap: Snap | None) -> list[Tensor]:
    """The queries that act: the nearest that may be, with the gradient of those that learn."""
    if snap is None:
        return queries
    return [rows + (snap(i, rows.detach()) - rows).detach() for i, rows in enumerate(queries)]


def steps_for(count: int) -> int:
    """How many steps it takes to learn from so many inputs."""
    return max(FEWEST, math.ceil(STEPS * math.sqrt(count / 200)))


def _share_of_rate(done: float) -> float:
    """Up in a line, down as a cosine."""
    if done < WARM:
        return (done + 1e-2) / (WARM + 1e-2)
    return 0.5 * (1 + math.cos(math.pi * (done - WARM) / (1 - WARM)))


def _scores(
    read: Tensor, mean: Tensor, scale: Tensor, weight: Tensor, dropped: Tensor | None = None
) -> Tensor:
    """Of standardised reads, before the bias, as `vpt.Linear` has it: `[b,E,C]`."""
    z = (read - mean) * (scale * read.shape[2] ** -0.5)
    if dropped is not None:
        z = z.masked_fill(dropped, 0.0) / (1 - DROPOUT)
    return torch.einsum("bef,ecf->bec", z, weight)


@torch.no_grad()
def _standards(
    memories: Sequence[Memory], queries: Sequence[Tensor], shares: Tensor
) -> tuple[Tensor, Tensor]:
    """Mean and 1/std `[E,F]` of what the queries read at the start, over each member's inputs."""
    one = [rows[:1] for rows in queries]  # all begin alike
    index = torch.arange(shares.shape[1])
    read = torch.cat([read_all(memories, one, some)[:, 0] for some in index.split(BATCH)]).double()
    part = (shares / shares.sum(1, keepdim=True)).double().to(read.device)
    mean = part @ read
    return mean.float(), scale_of(mean, part @ read.square()).float()
