"""What `vpt.adapt` reports and writes: how good the prompt is, beside its baselines, and the run's
folder.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from vpt.data import Examples
from vpt.files import save, write_atomically
from vpt.files.naming import PROMPT
from vpt.model import PromptedModel
from vpt.readouts import LabelMap
from vpt.report import pictures
from vpt.runs.answers import (
    MEANS,
    PARTS,
    PROBE,
    Answers,
    accuracies,
    best_other,
    calibration_of,
    called,
    predictions_csv,
    verdict_of,
)
from vpt.runs.briefing import data_facts
from vpt.runs.folder import draw_pixels, trained
from vpt.runs.ran import Ran
from vpt.sites import Config
from vpt.training.checkpoints import CHECKPOINT
from vpt.training.folders import METRICS
from vpt.training.recipe import Recipe

CURVES = "curves.png"
PREDICTIONS = "predictions.csv"
OUTSIDE = ("accuracy", "log_loss", "interval", "n")  # of what was chosen, out of fold

LabelMapping = dict[str, list[tuple[str, float]]]  # class → (source class, weight), the largest


@dataclass(frozen=True)
class AdaptReport:
    """The numbers of a run, and what they rest on.

    test_accuracy: None where there is no test data, as `test_per_class`.
    test_n: examples that were tested; `val_n` and `train_n` likewise.
    baselines: name → accuracies on "val" and "test"; of the linear probe its C, too.
    method: what the model is called among all that were tried: "prompt", or what was chosen.
    parts: by part ("test", "val", "out_of_fold") the numbers of every method (`Scored`), and the
        paired difference from the best of the others.
    calibration: by what the scores were multiplied, and the error before and after, by part.
    verdict: whether the prompt was worth it, a sentence.
    prompt: what it does, in words.
    parameters_trained: by part, "prompt" and "readout".
    backbone: its identity.
    classes: by name, in the order of the logits; None where they are only numbered.
    label_map: of a `LabelMap`, which source classes stand for each class.
    history: of the training, a row for each epoch.
    best_epoch: whose prompt was kept; 0 is the start.
    rate_cuts: how often the learning rate was cut.
    skipped: files that were left out as bad, as (path, reason).
    data: what is known of the data, in plain values.
    inputs: how they are prepared, in words.
    seconds: that the run took.
    command: the command line that began it, if one did.
    chosen: with prompt "auto", what was chosen and among what.
    out_of_fold: with prompt "auto", accuracy, log loss, interval and n of what was chosen, on
        examples that were held out.
    queries: with prompt "auto", what each query is worth (`vpt.runs.worth.Worth`), what is odd
        about them, and how many were left out.
    suspects: with prompt "auto", labels that look wrong (`vpt.runs.suspects`).
    told: with prompt "auto", by what the same can be learned again.
    cost: what it took, and what tuning the model would take (`vpt.runs.cost`).
    """

    test_accuracy: float | None
    test_n: int
    test_per_class: dict[str, float] | None
    val_accuracy: float
    val_n: int
    train_n: int
    baselines: dict[str, dict[str, float]]
    method: str
    parts: Config
    calibration: Config
    verdict: str
    prompt: str
    parameters_trained: dict[str, int]
    backbone: Config
    classes: list[str] | None
    label_map: LabelMapping | None
    seed: int
    recipe: Recipe
    history: list[dict[str, float]]
    best_epoch: int
    rate_cuts: int
    skipped: list[tuple[str, str]]
    data: Config
    inputs: str
    seconds: float
    command: str | None
    chosen: Config | None = None
    out_of_fold: Config | None = None
    queries: Config | None = None
    suspects: Config | None = None
    told: Config | None = None
    cost: Config | None = None

    def as_dict(self) -> Config:
        """All of it in plain values, by the names above, as metrics.json has it."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return values | {"recipe": asdict(self.recipe)}


