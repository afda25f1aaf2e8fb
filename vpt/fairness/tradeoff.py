"""The trade-off between accuracy and fairness: one prompt for each strength, and a rule that
chooses on validation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from torch import Tensor

from vpt.data import CALLED, Examples
from vpt.data.examples import same_groups
from vpt.errors import DataError, DivergedError
from vpt.fairness.auditing import audit_decisions, cell_counts, collapse, suspicion
from vpt.fairness.choosing import GAP, Point
from vpt.fairness.outcome import Frontier
from vpt.fairness.strengths import objectives
from vpt.fairness.thresholds import group_thresholds
from vpt.files import learned_copy, restore
from vpt.model import PromptedModel
from vpt.objectives import Objective
from vpt.training.evaluation import grouped, scores
from vpt.training.loop import fit, refuse_few_epochs
from vpt.training.recipe import Recipe, updated

ALONE = "alone"  # the name of the prompt that was trained for accuracy alone


def frontier(
    model: PromptedModel,
    train: Examples,
    val: Examples,
    test: Examples | None = None,
    *,
    method: str = "penalty",
    criterion: str = "eo",
    strengths: Sequence[float] | None = None,
    budget: float = 0.01,
    bound: float | None = None,
    positive: str | None = None,
    recipe: Recipe | None = None,
    last_epoch: bool = False,
    out: str | Path | None = None,
    resume: bool = False,
    progress: bool = True,
    say: Callable[[str], None] = lambda text: None,
    **settings: object,
) -> Frontier:
    """Train the model's prompt once for accuracy alone, and from there once for each strength; then
    choose on validation.

    Of the points within `budget` of the bare model's accuracy the fairest is chosen, or with
    `bound` the most accurate among those whose gap is at most that; the gap is the average odds
    difference, or the demographic parity difference. Larger strengths are not tried once a model
    hardly tells the classes apart. The model then holds the chosen prompt. Raises `TrainingError`,
    `DataError`, before anything is trained.

    model: whose prompt is trained.
    train: examples with groups.
    val: others, by which a point is chosen.
    test: others, on which it is reported; None for none.
    method: "penalty" (`GapPenalty`), "adversary" (`FairReprogram`), "worst" (`WorstGroup`, which
        has no criterion), or another of `vpt.objectives.METHODS`.
    criterion: "eo" (equalized odds) or "dp" (demographic parity).
    strengths: those that are tried; the method's own by default.
    budget: accuracy that may be lost, in [0,1).
    bound: the gap that is allowed, in [0,1); None goes by the budget.
    positive: of two classes, the one whose rates count; the second by default.
    recipe: how to train; `Recipe()` by default.
    last_epoch: keep what the last epoch learned; otherwise, of the training for accuracy alone,
        what has the least loss on `val`.
    out: a folder for checkpoints.
    resume: go on where a run in this folder was stopped.
    progress: whether to show how far it is.
    say: is told what is done.
    settings: fields of the recipe, put over it.
    """
    tried = objectives(method, criterion, strengths, budget, bound)
    recipe, gap = updated(recipe or Recipe(), **settings), GAP[criterion]
    given = {"train": train, "val": val} | ({"test": test} if test is not None else {})
    parts = same_groups({name: grouped(model, part, CALLED[name]) for name, part in given.items()})
    learned_from = parts["train"]
    first = tried[0][1]  # the others differ in strength only
    refuse_few_epochs(first, recipe)
    first.bind(
        learned_from.targets,
        learned_from.grouped,
        learned_from.classes,
        learned_from.group_names,
    )
    held = {name: part for name, part in parts.items() if name != "train"}
    with model.prompts_off():
        bare = {name: scores(model, part)[0] for name, part in parts.items()}
    base = point_at("bare model", None, {n: bare[n] for n in held}, held, positive)
    thresholds = group_thresholds(bare, parts, criterion, positive)
    refuse_undefined(base, gap, f"{len(val)} validation", ", or a larger share")
    notes = [note for note in (suspicion(base.val),) if note]
    if model.readout.reads != "logits":
        notes.append("'bare model' is the new readout as it begins, not the model's own classes")
    for note in notes:
        say(f"Careful: {note}")
    watched = None if last_epoch else parts["val"]
    learn = partial(fit, model, parts["train"], watched, recipe=recipe, resume=resume)
    folder = Path(out) if out is not None else None

    def train_to(strength: float | None, objective: Objective | None) -> Point:
        name = ALONE if strength is None else repr(strength)
        say("accuracy alone" if strength is None else f"strength {strength:g}")
        place = folder / name if folder is not None else None
        history = learn(objective=objective, out=place, progress=progress)
        said = {key: scores(model, part)[0] for key, part in held.items()}
        point = point_at(name, strength, said, held, positive)
        point.learned, point.rows = learned_copy(model), history.rows
        return point

    points = [train_to(None, None)]
    start = points[0].learned or {}
    for strength, objective in tried:
        restore(model, start)
        try:
            points.append(train_to(strength, objective))
            broken = points[-1].note
        except DivergedError:
            broken = "it diverged"
        if broken:
            more = ", and larger ones were not tried" if strength != tried[-1][0] else ""
            notes.append(f"strength {strength:g}: {broken}{more}")
            say(notes[-1])
            break
    found = Frontier.settled(
        base,
        points,
        held["val"],
        notes,
        thresholds,
        criterion=criterion,
        budget=budget,
        bound=bound,
        positive=positive,
        seed=recipe.seed,
    )
    restore(model, found.chosen.learned or start)
    return found


def refuse_undefined(base: Point, gap: str, which: str, instead: str = "") -> None:
    """Raise `DataError` where the gap is not defined.

    base: the bare model.
    gap: the metric.
    which: examples, in words. instead: what else may help.
    """
    if np.isnan(base.value(gap)):
        raise DataError(
            f"The {gap.replace('_', ' ')} is not defined on the {which} examples:"
            f" {cell_counts(base.val)}. Give it examples of every label in two groups at"
            f" least{instead}."
        )


def point_at(
    name: str,
    strength: float | None,
    said: dict[str, Tensor],
    parts: dict[str, Examples],
    positive: str | None,
) -> Point:
    """A point by its scores on "val", and on "test" where there are such examples."""
    audits = {
        key: audit_decisions(parts[key], scored.argmax(1), positive) for key, scored in said.items()
    }
    note = collapse(audits["val"]) if name != "bare model" else ""
    return Point(name, strength, audits["val"], audits.get("test"), note=note, scores=said)
