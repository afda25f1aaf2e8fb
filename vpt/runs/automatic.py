"""The choice that wastes no label: fixed features, queries, or both, by what each says of examples
that it never saw.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vpt.backbones import Backbone
from vpt.data import Data, Examples
from vpt.data.joining import appended
from vpt.errors import TrainingError
from vpt.model import PromptedModel
from vpt.readouts import Readout
from vpt.report.progress import span
from vpt.runs.answers import PROBE as LINEAR_PROBE
from vpt.runs.answers import Answers
from vpt.runs.briefing import TRIED, say_before
from vpt.runs.candidates import (
    MEANS,
    PROBE,
    Trial,
    choose_among,
    fitted,
    queries_for,
    refit,
    seconds_of_probes,
    seconds_to_learn,
)
from vpt.runs.choosing import Chosen, folds_of
from vpt.runs.kept import Kept, keep
from vpt.runs.making import start_among
from vpt.runs.probe import FALLBACK, Folds
from vpt.runs.report import Ran, report_of
from vpt.runs.result import Result
from vpt.sites import Config, takes_images
from vpt.training.loop import History
from vpt.training.recipe import Recipe


@dataclass
class Automatic:
    """What came out: the model, how it was chosen, C of the linear probe, and what every method
    says of each part.

    method: what the model is called there. slope: see `Ran`. examples: all that it learned from.
    """

    model: PromptedModel
    chosen: Chosen
    strength: float
    slope: float | None
    answers: dict[str, Answers]
    method: str
    examples: Examples


def adapt_automatically(
    backbone: Backbone,
    data: Data,
    source: Labelled,
    recipe: Recipe,
    started: float,
    command: str | None,
    shown: bool,
) -> Result:
    """What prompt="auto" comes to.

    backbone: with nothing attached.
    data: with its parts.
    source: what it learns from.
    recipe: of which only the seed counts.
    started: when the run began, by `time.monotonic()`.
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
        started=started,
        command=command,
        chosen=found.chosen,
    )
    report = report_of(found.model, found.answers, found.method, ran)
    return Result(found.model, report, history, answers=found.answers)


def _time(backbone: Backbone, data: Data, source: Labelled) -> tuple[float, str]:
    """(How many seconds prompt="auto" will take, and for what), from a few examples timed here."""
    few = data.train.subset(range(min(TRIED, len(data.train))))
    queries = None if source.probe_only else queries_for(backbone)
    blocks = queries.blocks if queries is not None else ()
    keep(backbone, few)  # the first forward is slower
    started = time.perf_counter()
    kept = keep(backbone, few, blocks=blocks)
    inputs = sum(len(part.windows()[0]) for part in data.parts.values())
    once = (time.perf_counter() - started) / len(kept.clips) * inputs
    count = len(source.examples)
    learning = 0.0
    if not source.probe_only:
        learning = seconds_of_probes(backbone, count, len(data.classes))
    if queries is not None and kept.memories:
        heard = len(source.examples.windows()[0])
        learning += seconds_to_learn(queries, kept, len(source.folds) + 1, len(data.classes), heard)
    whereof = f": {span(once)} for one pass over {inputs} {_called(backbone)}, the rest to learn"
    return once + learning, whereof


def _called(backbone: Backbone) -> str:
    return "pictures" if takes_images(backbone.inputs) else "clips"


@dataclass
class Labelled:
    """Examples that are learned from, and their folds. joined: whether those for validation are
    among them. probe_only: whether a linear probe is all that is to be fitted.
    """

    examples: Examples
    folds: Folds
    joined: bool
    probe_only: bool = False


def learned_from(data: Data, seed: int, val_apart: bool, probe_only: bool) -> Labelled:
    """Training examples, and those for validation, unless these are to stay apart, or the training
    examples were to be few, or no folds could be made.
    """
    if not val_apart and "kept" not in data.made.get("train", ""):
        both = appended(data.train, data.val)
        if folds := folds_of(both, seed):
            return Labelled(both, folds, True, probe_only)
    return Labelled(data.train, folds_of(data.train, seed), False, probe_only)


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
    queries = None if source.probe_only else queries_for(backbone)
    blocks = queries.blocks if queries is not None else ()
    if queries is not None:
        start_among(queries, backbone, examples, seed)
    kept = keep(backbone, examples, blocks=blocks, progress=progress)
    trial = Trial(backbone, kept, examples.classes, folds, queries if kept.memories else None)
    trial.probe_only = source.probe_only
    chosen = choose_among(trial, seed, progress)
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
    return Automatic(model, chosen, strength, slope, answers, method, examples)


def _method_of(candidate: str) -> str:
    """The probe of the model's own features is the linear probe everywhere else."""
    return LINEAR_PROBE if candidate == PROBE else candidate


def _out_of_fold(trial: Trial, examples: Examples, chosen: Chosen) -> Answers:
    """What every candidate, and what was chosen, says of examples that were held out."""
    scores = {_method_of(one.name): one.scores for one in trial.made}
    parts = [scores[_method_of(name)] for name in chosen.names]
    scores[_method_of(chosen.name)] = torch.stack(parts).logsumexp(0) - np.log(len(parts))
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


def refuse_for_auto(
    readout: str | Readout,
    features: str | None,
    augment: str | None,
    recipe: Recipe | None,
    settings: Config,
    prompt: str,
) -> None:
    """Raise `TrainingError` for what prompt="auto" (or "hard:4") decides by itself."""
    said = sorted(settings.keys() - {"workers", "cache"})
    said += ["cache"] if settings.get("cache", "auto") != "auto" else []
    said += ["readout"] if readout != "linear" else []
    said += ["features"] if features is not None else []
    said += ["augment"] if augment not in (None, "auto") else []
    said += ["recipe"] if recipe is not None else []
    if said:
        raise TrainingError(
            f"Found {', '.join(said)} with {prompt}, which chooses and fits by itself. Leave that"
            " out, or name another prompt ('queries:4', 'deep:10')."
        )
