"""Queries as a candidate for prompt="auto": learned from kept keys and values, judged by what they
say of examples that were held out.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from vpt.backbones import Backbone
from vpt.errors import VptError
from vpt.prompts import QueryTokens
from vpt.readouts import Linear
from vpt.report.progress import progress_bar
from vpt.runs.kept import Kept
from vpt.runs.probe import Folds
from vpt.runs.refitting import refitted
from vpt.runs.worth import Parts, narrowed, parts_of, prune
from vpt.training.side_by_side import BATCH, Members, learn_side_by_side, steps_for

COUNT = 4  # queries of each block
DECAY = 10.0  # of the classifier of what they read


@dataclass
class Learned:
    """Queries that have learned: a member for each fold, and one for all, the last.

    start: of what prompt they are. members: what they learned. parts: what each query adds to the
        scores of examples that were held out. stay: which of them are left.
    """

    start: QueryTokens
    members: Members
    parts: Parts
    stay: list[int]

    def into(self, classes: Sequence[str]) -> tuple[QueryTokens, Linear]:
        """The prompt of the last member, and its classifier."""
        prompt = copy.deepcopy(self.start)
        readout = self.members.into(prompt, classes)
        if len(self.stay) < sum(prompt.counts):
            return narrowed(prompt, readout, self.stay)
        return prompt, readout


def queries_for(backbone: Backbone) -> QueryTokens | None:
    """Queries for a backbone, or None where they cannot read it."""
    try:
        return QueryTokens.like(backbone, COUNT)
    except VptError:
        return None


def learn_queries(
    start: QueryTokens,
    kept: Kept,
    folds: Folds,
    classes: int,
    seed: int,
    progress: bool,
) -> tuple[Members, float]:
    """(Queries of each fold, and of all examples, learned side by side, then their classifiers; C
    of these).

    start: how they begin.
    kept: of the labelled examples.
    folds: what each member does not see.
    classes: how many there are.
    seed: of the order of inputs.
    progress: whether to show how far it is.
    """
    memories, y = kept.of_blocks(start.blocks), kept.y[kept.clips]
    shares = seen_by(folds, kept.clips, len(kept.y))
    learned = learn_side_by_side(
        memories,
        list(start.queries),
        y,
        shares,
        classes,
        decay=DECAY,
        seed=seed,
        progress=progress,
    )
    with progress_bar(progress) as bar:
        bar.add_task("fitting the classifier of what they read", total=None)
        return refitted(learned, memories, kept, folds, classes)


def seen_by(folds: Folds, clips: Tensor, count: int) -> Tensor:
    """Which inputs each member learns from, 1 or 0 `[E,n]`: all that its fold does not hold out,
    and the last from all. clips: of which of `count` examples each input is.
    """
    seen = torch.ones(len(folds) + 1, count)
    for number, (_, held) in enumerate(folds):
        seen[number, torch.from_numpy(held)] = 0
    return seen[:, clips]


def judged(
    start: QueryTokens, members: Members, kept: Kept, folds: Folds, pruned: bool
) -> tuple[Learned, Tensor]:
    """(What was learned, what it says of each labelled example that it did not see `[m,C]`).

    start: of what prompt the members are.
    members: one for each fold, and one for all.
    kept: of the labelled examples.
    folds: in the order of the members.
    pruned: whether queries without which nothing is lost are left out.
    """
    judge, tested = torch.zeros(len(kept.y), dtype=torch.long), torch.zeros(len(kept.y)).bool()
    for number, (_, held) in enumerate(folds):
        judge[held], tested[held] = number, True
    memories = kept.of_blocks(start.blocks)
    parts = parts_of(members, memories, start, judge[kept.clips], kept.y[kept.clips])
    parts = Parts(kept.of_examples(parts.adds), kept.of_examples(parts.rest), kept.y)
    stay = prune(parts.take(tested)) if pruned else list(range(parts.adds.shape[1]))
    scores = parts.scores(stay)
    left = replace(parts, adds=parts.adds[:, stay]).take(tested)
    return Learned(start, members, left, stay), scores


def seconds_to_learn(
    queries: QueryTokens, kept: Kept, members: int, classes: int, counts: Sequence[int]
) -> float:
    """How long queries will take to learn as often as there are counts, each time from so many
    inputs; from two steps timed here.

    queries: as they begin.
    kept: of a few inputs.
    members: how many learn side by side.
    classes: how many there are.
    """
    # a whole batch, or what each step takes by itself would be counted for a few inputs
    index = torch.arange(BATCH) % len(kept.clips)
    memories = [memory.take(index) for memory in kept.of_blocks(queries.blocks)]
    begin = list(queries.queries)
    y, shares = torch.zeros(BATCH, dtype=torch.long), torch.ones(members, BATCH)
    learn = partial(learn_side_by_side, memories, begin, y, shares, classes, decay=DECAY)
    learn(steps=1)
    started = time.perf_counter()
    learn(steps=2)
    once = (time.perf_counter() - started) / 3 / BATCH  # for one input; it reads thrice
    return once * sum(steps_for(count) * BATCH + 2 * count for count in counts)
