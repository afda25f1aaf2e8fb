"""The choice that wastes no label: fixed features, queries, or both, by what each says of examples
that it never saw.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch

from vpt.backbones import Backbone
from vpt.data import Data, Examples
from vpt.data.joining import appended
from vpt.metrics import classification as metrics
from vpt.metrics.classification import Scored
from vpt.model import PromptedModel
from vpt.readouts import Readout
from vpt.report.progress import span
from vpt.runs.baselines import Baselines
from vpt.runs.briefing import TRIED, data_facts, say_before
from vpt.runs.candidates import (
    MEANS,
    PROBE,
    Trial,
    choose_among,
    means_on,
    probe_on,
    queries_for,
    refit,
    seconds_of_probes,
    seconds_to_learn,
)
from vpt.runs.choosing import Chosen, folds_of
from vpt.runs.folder import trained
from vpt.runs.kept import Kept, keep
from vpt.runs.making import start_among
from vpt.runs.probe import FALLBACK, Folds
from vpt.runs.report import AdaptReport
from vpt.runs.result import Result
from vpt.sites import takes_images
from vpt.training.loop import History
from vpt.training.recipe import Recipe


@dataclass
class Automatic:
    """What came out: the model, how it was chosen, its baselines, and its test scores.

    examples: all that it learned from. test: None without test data. validation: None where its
        numbers are out of fold.
    """

    model: PromptedModel
    chosen: Chosen
    baselines: Baselines
    examples: Examples
    test: Scored | None
    validation: Scored | None


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
        say_before(data, backbone, what, *_time(backbone, data, source))
    found = learn_automatically(backbone, data, source, recipe.seed, shown)
    report = report_chosen(found, data, recipe, started, command)
    return Result(found.model, report, History([], 0))


def _time(backbone: Backbone, data: Data, source: Labelled) -> tuple[float, str]:
    """(How many seconds prompt="auto" will take, and for what), from a few examples timed here."""
    few = data.train.subset(range(min(TRIED, len(data.train))))
    queries = queries_for(backbone)
    blocks = queries.blocks if queries is not None else ()
    keep(backbone, few)  # the first forward is slower
    started = time.perf_counter()
    kept = keep(backbone, few, blocks=blocks)
    inputs = sum(len(part.windows()[0]) for part in data.parts.values())
    once = (time.perf_counter() - started) / len(kept.clips) * inputs
    count = len(source.examples)
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
    among them.
    """

    examples: Examples
    folds: Folds
    joined: bool


def learned_from(data: Data, seed: int, val_apart: bool) -> Labelled:
    """Training examples, and those for validation, unless these are to stay apart, or the training
    examples were to be few, or no folds could be made.
    """
    if not val_apart and "kept" not in data.made.get("train", ""):
        both = appended(data.train, data.val)
        if folds := folds_of(both, seed):
            return Labelled(both, folds, True)
    return Labelled(data.train, folds_of(data.train, seed), False)


def learn_automatically(
    backbone: Backbone, data: Data, source: Labelled, seed: int, progress: bool
) -> Automatic:
    """Choose, and fit on all labelled examples.

    backbone: with nothing attached.
    data: with validation and test examples.
    source: what is learned from; where validation examples are among it, the validation numbers
        are out of fold.
    seed: of folds and queries.
    progress: whether to show how far it is.
    """
    examples, folds, given = source.examples, source.folds, not source.joined
    queries = queries_for(backbone)
    blocks = queries.blocks if queries is not None else ()
    if queries is not None:
        start_among(queries, backbone, examples, seed)
    kept = keep(backbone, examples, blocks=blocks, progress=progress)
    trial = Trial(backbone, kept, examples.classes, folds, queries if kept.memories else None)
    chosen = choose_among(trial, seed, progress)
    prompt, readout = refit(trial, chosen)
    plain = probe_on(trial, "cls")
    readouts = {MEANS: means_on(trial), PROBE: plain, "chosen": readout}
    parts = {"val": data.val} if given else {}
    parts |= {"test": data.test} if data.test is not None else {}
    scored: dict[str, dict[str, Scored]] = {}
    for part, some in parts.items():
        what = f"the same over the {part} data"
        other = keep(backbone, some, prompt=prompt, progress=progress, what=what)
        scored[part] = {name: _scored(one, other, backbone) for name, one in readouts.items()}
    held = {row["candidate"]: row for row in chosen.table} if not given else {}
    means, probe = (
        ({"val": held[name]["accuracy"]} if held else {})
        | {part: of[name]["accuracy"] for part, of in scored.items()}
        for name in (MEANS, PROBE)
    )
    strength = trial.strengths.get(PROBE, FALLBACK)
    baselines = Baselines(means, probe, plain, strength)
    model = PromptedModel(backbone, prompt, readout)
    test, val = (scored[part]["chosen"] if part in scored else None for part in ("test", "val"))
    return Automatic(model, chosen, baselines, examples, test, val)


@torch.no_grad()
def _scored(readout: Readout, kept: Kept, backbone: Backbone) -> Scored:
    scores = kept.of_examples(readout(kept.named(readout.named.text, backbone)))
    return metrics.classification(scores, kept.y, readout.classes)


def report_chosen(
    found: Automatic, data: Data, recipe: Recipe, started: float, command: str | None
) -> AdaptReport:
    """The report of a run with prompt "auto".

    found: what came out.
    data: from which it learned.
    recipe: of which the seed counts.
    started: when the run began, by `time.monotonic()`.
    command: the command line that began it, if one did.
    """
    model, chosen, test = found.model, found.chosen, found.test
    outside = {name: getattr(chosen, name) for name in ("accuracy", "log_loss", "interval", "n")}
    val = found.validation
    return AdaptReport(
        test_accuracy=test["accuracy"] if test else None,
        test_n=test["n"] if test else 0,
        test_per_class=test["per_class"] if test else None,
        val_accuracy=val["accuracy"] if val else chosen.accuracy,
        val_n=val["n"] if val else chosen.n,
        train_n=len(found.examples),
        baselines={
            "nearest_mean": found.baselines.nearest_mean,
            "linear_probe": found.baselines.linear_probe | {"C": found.baselines.strength},
        },
        verdict=f"chosen was {chosen.name}: {chosen.why}",
        prompt=model.prompt.describe(),
        parameters_trained=trained(model),
        backbone=model.backbone.identity,
        classes=model.classes,
        label_map=None,
        seed=recipe.seed,
        recipe=recipe,
        best_epoch=0,
        rate_cuts=0,
        skipped=data.skipped,
        data=data_facts(data),
        inputs=str(model.backbone.inputs),
        seconds=round(time.monotonic() - started, 1),
        command=command,
        chosen=chosen.as_dict(),
        out_of_fold=outside,
    )
