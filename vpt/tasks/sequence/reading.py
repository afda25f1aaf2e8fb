"""Queries in a sequence of tasks: each task has its own, which learn from one pass over its data.
Nothing of an earlier task changes; what is lost is lost where the tasks' classes compete.
"""

from __future__ import annotations

import copy
from contextlib import ExitStack

import torch

from vpt.data import Examples
from vpt.errors import PromptError
from vpt.model import PromptedModel
from vpt.prompts import QueryTokens
from vpt.readouts import Linear
from vpt.runs.kept import keep
from vpt.runs.making import start_among
from vpt.runs.querying import DECAY
from vpt.tasks.sequence.journal import Journal, Rows
from vpt.tasks.sequence.outcome import Outcome
from vpt.tasks.sequence.trial import Trial
from vpt.training.plan import seed_for
from vpt.training.side_by_side import learn_side_by_side


def read_in_turn(trial: Trial, journal: Journal, name: str, prompt: QueryTokens) -> Outcome:
    """Queries and a classifier of what they read for each task, learned on its data alone; the
    classes of all tasks compete.

    prompt: of which each task has one like it.
    """
    journal.earlier()  # one pass for each task: it is done again
    learned: list[tuple[QueryTokens, Linear]] = []
    rows: Rows = []
    with ExitStack() as undo:
        for t, task in enumerate(trial.tasks):
            learned.append(learn_to_read(trial, prompt, task.train, t))
            model = PromptedModel(trial.backbone, *side_by_side(learned))
            undo.callback(model.close)  # whatever goes wrong
            rows.append([trial.accuracy(model, i) for i in range(t + 1)])
            journal.keep(model, t + 1, rows)
            if t + 1 < len(trial.tasks):
                model.attachment.remove()
        outcome = journal.finish(Outcome(name, trial.classes, trial.sizes, rows, [], model))
        undo.pop_all()
    return outcome


def learn_to_read(
    trial: Trial, prompt: QueryTokens, train: Examples, t: int
) -> tuple[QueryTokens, Linear]:
    """Queries like these for task t, and a classifier of what they read. Raises `PromptError` where
    their blocks' keys and values have no place.
    """
    own, seed = copy.deepcopy(prompt), seed_for(trial.seed, t) % (1 << 31)
    start_among(own, trial.backbone, train, seed)
    what = f"one pass over task {t + 1}"
    kept = keep(trial.backbone, train, blocks=own.blocks, progress=trial.progress, what=what)
    if own.through or not kept.memories:
        raise PromptError(
            f"Queries learn here from keys and values that are kept, and those of"
            f" {len(kept.clips)} inputs take too much memory, or the queries go through their"
            " blocks. Take fewer blocks (queries:4@11), or fewer examples."
        )
    shares = torch.ones(1, len(kept.clips))
    members = learn_side_by_side(
        kept.of_blocks(own.blocks),
        list(own.queries),
        kept.y[kept.clips],
        shares,
        len(train.classes),
        decay=DECAY,
        seed=seed,
        progress=trial.progress,
    )
    return own, members.into(own, train.classes)


@torch.no_grad()
def side_by_side(learned: list[tuple[QueryTokens, Linear]]) -> tuple[QueryTokens, Linear]:
    """The queries of all tasks as one prompt, and their classifiers as one, in which each class
    hears its own task's queries only.
    """
    first = learned[0][0]
    count = first.count * len(learned)
    prompt = QueryTokens(count, first.widths, first.outputs, first.blocks, first.through)
    for i, rows in enumerate(prompt.queries):
        rows.copy_(torch.cat([own.queries[i] for own, _ in learned]))
    classes = [name for _, readout in learned for name in readout.classes or []]
    joined = Linear(prompt.reads, classes, "queries")
    # what is read stands block by block, and within a block query by query
    places = torch.arange(prompt.reads).split([count * width for width in first.outputs])
    begin = 0
    for t, readout in enumerate(readout for _, readout in learned):
        mine = torch.cat([part.view(len(learned), -1)[t] for part in places])
        joined.mean[mine], joined.scale[mine] = readout.mean, readout.scale
        # scores are divided by the root of how much is read in all
        end = begin + len(readout.weight)
        joined.weight[begin:end, mine] = readout.weight * len(learned) ** 0.5
        joined.bias[begin:end] = readout.bias
        begin = end
    return prompt, joined
