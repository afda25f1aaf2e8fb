"""Queries learned beforehand: over many tasks at once, each with a classifier of its own, so that a
new task with few labels begins with queries that know where to look.

After visual query tuning (Tu, Mai and Chao, CVPR 2023) and prompts that are learned before the task
is known (PVP, Song et al. 2023; MPT, Wang et al. 2023).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import cycle, islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import LambdaLR

from vpt.backbones import Backbone
from vpt.data import Examples
from vpt.errors import DataError, PromptError, TrainingError
from vpt.errors.needs import whole
from vpt.prompts import QueryTokens
from vpt.readouts.features import scale_of
from vpt.report.progress import progress_bar
from vpt.runs.kept import Kept, keep
from vpt.runs.querying import DECAY, queries_for
from vpt.training.memory import read_all

MOST = 250  # examples of a task
STEPS = 480
BATCH = 48
RATE = 1e-2  # of queries, at the peak
HEAD_RATE = 2e-2  # of classifiers
DROPOUT = 0.2  # of what queries read
WARM = 0.1  # share of the steps in which the rates rise
FEW = 4  # examples of a task, among whose tokens queries may begin
EACH = 8  # tokens of each of them


@dataclass(frozen=True)
class Seen:
    """What one pass of the bare model over a task leaves to learn from.

    kept: keys and values, in half precision. tokens: some of its examples', before each block
        `[k,D]`. start: queries for this model, as they are drawn at random.
    """

    kept: Kept
    tokens: dict[int, Tensor]
    start: QueryTokens


@dataclass(frozen=True)
class _Head:
    """The classifiers of a task, one for each member `[E,…]`, and whether each learns from it."""

    mean: Tensor
    scale: Tensor
    weight: Tensor
    bias: Tensor
    learns: Tensor

    def losses(self, read: Tensor, y: Tensor, dropped: Tensor) -> Tensor:
        """Cross-entropy of each member `[E]` on what its queries read `[b,E,F]`, of which some is
        dropped `[b,1,F]`.
        """
        z = (read - self.mean) * (self.scale * read.shape[2] ** -0.5)
        z = z.masked_fill(dropped, 0.0) / (1 - DROPOUT)
        scores = torch.einsum("bef,ecf->bec", z, self.weight) + self.bias
        members = len(self.bias)
        each = F.cross_entropy(scores.flatten(0, 1), y.repeat_interleave(members), reduction="none")
        return each.view(-1, members).mean(0)


def see(
    backbone: Backbone,
    examples: Examples,
    *,
    most: int = MOST,
    seed: int = 0,
    progress: bool = False,
    what: str = "one pass over a task",
) -> Seen:
    """Run the bare model once over some examples of a task, the same number of each class.

    backbone: with nothing attached.
    examples: labelled.
    most: how many examples at most, and one of each class at least.
    seed: of which they are.
    progress: whether to show how far it is.
    what: what it is called then.

    Raises `DataError` for a task of one class, `PromptError` for a model that queries cannot read.
    """
    whole(TrainingError, examples=most)
    classes = len(set(examples.targets))
    if classes < 2:
        raise DataError(f"Found examples of {classes} classes; a task has two or more.")
    start = queries_for(backbone)
    if start is None:
        raise PromptError("Queries cannot read this model, so none can be learned beforehand.")
    some = examples.subset(_drawn(examples.targets, max(1, most // classes), seed))
    kept = keep(backbone, some, blocks=start.blocks, budget=1 << 62, progress=progress, what=what)
    halves = {block: memory.halved() for block, memory in kept.memories.items()}
    few = some.subset(torch.linspace(0, len(some) - 1, min(FEW, len(some))).long().tolist())
    tokens = keep(backbone, few, blocks=start.blocks, each=EACH, seed=seed).tokens
    flat = {block: rows.flatten(0, 1) for block, rows in tokens.items()}
    return Seen(replace(kept, memories=halves), flat, start)


def _drawn(labels: Sequence[int], each: int, seed: int) -> list[int]:
    """Places of so many examples of each class, or of all that it has."""
    y, generator = torch.tensor(labels), torch.Generator().manual_seed(seed)
    order = torch.randperm(len(y), generator=generator)
    picked = [order[y[order] == label][:each] for label in y.unique()]
    return torch.cat(picked).sort().values.tolist()


def learn_beforehand(
    tasks: Mapping[str, Seen],
    *,
    without: Sequence[str | None] = (None,),
    steps: int = STEPS,
    seed: int = 0,
    progress: bool = False,
) -> list[QueryTokens]:
    """Learn queries from many tasks, each in its turn and with a classifier of its own, which is
    then forgotten; nothing passes through the model.

    tasks: of `see`, by name, all on one model.
    without: for each set of queries, a task that it is not to see, or None. All sets learn side by
        side from one reading, and each is what it would be alone but for rounding: this is how
        leaving out one task after another costs little more than learning once.
    steps: updates in all; each is of one task.
    seed: of where queries begin, of the order, and of dropout.
    progress: whether to show how far it is.

    Raises `TrainingError` for a set without a task, or a task that is not there.
    """
    whole(TrainingError, steps=steps)
    for name in without:
        if (name is not None and name not in tasks) or not set(tasks) - {name}:
            raise TrainingError(
                f"Found without={name!r} with the tasks {', '.join(tasks) or 'none'}; needed is"
                " one of them, or None, and another task to learn from."
            )
    queries = _begin(tasks, without, seed)
    heads = {name: _head(name, seen, queries, without) for name, seen in tasks.items()}
    classifiers = [part for head in heads.values() for part in (head.weight, head.bias)]
    groups: list[dict[str, Any]] = [
        {"params": queries, "lr": RATE},
        {"params": classifiers, "lr": HEAD_RATE},
    ]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.0)
    rates = LambdaLR(optimizer, lambda step: _share_of_rate(step / steps))
    generator = torch.Generator().manual_seed(seed)
    with progress_bar(progress) as bar:
        bars = bar.add_task(f"learning from {len(tasks)} tasks", total=steps)
        for name, index in islice(_turns(tasks, generator), steps):
            head, kept = heads[name], tasks[name].kept
            read = read_all(kept.of_blocks(tasks[name].start.blocks), queries, index)
            shape = (len(index), 1, read.shape[2])
            dropped = (torch.rand(shape, generator=generator) < DROPOUT).to(read.device)
            y = kept.y[kept.clips[index]].to(read.device)
            optimizer.zero_grad()
            (head.losses(read, y, dropped) * head.learns).sum().backward()
            with torch.no_grad():  # decoupled, and of this task's alone
                head.weight.mul_(1 - optimizer.param_groups[1]["lr"] * DECAY)
            optimizer.step()
            rates.step()
            bar.advance(bars)
    return [_prompt(next(iter(tasks.values())).start, queries, e) for e in range(len(without))]


def _share_of_rate(done: float) -> float:
    """Up in a line, and down as a cosine."""
    return min(1.0, (done + 1e-2) / WARM) * 0.5 * (1 + math.cos(math.pi * done))


def _turns(tasks: Mapping[str, Seen], generator: torch.Generator) -> Iterator[tuple[str, Tensor]]:
    """(A task, some of its inputs) without end: one task after the other, so that each counts the
    same, and of each all inputs before one comes again.
    """
    orders: dict[str, list[Tensor]] = {name: [] for name in tasks}
    for name in cycle(tasks):
        if not orders[name]:
            count = len(tasks[name].kept.clips)
            orders[name] = list(torch.randperm(count, generator=generator).split(BATCH))
        yield name, orders[name].pop()


def _begin(
    tasks: Mapping[str, Seen], without: Sequence[str | None], seed: int
) -> list[nn.Parameter]:
    """Queries of each block `[E,M,D]`, each set among the tokens of the tasks that it sees."""
    start, found = next(iter(tasks.values())).start, []
    for block in start.blocks:
        sets = []
        for left_out in without:
            pool = [seen.tokens[block] for name, seen in tasks.items() if name != left_out]
            generator = torch.Generator().manual_seed(seed + block)
            rows = torch.cat(pool)
            sets.append(rows[torch.randperm(len(rows), generator=generator)[: start.count]])
        device = next(iter(tasks.values())).kept.memories[block].device
        found.append(nn.Parameter(torch.stack(sets).float().to(device)))
    return found


@torch.no_grad()
def _head(name: str, seen: Seen, queries: Sequence[Tensor], without: Sequence[str | None]) -> _Head:
    """Classifiers of a task, all zero, on what the queries read at first, standardised."""
    memories = seen.kept.of_blocks(seen.start.blocks)
    parts = torch.arange(len(seen.kept.clips)).split(BATCH)
    read = torch.cat([read_all(memories, queries, some) for some in parts]).double()
    mean, sizes = read.mean(0), (len(without), int(seen.kept.y.max()) + 1)
    device = read.device
    return _Head(
        mean.float(),
        scale_of(mean, read.square().mean(0)).float(),
        torch.zeros(*sizes, read.shape[2], device=device, requires_grad=True),
        torch.zeros(sizes, device=device, requires_grad=True),
        torch.tensor([float(name != left_out) for left_out in without], device=device),
    )


@torch.no_grad()
def _prompt(start: QueryTokens, queries: Sequence[Tensor], member: int) -> QueryTokens:
    prompt = copy.deepcopy(start)
    for rows, learned in zip(prompt.queries, queries, strict=True):
        rows.copy_(learned[member])
    return prompt
