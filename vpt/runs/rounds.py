"""Rounds after the first: what was chosen learns again, from labels by how far they are believed,
and from examples without labels by what the first round says of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from vpt.data import Examples
from vpt.metrics.calibrating import best_slope
from vpt.runs.again import Again, learn_again
from vpt.runs.candidates import Trial, sets_of
from vpt.runs.choosing import Candidate, Chosen, averaged, choose, no_worse
from vpt.runs.doubting import Doubts, doubts_of, expecting, explained
from vpt.runs.guessing import guessed, said_of_held_out
from vpt.runs.kept import BUDGET, Kept, keep
from vpt.runs.likeness import alike
from vpt.runs.nested import said_to_members
from vpt.runs.querying import seen_by

CLEANED = ", labels weighed"
TAUGHT = ", unlabelled too"
FEW = 5  # than which no fewer are read
BELIEVED = 0.5  # from which on a label counts for how sure a model may be
LEAST = 0.3  # share of its labels that a class keeps
TIMES = 2  # that unlabelled examples are learned from: the second time from better guesses


@dataclass
class Rounds:
    """What came out: the choice, what is thought of each label (None where nothing could be held
    out), and what became of the unlabelled examples and of the doubts, a sentence each.
    """

    chosen: Chosen
    doubts: Doubts | None
    notes: list[str]


def go_on(
    trial: Trial,
    chosen: Chosen,
    unlabelled: Examples | None,
    noisy: bool,
    seed: int,
    progress: bool,
) -> Rounds:
    """Weigh labels, and learn again where that was asked for.

    trial: of the first round.
    chosen: what it came to.
    unlabelled: examples without labels, if any.
    noisy: whether labels may be wrong.
    seed: of queries.
    progress: whether to show how far it is.
    """
    if not trial.folds:
        notes = ["nothing could be held out, so that labels could not be weighed"] if noisy else []
        if unlabelled is not None:
            notes.append("nothing could be held out, so that the unlabelled examples are not used")
        return Rounds(chosen, None, notes)
    y, notes = trial.kept.y, []
    said = said_of_held_out(trial)
    doubts = shown = doubts_of(said, y, trial.tested, trial.features("cls"))
    told = _told(trial)
    if noisy and len(trial.folds) < 3:
        notes.append("labels could not be weighed: a class has fewer than three examples")
    elif noisy:
        weighed = _weighed(trial, told, seed, progress)
        again = Again(trial.kept, weighed, CLEANED)
        made = learn_again(trial, again, _sets(trial, chosen, False), seed, progress)
        trial.made += made
        chosen, note = _better(trial, chosen, made)
        notes.append(f"labels by how far they are believed: {note}")
        if CLEANED in chosen.name:  # only then are they known to be worth doubting so much
            told, shown = weighed, expecting(doubts, said, y, trial.tested)
    if unlabelled is not None:
        others, which = _pass(trial, unlabelled, progress)
        note = "too few, so they are not used"
        if others is not None:
            chosen, note = _taught(trial, chosen, others, told, seed, progress)
        notes.append(f"{which}: {note}")
    return Rounds(_sure(trial, chosen, doubts) if noisy else chosen, shown, notes)


def _told(trial: Trial) -> Tensor:
    """Labels as each member is told them `[E,m,C]`: 0 of what it must not see."""
    count = len(trial.kept.y)
    labels = one_hot(trial.kept.y, len(trial.classes)).double()
    return seen_by(trial.folds, torch.arange(count), count)[..., None] * labels


def _weighed(trial: Trial, told: Tensor, seed: int, progress: bool) -> Tensor:
    """The same, each as far as it is believed: by what is said to the member, which has seen the
    labels of its own fold no more than the member has.
    """
    y, weighed = trial.kept.y, []
    for own, said in zip(told, said_to_members(trial, seed, progress), strict=True):
        shares, _ = explained(said, y, said.sum(1) > 0, expected=True)
        weighed.append(believed(own, shares.gather(1, y[:, None])[:, 0]))
    return torch.stack(weighed)


def believed(told: Tensor, right: Tensor) -> Tensor:
    """Labels `[m,C]` that count as much as they are believed `[m]`. Of no class is so little left
    that it would be given up: all of its labels may look wrong, and be right.
    """
    counts = told * right[:, None]
    least = LEAST * told.sum(0)
    grown = (least / counts.sum(0).clamp(min=1e-9)).clamp(min=1.0)
    return (counts * grown).clamp(max=1.0)


def _sure(trial: Trial, chosen: Chosen, doubts: Doubts) -> Chosen:
    """The choice, as sure as labels that are believed bear out: those that are wrong make it less
    sure than it should be.
    """
    believed = trial.tested & (doubts.right >= BELIEVED)
    if not bool(believed.any()):
        return chosen
    by_name = {one.name: one.scores[believed] for one in trial.made}
    parts = [by_name[name] for name in chosen.names]
    return replace(chosen, factor=best_slope(partial(averaged, parts), trial.kept.y[believed]))


def _pass(trial: Trial, unlabelled: Examples, progress: bool) -> tuple[Kept | None, str]:
    """(One pass over the unlabelled examples, None where too few are left; how many they are, in
    words). Where queries read, it is over as many as have a place beside the labelled ones.
    """
    blocks = trial.start.blocks if trial.start is not None and trial.kept.memories else []
    memories, left = trial.kept.of_blocks(blocks), BUDGET
    said = []
    if memories:
        parts = [part for memory in memories for part in (memory.keys, memory.values)]
        left = max(0, left - sum(part.nbytes for part in parts))
        inputs = len(unlabelled.windows()[0]) / len(unlabelled)
        room = int(left // (sum(2 * part[0].numel() for part in parts) * inputs))
        if room < FEW:
            blocks = []
            said.append("for probes alone, as keys and values have no place in memory")
        elif room < len(unlabelled):
            said.append(f"of {len(unlabelled):,}, as more have no place in memory")
            every = len(unlabelled)  # spread over all: they are in the order of their names
            unlabelled = unlabelled.subset([i * every // room for i in range(room)])
    what = "one pass over the unlabelled data"
    kept = keep(
        trial.backbone, unlabelled, blocks=blocks, budget=left, progress=progress, what=what
    )
    features = kept.of_examples(kept.features)
    like = alike(trial.features("cls"), features, trial.together).nonzero()[:, 0].tolist()
    if len(like) < len(features):
        said.append(f"{len(features) - len(like):,} others are unlike any labelled one")
    why = f" ({'; '.join(said)})" if said else ""
    called = f"{len(like):,} examples without labels{why}"
    if len(like) < FEW:
        return None, called
    return kept.take(like) if len(like) < len(features) else kept, called


def _taught(
    trial: Trial, before: Chosen, others: Kept, told: Tensor, seed: int, progress: bool
) -> tuple[Chosen, str]:
    """What is chosen once examples without labels are learned from, and what came of it in words.

    trial: of the rounds before.
    before: what they came to.
    others: what one pass over the examples without labels left.
    told: what each member is told of those with labels `[E,m,C]`.
    seed: of queries.
    progress: whether to show how far it is.
    """
    kept = trial.kept.joined(others)
    known, made = trial.made, list[Candidate]()
    sets = _sets(trial, before, bool(others.memories))
    for time in range(1, TIMES + 1):
        again = Again(kept, torch.cat([told, guessed(trial, others)], 1), TAUGHT)
        made = learn_again(trial, again, sets, seed + time, progress)
        trial.made = [*known, *made]  # of an earlier time only the guesses count
    return _better(trial, before, made)


def _better(trial: Trial, before: Chosen, made: list[Candidate]) -> tuple[Chosen, str]:
    """(The choice among what learned again, unless it is worse out of fold than the one before by
    more than one standard error; what came of it, in words). That it is better on average is known;
    a few dozen labels cannot show it.
    """
    y, tested, together = trial.kept.y, trial.tested, trial.together
    after = choose(made, y, tested, None, together)
    # queries come first there, which are not the simplest
    after = replace(after, why=after.why.replace("the simplest within", "within"))
    table = before.table + after.table
    losses = f"{before.log_loss:.3f} without, {after.log_loss:.3f} with"
    if not no_worse(_scores(trial, after), _scores(trial, before), y, tested, together):
        why = f"log loss out of fold is {losses}, so they are not used"
        return replace(before, table=table), why
    return replace(after, table=table), f"log loss out of fold {losses}"


def _scores(trial: Trial, chosen: Chosen) -> Tensor:
    """What was chosen says of the labelled examples, out of fold `[m,C]`."""
    by_name = {one.name: one.scores for one in trial.made}
    return averaged([by_name[name] for name in chosen.names], chosen.factor)


def _sets(trial: Trial, before: Chosen, queries: bool) -> Sequence[str]:
    """Fixed features that learn again: those that were chosen; where there are none, and no queries
    either, those of least log loss.
    """
    losses = {row["candidate"]: row["log_loss"] for row in before.table}
    sets = [name for name in sets_of(trial.backbone) if f"probe {name}" in losses]
    names = [name.split(",")[0] for name in before.names]  # whatever it learned from
    chosen = [name for name in sets if f"probe {name}" in names]
    if chosen or queries:
        return chosen
    return [min(sets, key=lambda name: losses[f"probe {name}"])]