def report_of(
    model: PromptedModel, answers: Mapping[str, Answers], method: str, ran: Ran
) -> AdaptReport:
    """The report of a run that is done.

    model: with what it learned.
    answers: of every method, by part: "test" where there is one, and "val" or "out_of_fold".
    method: what the model is called there.
    ran: how it went.
    """
    held = "val" if "val" in answers else "out_of_fold"
    chosen, readout, data = ran.chosen, model.readout, ran.data
    # chosen by the part that says most about it, a test never being asked
    more = max((part for part in answers if part != "test"), key=lambda part: len(answers[part].y))
    other = best_other(answers, more, method)
    scored = {part: found.scored(method) for part, found in answers.items()}
    test, val = scored.get("test"), scored[held]
    return AdaptReport(
        test_accuracy=test["accuracy"] if test else None,
        test_n=test["n"] if test else 0,
        test_per_class=test["per_class"] if test else None,
        val_accuracy=val["accuracy"],
        val_n=val["n"],
        train_n=ran.train_n,
        baselines={
            "nearest_mean": accuracies(answers, MEANS),
            "linear_probe": accuracies(answers, PROBE) | {"C": ran.strength},
        },
        method=method,
        parts={part: found.as_dict(method, other) for part, found in answers.items()},
        calibration=calibration_of(answers, method, ran.slope),
        verdict=_verdict(answers, method, other, ran),
        prompt=model.prompt.describe(),
        parameters_trained=trained(model),
        backbone=model.backbone.identity,
        classes=model.classes,
        label_map=readout.mapping() if isinstance(readout, LabelMap) else None,
        seed=ran.recipe.seed,
        recipe=ran.recipe,
        history=[dict(row) for row in ran.history.rows],
        best_epoch=ran.history.best,
        rate_cuts=ran.history.cuts,
        skipped=data.skipped,
        data=data_facts(data),
        inputs=str(model.backbone.inputs),
        seconds=ran.clock.seconds(),
        command=ran.command,
        chosen=chosen.as_dict() if chosen else None,
        out_of_fold={name: getattr(chosen, name) for name in OUTSIDE} if chosen else None,
        queries=ran.queries,
        suspects=ran.suspects,
        told=ran.told,
        cost=ran.clock.cost(model),
    )


def _verdict(answers: Mapping[str, Answers], method: str, other: str | None, ran: Ran) -> str:
    """Whether it was worth it: on test, where there is one."""
    part = next(part for part in PARTS if part in answers)
    if ran.chosen is not None and not any("queries" in name for name in ran.chosen.names):
        return f"taken is {called(method)}, without a prompt: {ran.chosen.why}"
    kept = ""
    if ran.history.rows and ran.history.best == 0:
        kept = "; training never had less loss on validation than its start, which is kept"
    chosen = ", by which it was chosen" if part != "test" else ""
    return verdict_of(answers[part], part, method, other) + chosen + kept


def write_run(
    folder: Path,
    model: PromptedModel,
    report: AdaptReport,
    val: Examples,
    answers: Mapping[str, Answers],
) -> Path:
    """A run's folder: pictures first, then metrics, then the prompt file, whose path is returned;
    the checkpoint goes last.

    model: that learned.
    report: of it.
    val: examples to show under a pixel prompt.
    answers: of every method, by part.
    """
    baselines = {name.replace("_", " "): values["val"] for name, values in report.baselines.items()}
    if report.history:
        png = pictures.curves(report.history, report.best_epoch, baselines, report.prompt)
        write_atomically(folder / CURVES, png)
    draw_pixels(model, val, folder)
    write_atomically(folder / PREDICTIONS, predictions_csv(answers, report.method))
    write_atomically(folder / METRICS, json.dumps(report.as_dict(), indent=2).encode())
    file = save(
        folder / PROMPT,
        model,
        trained_on={
            "examples": report.train_n,
            "seed": report.seed,
            "recipe": asdict(report.recipe),
        },
        scores={
            "test_accuracy": report.test_accuracy,
            "test_n": report.test_n,
            "val_accuracy": report.val_accuracy,
            "val_n": report.val_n,
            "baselines": report.baselines,
            "verdict": report.verdict,
        },
    )
    (folder / CHECKPOINT).unlink(missing_ok=True)
    return file
