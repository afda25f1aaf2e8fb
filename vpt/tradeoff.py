"""The trade-off between accuracy and fairness: one prompt for each strength, and a rule that chooses on validation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fairlearn.postprocessing import ThresholdOptimizer
from sklearn.base import BaseEstimator, ClassifierMixin
from torch import Tensor

from vpt.data import Examples
from vpt.errors import DataError, DivergedError, TrainingError
from vpt.evaluation import matched, scores
from vpt.files import learned, restore
from vpt.group_metrics import audit
from vpt.model import PromptedModel
from vpt.objectives import FairReprogram, GapPenalty, Objective, WorstGroup
from vpt.recipes import Recipe, updated
from vpt.training import fit

# how a model is made fairer: name → the objective for a criterion and a strength, and the strengths that are tried
METHODS: dict[str, tuple[Callable[[str, float], Objective], tuple[float, ...]]] = {
    "penalty": (lambda criterion, strength: GapPenalty(strength, criterion), (0.3, 1.0, 3.0, 10.0, 30.0)),
    "adversary": (lambda criterion, strength: FairReprogram(strength, criterion), (0.02, 0.05, 0.1, 0.2, 0.5)),
    "worst": (lambda criterion, strength: WorstGroup(strength), (0.0, 0.01, 0.03, 0.1, 0.3)),
}
GAP = {"eo": "average_odds_difference", "dp": "demographic_parity_difference"}  # by which a point is chosen
ABOVE_CHANCE = 0.1  # of group-balanced accuracy; with less, a model knows the group alone


@dataclass
class Point:
    """A strength (None: no prompt; 0: a prompt for accuracy alone), what it gives, and what was learned."""

    strength: float | None
    val: dict[str, Any]
    test: dict[str, Any] | None
    learned: dict[str, Tensor] | None = None
    note: str = ""

    def value(self, name: str, part: str = "val") -> float:
        """One of the metrics; NaN where it could not be said."""
        found = getattr(self, part)["metrics"][name]["value"]
        return float("nan") if found is None else found


@dataclass
class Frontier:
    """The bare model, every point that was tried, which was chosen by what rule, and post-processing beside them."""

    base: Point
    points: list[Point]
    chosen: Point
    rule: str
    criterion: str
    thresholds: Point | None


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
    out: str | Path | None = None,
    resume: bool = False,
    progress: bool = True,
    say: Callable[[str], None] = lambda text: None,
    **settings: Any,
) -> Frontier:
    """Train the model's prompt once for accuracy alone, and from there once for each strength; then choose on validation.

    train, val, test: examples with groups. method: "penalty" (`GapPenalty`), "adversary" (`FairReprogram`) or "worst"
    (`WorstGroup`). criterion: "eo" (equalized odds) or "dp" (demographic parity). Of the points within `budget` of the bare
    model's accuracy (in [0,1]) the fairest is chosen, or with `bound` the most accurate among those whose gap is at most that;
    the gap is the average odds difference, or the demographic parity difference. Larger strengths are not tried once a model has
    lost all but the most frequent answer. The model then holds the chosen prompt. out: a folder for checkpoints. settings: of
    `Recipe`. Raises `TrainingError`, `DataError`.
    """
    if method not in METHODS or criterion not in GAP:
        raise TrainingError(f"Found method={method!r}, criterion={criterion!r}; needed is one of {', '.join(METHODS)}, and "
                            "'eo' or 'dp'.")  # fmt: skip
    make, usual = METHODS[method]
    recipe = updated(recipe or Recipe(), **settings)
    parts = {"val": _grouped(model, val, "validation")} | ({"test": _grouped(model, test, "test")} if test is not None else {})
    judge = _Judge(model, parts, positive)
    folder = Path(out) if out is not None else None
    objectives = [(s, make(criterion, s)) for s in sorted(strengths if strengths is not None else usual)]
    for _, objective in objectives:  # so that a misfit is said before anything is trained
        examples = matched(model, train)
        objective.bind(examples.targets, examples.grouped, examples.classes, examples.group_names)
    with model.prompts_off():
        base = judge(None)
    run: dict[str, Any] = {"recipe": recipe, "resume": resume, "progress": progress}
    say("accuracy alone")
    fit(model, train, val, out=folder / "strength-0" if folder else None, **run)
    points, start = [judge(0.0)], points_state(model)
    for strength, objective in objectives:
        say(f"strength {strength:g}")
        restore(model, start)
        try:
            fit(model, train, val, objective=objective, out=folder / f"strength-{strength:g}" if folder else None, **run)
        except DivergedError as error:
            say(f"strength {strength:g} diverged, and larger ones are not tried: {error}")
            break
        points.append(judge(strength))
        if points[-1].note:
            say(f"strength {strength:g}: {points[-1].note}; larger ones are not tried")
            break
    chosen, rule = choose(base, points, GAP[criterion], budget, bound)
    restore(model, chosen.learned or start)
    return Frontier(base, points, chosen, rule, criterion, _thresholds(model, train, parts, criterion, positive))


def points_state(model: PromptedModel) -> dict[str, Tensor]:
    """A copy of all that the model learned."""
    return {name: value.detach().cpu().clone() for name, value in learned(model).items()}


def choose(base: Point, points: Sequence[Point], gap: str, budget: float, bound: float | None) -> tuple[Point, str]:
    """(The point that a rule picks on validation, the rule in words).

    With a bound: the most accurate of those whose gap is at most that. Otherwise the fairest of those that are at most `budget`
    less accurate than the bare model. Where there is none, the one that misses by least.
    """
    usable = [p for p in points if not p.note] or list(points)
    if bound is not None:
        fit_for = [p for p in usable if p.value(gap) <= bound]
        rule = f"the most accurate with {gap.replace('_', ' ')} of at most {bound:g} on validation"
        if fit_for:
            return max(fit_for, key=lambda p: p.value("accuracy")), rule
        return min(usable, key=lambda p: _or_worst(p.value(gap))), f"the fairest, since none is {rule}"
    least = base.value("accuracy") - budget
    fit_for = [p for p in usable if p.value("accuracy") >= least - 1e-9]
    rule = f"the least {gap.replace('_', ' ')} within {budget:.1%} of the bare model's accuracy on validation"
    if fit_for:
        return min(fit_for, key=lambda p: _or_worst(p.value(gap))), rule
    return max(usable, key=lambda p: p.value("accuracy")), f"the most accurate, since none has {rule}"


def _or_worst(value: float) -> float:
    return float("inf") if np.isnan(value) else value


class _Judge:
    """Audits the model as it is on validation and test."""

    def __init__(self, model: PromptedModel, parts: dict[str, Examples], positive: str | None) -> None:
        self.model, self.parts, self.positive = model, parts, positive

    def __call__(self, strength: float | None) -> Point:
        found = {name: audit_model(self.model, part, self.positive) for name, part in self.parts.items()}
        state = points_state(self.model) if strength is not None else None
        return Point(strength, found["val"], found.get("test"), state, _collapsed(found["val"]))


def audit_model(model: PromptedModel, examples: Examples, positive: str | None = None, progress: bool = False) -> dict[str, Any]:
    """`vpt.group_metrics.audit` of the model's decisions on labelled examples with groups. Raises `DataError`."""
    examples = _grouped(model, examples, "audited")
    logits, y = scores(model, examples, progress=progress)
    names = examples.group_names or []
    return audit(y.tolist(), logits.argmax(1).tolist(), examples.grouped or [], examples.classes, names, positive=positive)


