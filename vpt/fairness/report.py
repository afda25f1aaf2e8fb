"""The numbers and the files of a reprogrammed model."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np

from vpt.data import Data, Examples
from vpt.fairness.auditing import cell_counts
from vpt.fairness.choosing import Point
from vpt.fairness.outcome import Frontier
from vpt.files import restore, save, write_atomically
from vpt.files.naming import PROMPT
from vpt.metrics.audit import Interval
from vpt.model import PromptedModel
from vpt.readouts import Identity
from vpt.report import pictures
from vpt.runs.briefing import data_facts
from vpt.runs.folder import draw_pixels, trained
from vpt.sites import Config
from vpt.training.folders import METRICS
from vpt.training.recipe import Recipe

POINTS = "points"
BARS = "groups.png"
TRADEOFF = "frontier.png"


@dataclass(frozen=True)
class Report:
    """What a run made of a model: the verdict, the bare model, every point, the choice, and with
    which settings.

    recommendation: "use", "keep the model" or "cannot tell"; why: by which numbers. changes, soft:
        the choice less the bare model, in pairs, on the examples that chose, of decisions and of
        mean probabilities.
    forms: that were compared, each with its choice; none where one was asked for.
    chosen: the name of the point. gap: the metric by which it was chosen. parameters_trained: by
    part. train_n: training examples. skipped: files that could not be used, with the reason. data:
    what is known of the data. seconds: that it took. command: by which it was begun, if by one.
    """

    recommendation: str
    why: str
    changes: dict[str, Interval]
    soft: dict[str, Interval]
    verdict: str
    rule: str
    chosen: str
    criterion: str
    gap: str
    notes: list[str]
    base: Point
    points: list[Point]
    thresholds: Point | None
    forms: list[Config]
    prompt: str
    parameters_trained: dict[str, int]
    backbone: Config
    classes: list[str] | None
    method: str
    budget: float
    bound: float | None
    seed: int
    recipe: Recipe
    train_n: int
    skipped: list[tuple[str, str]]
    data: Config
    seconds: float
    command: str | None

    def as_dict(self) -> Config:
        """All of it in plain values, by the names above."""
        return {part.name: _plain(getattr(self, part.name)) for part in fields(self)}


def _plain(value: object) -> object:
    if isinstance(value, Point):
        return value.as_dict()
    if isinstance(value, list):
        return [_plain(one) for one in value]
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    return asdict(value) if isinstance(value, (Recipe, Interval)) else value


def report_of(
    model: PromptedModel,
    frontier: Frontier,
    data: Data,
    recipe: Recipe,
    *,
    method: str,
    budget: float,
    bound: float | None,
    seconds: float,
    command: str | None,
) -> Report:
    """All that is said of a run.

    model: with the chosen prompt.
    frontier: the trade-off.
    data: on which it was learned.
    recipe: by which.
    method, budget, bound: as for `vpt.frontier`.
    seconds: that it took.
    command: by which it was begun, if by one.
    """
    return Report(
        recommendation=frontier.judged.recommendation,
        why=frontier.judged.why,
        changes=frontier.judged.changes,
        soft=frontier.judged.soft,
        verdict=_verdict(frontier),
        rule=frontier.rule,
        chosen=frontier.chosen.name,
        criterion=frontier.criterion,
        gap=frontier.gap,
        notes=frontier.notes,
        base=frontier.base,
        points=frontier.points,
        thresholds=frontier.thresholds,
        forms=[_compared(frontier, *one) for one in frontier.forms],
        prompt=_prompt(model),
        parameters_trained=trained(model),
        backbone=model.backbone.identity,
        classes=model.classes,
        method=method,
        budget=budget,
        bound=bound,
        seed=recipe.seed,
        recipe=recipe,
        train_n=_tuned(frontier, data),
        skipped=data.skipped,
        data=data_facts(data),
        seconds=seconds,
        command=command,
    )


def _compared(frontier: Frontier, form: str, chosen: Point, recommendation: str) -> Config:
    """A form that was compared with others: its choice, out of fold and on test."""
    names = ("accuracy", "balanced_accuracy", "worst_group_accuracy", frontier.gap)
    parts = ("val", "test") if chosen.test is not None else ("val",)
    return {
        "form": form,
        "taken": form == frontier.form,
        "strength": chosen.strength,
        "recommendation": recommendation,
    } | {part: {name: chosen.value(name, part) for name in names} for part in parts}


def _tuned(frontier: Frontier, data: Data) -> int:
    """How many examples were learned from: with prompt="auto" those that choose, too."""
    return frontier.base.val.n if frontier.out_of_fold else len(data.train)


def _prompt(model: PromptedModel) -> str:
    """What was learned, in a line."""
    if model.prompt.sites() or isinstance(model.readout, Identity):
        return model.prompt.describe()
    return (
        f"no prompt: the model's own scores, corrected on its features {model.readout.named.text}"
    )


def _verdict(frontier: Frontier) -> str:
    """Gap, worst group and accuracy, without the prompt and with the chosen one."""
    (part, words), gap = frontier.shown, frontier.gap
    before, after = frontier.base.on(part), frontier.chosen.on(part)
    gaps = f"{before.value(gap):.3f} → {after.value(gap):.3f}"
    if np.isnan(before.value(gap)):
        gaps = f"not defined ({cell_counts(before)})"

    def percent(metric: str) -> str:
        return f"{100 * before.value(metric):.1f} → {100 * after.value(metric):.1f} %"

    return (
        f"on {words}, {gap.replace('_', ' ')} {gaps},"
        f" worst group {percent('worst_group_accuracy')}, accuracy {percent('accuracy')}"
    )


def write(
    folder: Path, model: PromptedModel, frontier: Frontier, report: Report, val: Examples
) -> Path:
    """Pictures first, then every point's prompt file, the numbers, and last the chosen prompt,
    whose path is returned. val: of which pictures are drawn.
    """
    part, words = frontier.shown
    base, chosen = frontier.base, frontier.chosen
    before, after = base.on(part), chosen.on(part)
    title = f"{report.prompt}; {chosen.called}, on {before.n} {words} examples"
    bars = pictures.group_bars(before.as_dict(), after.as_dict(), title)
    write_atomically(folder / BARS, bars)
    write_atomically(folder / TRADEOFF, frontier.picture(report.prompt))
    draw_pixels(model, val, folder)
    (folder / POINTS).mkdir(exist_ok=True)
    trained_on: Config = {
        "examples": report.train_n,
        "seed": report.seed,
    }
    if not frontier.out_of_fold:  # which trains by no recipe
        trained_on["recipe"] = asdict(report.recipe)

    def saved(place: Path, point: Point) -> Path:
        restore(model, point.learned or {})
        return save(place, model, scores=_metrics(point), trained_on=trained_on)

    for point in frontier.points:
        saved(folder / POINTS / f"{point.name}.vpt", point)
    write_atomically(folder / METRICS, json.dumps(report.as_dict(), indent=1).encode())
    file = saved(folder / PROMPT, chosen)
    for checkpoint in (folder / POINTS).iterdir():
        if checkpoint.is_dir():
            shutil.rmtree(checkpoint)
    return file


def _metrics(point: Point) -> Config:
    """The numbers that travel with a prompt file, by part."""
    parts = {"val": point.val, "test": point.test}
    return {name: found.as_dict()["metrics"] for name, found in parts.items() if found is not None}
