"""The choice that wastes no label: fixed features, queries, or both, by what each says of examples
that it never saw.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from torch.utils.data import default_collate

from vpt.backbones import Backbone
from vpt.data import Data, Examples
from vpt.metrics import classification as metrics
from vpt.metrics.classification import Scored
from vpt.model import PromptedModel
from vpt.readouts import Readout
from vpt.runs.baselines import Baselines
from vpt.runs.briefing import TRIED, bare_seconds, data_facts, say_before
from vpt.runs.candidates import (
    MEANS,
    PROBE,
    Trial,
    choose_among,
    means_on,
    probe_on,
    queries_for,
    refit,
)
from vpt.runs.choosing import Chosen, folds_of
from vpt.runs.folder import trained
from vpt.runs.kept import Kept, keep
from vpt.runs.making import start_among
from vpt.runs.probe import FALLBACK, Folds
from vpt.runs.report import AdaptReport
from vpt.runs.result import Result
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
    recipe: Recipe,
    started: float,
    command: str | None,
    shown: bool,
) -> Result:
    """What prompt="auto" comes to.

    backbone: with nothing attached.
    data: from which it learns.
    recipe: of which only the seed counts.
    started: when the run began, by `time.monotonic()`.
    command: the command line that began it, if one did.
    shown: whether to say what is done, and how far it is.
    """
    source = _learned_from(data, recipe.seed)
    if source.joined:
        note = "all training examples are learned from, those held out for validation, too"
        data.notes.append(f"{note}; what is said of them is out of fold")
    if shown:
        seconds = _seconds(backbone, data)
        say_before(data, backbone, "chosen: fixed features, queries, or both", seconds)
    found = learn_automatically(backbone, data, source, recipe.seed, shown)
    report = report_chosen(found, data, recipe, started, command)
    return Result(found.model, report, History([], 0))


def _seconds(backbone: Backbone, data: Data) -> float:
    """How long prompt="auto" will take: a pass over all data, timed here, and half of that."""
    examples, count = data.train, min(TRIED, len(data.train))
    x = default_collate([examples[i][0] for i in range(count)])
    inputs = sum(len(part.windows()[0]) for part in data.parts.values())
    return 1.5 * inputs * bare_seconds(backbone, x) / count


@dataclass
class _Source:
    """The examples that are learned from, and their folds. joined: whether those that were held out
    for validation are among them.
    """

    examples: Examples
    folds: Folds
    joined: bool


def _learned_from(data: Data, seed: int) -> _Source:
    """Validation examples, too, where they were only held out, and folds can be made."""
    own = "kept" not in data.made.get("train", "") and data.made.get("val", "given") != "given"
    if own and (folds := folds_of(both := data.train.with_also(data.val), seed)):
        return _Source(both, folds, True)
    return _Source(data.train, folds_of(data.train, seed), False)


def learn_automatically(
    backbone: Backbone, data: Data, source: _Source, seed: int, progress: bool
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