def shortcut_only(found: dict[str, Any], chance: float) -> str:
    """A warning where an audit shows a model that knows the group alone, which no prompt can mend; else nothing."""
    metrics = found["metrics"]
    balanced, accuracy = metrics["balanced_accuracy"]["value"], metrics["accuracy"]["value"]
    if balanced is None or balanced >= chance + ABOVE_CHANCE or accuracy < chance + ABOVE_CHANCE:
        return ""
    return (f"accuracy is {accuracy:.1%}, but {balanced:.1%} once label and group are balanced, near chance ({chance:.1%}): this "
            "model seems to know the group only, and a prompt cannot bring out what is not in it")  # fmt: skip


def _collapsed(found: dict[str, Any]) -> str:
    """What happened where a model no longer tells the classes apart; else nothing."""
    cells = found["cells"]
    return "it hardly tells the classes apart any more" if (
        found["metrics"]["balanced_accuracy"]["value"] < 1 / len(cells) + ABOVE_CHANCE / 2
    ) else ""  # fmt: skip


def _grouped(model: PromptedModel, examples: Examples, what: str) -> Examples:
    """With labels matched, and a group for every example. Raises `DataError`."""
    examples = matched(model, examples)
    groups = examples.grouped
    if groups is None:
        raise DataError(f"The {what} examples have no groups; needed is a group column in the CSV (--group), or items of "
                        "(input, label, group).")  # fmt: skip
    missing = [examples.name(i) for i, g in enumerate(groups) if g < 0]
    if missing:
        raise DataError(f"{len(missing)} of {len(groups)} {what} examples have no group: {', '.join(missing[:5])}.")
    return examples


# post-processing, for comparison --------------------------------------------------------------------------------------
class _Scores(ClassifierMixin, BaseEstimator):
    """A "classifier" whose input is the frozen model's own probability."""

    def fit(self, x: Any, y: Any) -> _Scores:
        self.classes_ = np.unique(y)
        return self

    def predict_proba(self, x: Any) -> np.ndarray:
        p = np.asarray(x, float)[:, 0]
        return np.stack([1 - p, p], 1)


def _thresholds(
    model: PromptedModel, train: Examples, parts: dict[str, Examples], criterion: str, positive: str | None
) -> Point | None:
    """fairlearn's `ThresholdOptimizer` (Hardt et al. 2016) on the bare model: a threshold per group, known when predicting."""
    examples = matched(model, train)
    if len(examples.classes) != 2:
        return None
    one = examples.classes.index(positive) if positive is not None else 1
    constraint = {"eo": "equalized_odds", "dp": "demographic_parity"}[criterion]
    with model.prompts_off():
        found = {name: scores(model, part) for name, part in ({"train": examples} | parts).items()}
    x = {name: logits.softmax(1)[:, [one]].double().numpy() for name, (logits, _) in found.items()}
    y = {name: (labels == one).long().numpy() for name, (_, labels) in found.items()}
    of = {"train": examples.grouped or []} | {name: part.grouped or [] for name, part in parts.items()}
    if any(set(own) - set(of["train"]) for own in of.values()):
        return None  # a group without a threshold
    optimizer = ThresholdOptimizer(estimator=_Scores().fit(x["train"], y["train"]), constraints=constraint, prefit=True,
                                   predict_method="predict_proba")  # fmt: skip
    try:
        optimizer.fit(x["train"], y["train"], sensitive_features=of["train"])
    except ValueError:  # a group in which one label does not occur
        return None
    point: dict[str, Any] = {}
    for name, part in parts.items():
        said = optimizer.predict(x[name], sensitive_features=of[name], random_state=0)
        decided = torch.where(torch.as_tensor(said) == 1, one, 1 - one).tolist()
        point[name] = audit(part.targets, decided, of[name], part.classes, part.group_names or [], positive=positive)
    return Point(None, point["val"], point.get("test"), None, "needs the group when predicting")
