"""A trade-off of trained prompts in which every example that is not for testing chooses: each is
held out once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vpt.data import CALLED, Examples
from vpt.data.examples import same_groups
from vpt.data.joining import appended
from vpt.errors import DataError
from vpt.fairness.auditing import few_in_cells, suspicion
from vpt.fairness.choosing import Point
from vpt.fairness.mending import folds_by_cell
from vpt.fairness.outcome import Frontier
from vpt.fairness.tradeoff import frontier, point_at
from vpt.files import learned_copy, restore
from vpt.model import PromptedModel
from vpt.runs.probe import Folds
from vpt.training.evaluation import grouped
from vpt.training.recipe import Recipe


def crossed(
    model: PromptedModel,
    train: Examples,
    val: Examples,
    test: Examples | None,
    folds: int,
    *,
    begin: Callable[[Examples], None] | None = None,
    method: str = "penalty",
    criterion: str = "eo",
    strengths: Sequence[float] | None = None,
    budget: float = 0.01,
    bound: float | None = None,
    positive: str | None = None,
    recipe: Recipe | None = None,
    progress: bool = True,
    say: Callable[[str], None] = lambda text: None,
    **how: Any,
) -> Frontier:
    """As `frontier`, but the model learns anew for each fold, and "val" is what was said of train
    and val together, out of fold; then it learns from all of them. It takes folds + 1 times as
    long.

    model: as it begins.
    train, val, test: as for `frontier`.
    folds: how many; each label × group cell is spread over them.
    begin: is given what a fold learns from, before it learns.
    the rest: as for `frontier`.

    Raises `TrainingError`, `DataError`.
    """
    recipe = recipe or Recipe()
    given = {"train": train, "val": val} | ({"test": test} if test is not None else {})
    parts = same_groups({name: grouped(model, part, CALLED[name]) for name, part in given.items()})
    tuned = appended(parts["train"], parts["val"])
    shown = {"val": tuned} | ({"test": parts["test"]} if test is not None else {})
    same: dict[str, Any] = {
        "method": method,
        "criterion": criterion,
        "strengths": strengths,
        "budget": budget,
        "bound": bound,
        "positive": positive,
        "recipe": recipe,
        "progress": progress,
        "last_epoch": True,  # what is held out is to choose nothing else
    }
    start = learned_copy(model)
    y, group = np.array(tuned.targets), np.array(tuned.grouped)
    split = folds_by_cell(y, group, tuned.together, recipe.seed, folds)
    _refuse_empty_cells(split, y, group, tuned)
    said, met = _held_out(model, start, tuned, split, begin, same, say)
    say("all of them")
    restore(model, start)
    if begin is not None:
        begin(tuned)
    whole = frontier(model, tuned, tuned, parts.get("test"), **same, say=say, **how)

    def out_of_fold(point: Point) -> Point:
        scores = point.scores | {"val": said[point.name]}
        found = point_at(point.name, point.strength, scores, shown, positive)
        return replace(found, learned=point.learned, rows=point.rows, note=found.note or point.note)

    base = out_of_fold(whole.base)
    # one that broke in a fold is not tried
    points = [out_of_fold(point) for point in whole.points if met.get(point.name) == len(split)]
    notes = [note for note in (suspicion(base.val), few_in_cells(base.val)) if note]
    notes += [note for note in whole.notes if note.startswith(("strength", "'bare model'"))]
    broken = [point.called for point in whole.points if met.get(point.name) != len(split)]
    notes += [f"{name} broke in a fold, and was not tried" for name in broken]
    found = Frontier.settled(
        base,
        points,
        tuned,
        notes,
        whole.thresholds,
        criterion=criterion,
        budget=budget,
        bound=bound,
        positive=positive,
        seed=recipe.seed,
        out_of_fold=True,
    )
    restore(model, found.chosen.learned or start)
    return found


def _held_out(
    model: PromptedModel,
    start: dict[str, Tensor],
    tuned: Examples,
    split: Folds,
    begin: Callable[[Examples], None] | None,
    same: dict[str, Any],
    say: Callable[[str], None],
) -> tuple[dict[str, Tensor], dict[str, int]]:
    """(By point the scores `[n,C]` of examples that were not learned from; in how many folds it was
    tried).

    model: that begins at `start` in each fold. tuned: examples. split: the folds. begin, say: as
    for `crossed`. same: for `frontier`.
    """
    said: dict[str, Tensor] = {}
    met: dict[str, int] = {}
    for number, (kept, held) in enumerate(split, 1):
        say(f"fold {number} of {len(split)}")
        restore(model, start)
        learned_from = tuned.subset(kept.tolist())
        if begin is not None:
            begin(learned_from)
        found = frontier(model, learned_from, tuned.subset(held.tolist()), **same)
        for point in (found.base, *found.points):
            scores = point.scores["val"]
            out = said.setdefault(point.name, torch.zeros(len(tuned), scores.shape[1]))
            out[torch.from_numpy(held)] = scores
            met[point.name] = met.get(point.name, 0) + 1
    return said, met


def _refuse_empty_cells(split: Folds, y: np.ndarray, group: np.ndarray, tuned: Examples) -> None:
    """Raise `DataError`, before hours are spent, where a fold holds nothing of a label × group cell
    out.
    """
    cells = set(zip(y.tolist(), group.tolist(), strict=True))
    names = tuned.group_names or []
    for _, held in split:
        missing = cells - set(zip(y[held].tolist(), group[held].tolist(), strict=True))
        if missing:
            label, of = min(missing)
            count = int(((y == label) & (group == of)).sum())
            raise DataError(
                f"Found {count} examples of {tuned.classes[label]}, {names[of]}; needed is one at"
                f" least in each of {len(split)} folds (of each person, say, that belongs to them)."
                " Take fewer folds (--folds 2), give more of these, or let a share of the examples"
                " choose (--folds 0)."
            )
