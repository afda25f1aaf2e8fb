"""A second round: candidates learned anew from what is thought of each example, as shares of
classes: of labels that may be wrong, and of examples that have none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vpt.prompts import QueryTokens
from vpt.report.progress import progress_bar
from vpt.runs.candidates import Trial
from vpt.runs.choosing import Candidate, calibrated, losses_of
from vpt.runs.kept import Kept
from vpt.runs.querying import DECAY, judged
from vpt.runs.refitting import refitted_on_shares
from vpt.runs.soft_probe import SoftProbes
from vpt.training.side_by_side import learn_side_by_side

MANY = 500  # examples, from which on a classifier is not fitted anew: dear, and not better


@dataclass(frozen=True)
class Again:
    """What is learned from a second time.

    kept: of the labelled examples, in the order of the trial, and then of others.
    told: what each member learns of each example, as shares of classes `[E,m,C]`; a row counts as
        much as it sums to, and is 0 for what the member must not see. A member for each fold, and
        one for all, the last.
    called: what the candidates are called, behind their own names.
    """

    kept: Kept
    told: Tensor
    called: str


def learn_again(
    trial: Trial, again: Again, sets: Sequence[str], seed: int, progress: bool
) -> list[Candidate]:
    """The candidates of a second round, each judged by the labels of examples that its members did
    not see; what they come to is left in the trial. Queries come before probes: from many examples
    they learn more, and a few labels cannot show it.

    trial: of the first round, which chose how strongly each probe is regularised.
    again: what is learned from.
    sets: of the probes.
    seed: of queries.
    progress: whether to show how far it is.
    """
    place = len(trial.made)
    made: list[Candidate] = []
    with progress_bar(progress) as bar:
        task = bar.add_task("probes, learned again", total=len(sets))
        for name in sets:
            made.append(_probe_again(trial, again, name, place + 1))
            bar.advance(task)
    if trial.start is not None and again.kept.memories:
        made.append(_queries_again(trial, again, trial.start, place, seed, progress))
    return made


def _probe_again(trial: Trial, again: Again, name: str, place: int) -> Candidate:
    """A probe that learns from shares, with the strength that it had."""
    kept, called = again.kept, f"probe {name}{again.called}"
    probes = SoftProbes(kept.of_examples(kept.named(name, trial.backbone)), name)
    strength = trial.strengths[f"probe {name}"]
    every = probes.fit(again.told[-1], strength)
    scores = torch.zeros(len(trial.kept.y), len(trial.classes)).double()
    trial.ready[called] = []
    for told, (_, held) in zip(again.told[:-1], trial.folds, strict=True):
        weights = probes.fit(told, strength)
        scores[held] = probes.scores(weights, held)
        trial.ready[called].append(probes.readout(weights, trial.classes))
    trial.ready[called].append(probes.readout(every, trial.classes))
    return calibrated(called, place, scores, trial.kept.y, trial.tested)


def _queries_again(
    trial: Trial, again: Again, start: QueryTokens, place: int, seed: int, progress: bool
) -> Candidate:
    """Queries that learn from shares. From labelled examples alone their classifier is then fitted
    anew, from many guesses it is the one that they learned with, by some hundred steps with
    dropout; from a few guesses, the better of the two. (Test accuracy on CLIP, 1,000 examples: the
    fitted one 3 points worse; on Whisper, 200: 7 better.)
    """
    called, kept = f"queries:{start.count}{again.called}", again.kept
    counts = again.told.sum(2)
    shares = again.told / counts.clamp(min=1e-9)[..., None]
    members = learn_side_by_side(
        kept.of_blocks(start.blocks),
        list(start.queries),
        shares[:, kept.clips].float(),
        counts[:, kept.clips].float(),
        len(trial.classes),
        decay=DECAY,
        seed=seed,
        progress=progress,
    )
    memories, strength = kept.of_blocks(start.blocks), trial.strengths[f"queries:{start.count}"]
    ways = [members] if len(kept.y) > len(trial.kept.y) else []
    if not ways or len(kept.y) < MANY:
        ways.append(refitted_on_shares(members, memories, kept, again.told, strength))
    y, tested = trial.kept.y, trial.tested
    made = []
    for way in ways:
        learned, scores = judged(start, way, trial.kept, trial.folds, trial.pruned)
        one = calibrated(called, place, scores, y, tested)
        made.append((float(losses_of(one.scores, y, tested).mean()), one, learned))
    _, best, trial.learned[called] = min(made, key=lambda row: row[0])
    return best
