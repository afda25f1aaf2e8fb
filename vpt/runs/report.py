"""What `vpt.adapt` reports and writes: how good the prompt is, beside its baselines, and the run's
folder.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from vpt.data import Data, Examples
from vpt.files import save, write_atomically
from vpt.files.naming import PROMPT
from vpt.model import PromptedModel
from vpt.readouts import LabelMap
from vpt.report import pictures
from vpt.runs.baselines import Baselines
from vpt.runs.briefing import data_facts
from vpt.runs.folder import draw_pixels, trained
from vpt.sites import Config
from vpt.training.checkpoints import CHECKPOINT
from vpt.training.evaluation import evaluate
from vpt.training.folders import METRICS
from vpt.training.loop import History
from vpt.training.recipe import Recipe

CURVES = "curves.png"

LabelMapping = dict[str, list[tuple[str, float]]]  # class → (source class, weight), the largest


@dataclass(frozen=True)
class AdaptReport:
    """The numbers of a run, and what they rest on.

    test_accuracy: None where there is no test data, as `test_per_class`.
    test_n: examples that were tested; `val_n` and `train_n` likewise.
    baselines: name → accuracies on "val" and "test"; of the linear probe its C, too.
    verdict: whether the prompt was worth it, a sentence.
    prompt: what it does, in words.
    parameters_trained: by part, "prompt" and "readout".
    backbone: its identity.
    classes: by name, in the order of the logits; None where they are only numbered.
    label_map: of a `LabelMap`, which source classes stand for each class.
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
    """

    test_accuracy: float | None
    test_n: int
    test_per_class: dict[str, float] | None
    val_accuracy: float
    val_n: int
    train_n: int
    baselines: dict[str, dict[str, float]]
    verdict: str
    prompt: str
    parameters_trained: dict[str, int]
    backbone: Config
    classes: list[str] | None
    label_map: LabelMapping | None
    seed: int
    recipe: Recipe
    best_epoch: int
    rate_cuts: int
    skipped: list[tuple[str, str]]
    data: Config
    inputs: str
    seconds: float
    command: str | None
    chosen: Config | None = None
    out_of_fold: Config | None = None

    def as_dict(self) -> Config:
        """All of it in plain values, by the names above, as metrics.json has it."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return values | {"recipe": asdict(self.recipe)}


def report_of(
    model: PromptedModel,
    data: Data,
    baselines: Baselines,
    history: History,
    recipe: Recipe,
    started: float,
    command: str | None,
) -> AdaptReport:
    """The report of a run that is done; the model is evaluated for it.

    model: with what it learned.
    data: from which it learned.
    baselines: on the same data.
    history: of the training.
    recipe: by which it was trained.
    started: when the run began, by `time.monotonic()`.
    command: the command line that began it, if one did.
    """
    val = evaluate(model, data.val)
    test = evaluate(model, data.test) if data.test is not None else None
    readout = model.readout
    return AdaptReport(
        test_accuracy=test["accuracy"] if test else None,
        test_n=test["n"] if test else 0,
        test_per_class=test["per_class"] if test else None,
        val_accuracy=val["accuracy"],
        val_n=val["n"],
        train_n=len(data.train),
        baselines={
            "nearest_mean": baselines.nearest_mean,
            "linear_probe": baselines.linear_probe | {"C": baselines.strength},
        },
        verdict=_verdict(val["accuracy"], baselines.linear_probe["val"], val["n"], history.best),
        prompt=model.prompt.describe(),
        parameters_trained=trained(model),
        backbone=model.backbone.identity,
        classes=model.classes,
        label_map=readout.mapping() if isinstance(readout, LabelMap) else None,
        seed=recipe.seed,
        recipe=recipe,
        best_epoch=history.best,
        rate_cuts=history.cuts,
        skipped=data.skipped,
        data=data_facts(data),
        inputs=str(model.backbone.inputs),
        seconds=round(time.monotonic() - started, 1),
        command=command,
    )


def _verdict(prompt: float, probe: float, n: int, best: int) -> str:
    """Whether the prompt was worth it, by accuracies on n validation examples and the epoch that
    was kept.
    """
    if prompt > probe:
        worth = "the prompt is better than the linear probe on validation"
    elif prompt == probe:
        worth = "the linear probe alone was as good on validation"
    else:
        worth = "the linear probe alone was better on validation"
    kept = ""
    if best == 0:
        kept = "; training never had less loss there than its start, which is kept"
    return f"{worth} ({prompt:.1%} against {probe:.1%} of {n}){kept}"


def write_run(
    folder: Path,
    model: PromptedModel,
    report: AdaptReport,
    rows: Sequence[Mapping[str, float]],
    val: Examples,
) -> Path:
    """A run's folder: pictures first, then metrics, then the prompt file, whose path is returned;
    the checkpoint goes last.

    rows: of the run's history. val: examples to show under a pixel prompt.
    """
    baselines = {name.replace("_", " "): values["val"] for name, values in report.baselines.items()}
    if rows:
        png = pictures.curves(rows, report.best_epoch, baselines, report.prompt)
        write_atomically(folder / CURVES, png)
    draw_pixels(model, val, folder)
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
