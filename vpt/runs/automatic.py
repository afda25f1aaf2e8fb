"""The choice that wastes no label: fixed features, queries, or both, by what each says of examples
that it never saw.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

import torch
from torch import Tensor

from vpt.backbones import Backbone
from vpt.data import Data, Examples
from vpt.model import PromptedModel
from vpt.readouts import Readout
from vpt.report.progress import notice, span
from vpt.runs.answers import PROBE as LINEAR_PROBE
from vpt.runs.answers import Answers
from vpt.runs.briefing import say_before
from vpt.runs.candidates import (
    MEANS,
    PROBE,
    Trial,
    choose_among,
    fitted,
    refit,
    seconds_of_probes,
)
from vpt.runs.choosing import Chosen, averaged
from vpt.runs.cost import Clock
from vpt.runs.kept import Kept, keep
from vpt.runs.labelled import Labelled
from vpt.runs.making import start_among
from vpt.runs.moments import Moments, moments_of_kept
from vpt.runs.probe import FALLBACK
from vpt.runs.querying import queries_for, seconds_to_learn
from vpt.runs.ran import Ran
from vpt.runs.report import report_of
from vpt.runs.result import Result
from vpt.runs.rounds import TIMES, go_on
from vpt.runs.suspects import suspects
from vpt.runs.timing import time_pass
from vpt.runs.worth import worth_of
from vpt.sites import Config, takes_images
from vpt.training.loop import History
from vpt.training.recipe import Recipe

LOGGER = logging.getLogger("vpt")


@dataclass
class Automatic:
    """What came out: the model, how it was chosen, C of the linear probe, and what every method
    says of each part.

    method: what the model is called there. slope: see `Ran`. examples: all that it learned from.
    queries: what each is worth, in plain values. suspects: labels that look wrong, likewise.
    """

    model: PromptedModel
    chosen: Chosen
    strength: float
    slope: float | None
    answers: dict[str, Answers]
    method: str
    examples: Examples
    queries: Config | None
    suspects: Config | None
    moments: Moments | None


def adapt_automatically(
    backbone: Backbone,
    data: Data,
    source: Labelled,
    recipe: Recipe,
    clock: Clock,
    command: str | None,
    shown: bool,
) -> Result:
    """What prompt="auto" comes to.

    backbone: with nothing attached.
    data: with its parts.
    source: what it learns from.
    recipe: of which only the seed counts.
    clock: since the run began.
    command: the command line that began it, if one did.
    shown: whether to say what is done, and how far it is.
    """
    if source.joined:
        note = "validation examples are learned from, too; what is said of them is out of fold"
        data.notes.append(note)
    if shown:
        what = "chosen: fixed features, queries, or both"
        what = "none, but a linear probe" if source.probe_only else what
        say_before(data, backbone, what, *_time(backbone, data, source))
    found = learn_automatically(backbone, data, source, recipe.seed, shown)
    history = History([], 0)
    ran = Ran(
        data=data,
        train_n=len(found.examples),
        strength=found.strength,
        slope=found.slope,
        history=history,
        recipe=recipe,
        clock=clock,
        command=command,
        chosen=found.chosen,
        queries=found.queries,
        suspects=found.suspects,
        told=source.told,
    )
    report = report_of(found.model, found.answers, found.method, ran)
    return Result(found.model, report, history, found.answers, moments=found.moments)


def _time(backbone: Backbone, data: Data, source: Labelled) -> tuple[float, str]:
    """(How many seconds prompt="auto" will take, and for what), from a few examples timed here."""
    queries = None if source.probe_only else source.start or queries_for(backbone)
    blocks = queries.blocks if queries is not None else ()
    others = source.unlabelled
    kept, once, inputs = time_pass(backbone, data, blocks, [others] if others is not None else [])
    members, classes = len(source.folds) + 1, len(data.classes)
    own = [source.examples]
    # labels are doubted by what sees neither of two folds, which is as dear as two rounds
    rounds = [own] * (4 if source.noisy else 1)
    rounds += [[*own, others]] * TIMES if others is not None else []
    learning = 0.0
    if not source.probe_only:
        reads = queries.reads if queries is not None and kept.memories else 0
        counts = [sum(map(len, parts)) for parts in rounds]
        learning += sum(seconds_of_probes(backbone, count, classes, reads) for count in counts)
    if queries is not None and kept.memories:
        heard = [sum(len(part.windows()[0]) for part in parts) for parts in rounds]
        learning += seconds_to_learn(queries, kept, members, classes, heard)
    whereof = f": {span(once)} for one pass over {inputs} {_called(backbone)}, the rest to learn"
    return once + learning, whereof


def _called(backbone: Backbone) -> str:
    return "pictures" if takes_images(backbone.inputs) else "clips"


def learn_automatically(
    backbone: Backbone, data: Data, source: Labelled, seed: int, progress: bool
) -> Automatic:
    """Choose, and fit on all labelled examples.

    backbone: with nothing attached.
    data: with validation and test examples.
    source: what is learned from; where validation examples are among it, they are no part of their
        own.
    seed: of folds and queries.
    progress: whether to show how far it is.
    """
    examples, folds = source.examples, source.folds
    start = None if source.probe_only else source.start or queries_for(backbone)
    blocks = start.blocks if start is not None else ()
    if start is not None and source.start is None:
        start_among(start, backbone, examples, seed)
    kept = keep(backbone, examples, blocks=blocks, progress=progress)
    trial = Trial(backbone, kept, examples.classes, folds, start if kept.memories else None)
    trial.probe_only, trial.pruned = source.probe_only, source.pruned
    trial.together, trial.begun = examples.together, source.start is not None
    chosen = choose_among(trial, seed, progress)
    rounds = go_on(trial, chosen, source.unlabelled, source.noisy, seed, progress)
    chosen = rounds.chosen
    data.notes += rounds.notes
    for note in rounds.notes:
        notice(f"noted: {note}.", shown=progress)
    wrong = suspects(rounds.doubts, examples) if rounds.doubts is not None else None
    data.careful += wrong["said"] if wrong is not None else []
    prompt, readout = refit(trial, chosen)
    method = _method_of(chosen.name)
    answers = {"out_of_fold": _out_of_fold(trial, examples, chosen)} if folds else {}
    readouts = _readouts(trial, chosen) | {method: readout}
    parts = {} if source.joined else {"val": data.val}
    parts |= {"test": data.test} if data.test is not None else {}
    for part, some in parts.items():
        what = f"the same over the {part} data"
        other = keep(backbone, some, prompt=prompt, progress=progress, what=what)
        scores = {name: _scores(one, other, backbone) for name, one in readouts.items()}
        answers[part] = Answers.of(some, scores)
    strength = trial.strengths.get(PROBE, FALLBACK)
    slopes = {row["candidate"]: float(row["slope"]) for row in chosen.table}
    slope = slopes.get(chosen.names[0]) if len(chosen.names) == 1 else None
    model = PromptedModel(backbone, prompt, readout)
    queries = None
    if prompt is not None:
        try:
            queries = _worth(trial, chosen)
        except Exception as error:  # a table of the page is no reason to lose a run
            LOGGER.warning("What each query is worth could not be said: %s", error)
    read = trial.kept.with_read(prompt) if prompt is not None else trial.kept
    moments = moments_of_kept(read, model)
    return Automatic(
        model, chosen, strength, slope, answers, method, examples, queries, wrong, moments
    )


def _worth(trial: Trial, chosen: Chosen) -> Config | None:
    """What each query is worth, in plain values."""
    learned = next((trial.learned[name] for name in chosen.names if name in trial.learned), None)
    prompt = trial.prompt
    if prompt is None or learned is None or not len(learned.parts.y):
        return None
    found, odd = worth_of(learned.parts, prompt, trial.kept.of_blocks(prompt.blocks))
    left = sum(learned.start.counts) - sum(prompt.counts)
    return {"worth": [one.as_dict() for one in found], "odd": odd, "left_out": left}


def _method_of(candidate: str) -> str:
    """The probe of the model's own features is the linear probe everywhere else."""
    return LINEAR_PROBE if candidate == PROBE else candidate


def _out_of_fold(trial: Trial, examples: Examples, chosen: Chosen) -> Answers:
    """What every candidate, and what was chosen, says of examples that were held out."""
    scores = {_method_of(one.name): one.scores for one in trial.made}
    parts = [scores[_method_of(name)] for name in chosen.names]
    scores[_method_of(chosen.name)] = averaged(parts, chosen.factor)
    return Answers.of(examples, scores).take(trial.tested.nonzero()[:, 0])


def _readouts(trial: Trial, chosen: Chosen) -> dict[str, Readout]:
    """What needs no prompt: nearest means, the linear probe, and the probe of most promise."""
    found: dict[str, Readout] = {MEANS: fitted(trial, MEANS), LINEAR_PROBE: fitted(trial, PROBE)}
    losses = {row["candidate"]: row["log_loss"] for row in chosen.table}
    others = [name for name in losses if name.startswith("probe ") and name != chosen.name]
    if others:
        best = min(others, key=losses.__getitem__)
        found[_method_of(best)] = fitted(trial, best)
    return found


@torch.no_grad()
def _scores(readout: Readout, kept: Kept, backbone: Backbone) -> Tensor:
    return kept.of_examples(readout(kept.named(readout.named.text, backbone)))
