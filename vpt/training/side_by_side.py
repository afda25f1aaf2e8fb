"""Queries that learn from kept keys and values, several members side by side.

A member has queries and a linear classifier of its own, and its own examples to learn from: one for
each fold of a cross-validation, and one for all. They share the reading of the memory, which is
what costs; nothing passes through the model, forward or backward.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from vpt.prompts import QueryTokens
from vpt.readouts import Linear
from vpt.readouts.features import scale_of
from vpt.report.progress import progress_bar
from vpt.sites import Attended

BATCH = 64
RATE = 2e-2  # of queries and classifiers, at the peak
DROPOUT = 0.2  # of what queries read
STEPS = 80  # for 200 inputs; it grows with the root of their number
FEWEST = 60
WARM = 0.1  # share of the steps in which the rate rises


@dataclass
class Memory:
    """What a block's attention sees of n inputs: keys and values `[n,W,heads,N,d]` of W windows (1
    where it cuts none), and which are valid `[n,N]`. project, scale: as for `Attended`. device: of
    the model, where queries are projected and all is computed.
    """

    keys: Tensor
    values: Tensor
    valid: Tensor | None
    project: Callable[[Tensor], Tensor]
    scale: float | None
    device: torch.device
    _places: dict[str, Tensor] = field(default_factory=dict, repr=False)

    @classmethod
    def empty(cls, seen: Attended, count: int, batch: int, half: bool) -> Memory:
        """Place for `count` inputs like those of a batch. half: in fp16."""
        shape = (count, len(seen.keys) // batch, *seen.keys.shape[1:])
        dtype = torch.float16 if half else seen.keys.dtype
        valid = None
        if seen.valid is not None:
            valid = torch.ones(count, seen.keys.shape[2], dtype=torch.bool)
        keys, values = (torch.empty(shape, dtype=dtype) for _ in range(2))
        return cls(keys, values, valid, seen.project, seen.scale, seen.keys.device)

    def write(self, start: int, seen: Attended, batch: int) -> None:
        """Keep a batch from input `start` on."""
        here = slice(start, start + batch)
        most = torch.finfo(self.keys.dtype).max
        for own, new in ((self.keys, seen.keys), (self.values, seen.values)):
            own[here] = new.detach().clamp(-most, most).cpu().view(batch, -1, *new.shape[1:])
        if self.valid is not None and seen.valid is not None:
            self.valid[here] = seen.valid.flatten(0, -2).expand(batch, -1).cpu()

    def take(self, rows: Tensor) -> Memory:
        """Of these inputs alone."""
        valid = self.valid[rows] if self.valid is not None else None
        keys, values = self.keys[rows], self.values[rows]
        return replace(self, keys=keys, values=values, valid=valid, _places={})

    def _some(self, name: str, index: Tensor) -> Tensor:
        """Keys or values of some inputs, in fp32, in a place that the next call takes again: fresh
        ones for each step cost as much as the computing.
        """
        part: Tensor = getattr(self, name)
        if self.device.type != "cpu":
            return part[index].to(self.device).float()
        if len(self._places.get(name, ())) < len(index):
            self._places[name] = torch.empty(len(index), *part.shape[1:])
        place = self._places[name][: len(index)]
        for row, number in zip(place, index.tolist(), strict=True):
            row.copy_(part[number])
        return place

    def read(self, queries: Tensor, index: Tensor) -> Tensor:
        """What queries `[E,M,D]` of E members read of some inputs: `[b,E,M·heads·d]`. A backward
        pass through it must come before the next reading.
        """
        members, count, _ = queries.shape
        rows = self.project(queries.flatten(0, 1)[None])[0].float()  # [heads, E·M, d]
        keys, values = (self._some(name, index) for name in ("keys", "values"))
        scale = self.scale if self.scale is not None else rows.shape[-1] ** -0.5
        scores = (rows * scale) @ keys.mT  # [b, W, heads, E·M, N]
        if self.valid is not None:
            shut = ~self.valid[index][:, None, None, None].to(self.device)
            scores = scores.masked_fill(shut, float("-inf"))
        out = (torch.softmax(scores, dim=-1) @ values).mean(1)
        return out.transpose(1, 2).flatten(2).unflatten(1, (members, count)).flatten(2)


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
    progress: bool = False,
) -> Members:
    """Learn queries and classifiers by cross-entropy; each member is what it would be alone.

    memories: of each block.
    start: where the queries of each block begin, `[M,D]`.
    y: labels of the inputs `[n]`.
    shares: how much each member learns from each input `[E,n]`; 0 for what is held out.
    classes: C.
    decay: weight decay of the classifiers, decoupled (Loshchilov and Hutter 2019).
    steps: how many, instead of `steps_for` the number of inputs.
    seed: of the order of inputs, and of dropout.
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
            read = read_all(memories, queries, index)
            dropped = torch.rand(len(index), 1, read.shape[2], generator=generator) < DROPOUT
            scores = _scores(read, mean, scale, weight, dropped.to(device)) + bias
            each = F.cross_entropy(
                scores.flatten(0, 1),
                y[index].repeat_interleave(members).to(device),
                reduction="none",
            )
            part = shares[:, index].T.to(device)
            losses = (each.view(-1, members) * part).sum(0) / part.sum(0).clamp(min=1e-6)
            optimizer.zero_grad()
            losses.sum().backward()
            with torch.no_grad():
                weight.mul_(1 - rate * decay)
            optimizer.step()
            bar.advance(task)
    return Members([rows.detach() for rows in queries], mean, scale, weight.detach(), bias.detach())


def steps_for(count: int) -> int:
    """How many steps it takes to learn from so many inputs."""
    return max(FEWEST, math.ceil(STEPS * math.sqrt(count / 200)))


def _share_of_rate(done: float) -> float:
    """Up in a line, down as a cosine."""
    if done < WARM:
        return (done + 1e-2) / (WARM + 1e-2)
    return 0.5 * (1 + math.cos(math.pi * (done - WARM) / (1 - WARM)))


def read_all(memories: Sequence[Memory], queries: Sequence[Tensor], index: Tensor) -> Tensor:
    """What queries `[E,M,D]` read of some inputs, all blocks side by side: `[b,E,F]`."""
    parts = [memory.read(rows, index) for memory, rows in zip(memories, queries, strict=True)]
    return torch.cat(parts, dim=2)


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
