"""The trade-off between accuracy and fairness: one prompt for each strength, and a rule that
chooses on validation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fairlearn.postprocessing import ThresholdOptimizer
from sklearn.base import BaseEstimator, ClassifierMixin
from torch import Tensor

from vpt.data import CALLED, Examples
from vpt.data.examples import same_groups
from vpt.errors import DataError, DivergedError, TrainingError
from vpt.files import learned_copy, restore
from vpt.metrics.groups import TITLES, audit
from vpt.model import PromptedModel
from vpt.objectives import FairReprogram, GapPenalty, Objective, WorstGroup
from vpt.objectives.fairness import CRITERIA
from vpt.training.evaluation import grouped, scores
from vpt.training.loop import fit
from vpt.training.recipe import Recipe, updated

# how a model is made fairer: name → the objective for a criterion and a strength, and the strengths
# that are tried
METHODS: dict[str, tuple[Callable[[str, float], Objective], tuple[float, ...]]] = {
    "penalty": (
        lambda criterion, strength: GapPenalty(strength, criterion),
        (0.3, 1.0, 3.0, 10.0, 30.0),
    ),
    "adversary": (
        lambda criterion, strength: FairReprogram(strength, criterion),
        (0.02, 0.05, 0.1, 0.2, 0.5),
    ),
    "worst": (lambda criterion, strength: WorstGroup(strength), (0.0, 0.01, 0.03, 0.1, 0.3)),
}
ALONE = "alone"  # the name of the prompt that was trained for accuracy alone
# by which a point is chosen
GAP = {"eo": "average_odds_difference", "dp": "demographic_parity_difference"}
ABOVE_CHANCE = 0.1  # of group-balanced accuracy; with less, a model knows the group alone


@dataclass
class Point:
    """What a strength gives, by name, and what was learned. test: None where there are no test
    examples.

    strength: None for the bare model and for accuracy alone. note: why it is not to be used. rows:
        of its training.
    """

    name: str
    strength: float | None
    val: dict[str, Any]
    test: dict[str, Any] | None
    learned: dict[str, Tensor] | None = None
    note: str = ""
    rows: list[dict[str, Any]] = field(default_factory=list)

    @property
    def called(self) -> str:
        """Its name for people."""
        return "accuracy alone" if self.strength is None else f"strength {self.strength:g}"

    def value(self, metric: str, part: str = "val") -> float:
        """One of the metrics; NaN where it could not be said."""
        found = getattr(self, part)["metrics"][metric]["value"]
        return float("nan") if found is None else found


@dataclass
class Frontier:
    """The bare model, every point that was tried, which was chosen by what rule, and
    post-processing beside them.

    notes: what to know before using it: a model that knows the group only, strengths that broke, a
        choice that gains nothing.
    """

    base: Point
    points: list[Point]
    chosen: Point
    rule: str
    criterion: str
    thresholds: Point | None
    notes: list[str]

    @property
    def gap(self) -> str:
        """The metric by which a point is chosen."""
        return GAP[self.criterion]

    @property
    def shown(self) -> tuple[str, str]:
        """(The part that numbers are reported on, in words): test, or validation where there is no
        test.
        """
        return ("test", "test") if self.base.test is not None else ("val", "validation")

    def picture(self, title: str = "") -> bytes:
        """Accuracy against the gap as a PNG: every strength, the choice, the bare model, and
        thresholds by group beside them.
        """
        from vpt.report import pictures

        part, words = self.shown

        def at(point: Point) -> tuple[float, float]:
            return point.value(self.gap, part), point.value("accuracy", part)

        marks = {"bare model": at(self.base)}
        if self.thresholds is not None:
            marks["thresholds by group (needs the group)"] = at(self.thresholds)
        points = [(point.called, *at(point)) for point in self.points]
        on = f"{TITLES[self.gap]}, on {getattr(self.base, part)['n']} {words} examples"
        return pictures.tradeoff(points, marks, self.points.index(self.chosen), on, title)


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
    """Train the model's prompt once for accuracy alone, and from there once for each strength; then
    choose on validation.

    train, val, test: examples with groups. method: "penalty" (`GapPenalty`), "adversary"
        (`FairReprogram`) or "worst" (`WorstGroup`, which has no criterion). criterion: "eo"
        (equalized odds) or "dp" (demographic parity). Of the points within `budget` of the bare
        model's accuracy (in [0,1]) the fairest is chosen, or with `bound` the most accurate among
        those whose gap is at most that; the gap is the average odds difference, or the demographic
        parity difference. Larger strengths are not tried once a model hardly tells the classes
        apart. The model then holds the chosen prompt. out: a folder for checkpoints.
    settings: of `Recipe`. Raises `TrainingError`, `DataError`, before anything is trained.
    """
    tried = objectives(method, criterion, strengths, budget, bound)
    recipe, gap = updated(recipe or Recipe(), **settings), GAP[criterion]
    given = {"train": train, "val": val} | ({"test": test} if test is not None else {})
    parts = same_groups({name: grouped(model, part, CALLED[name]) for name, part in given.items()})
    first = tried[0][1]  # the others differ in strength only
    first.bind(
        parts["train"].targets,
        parts["train"].grouped,
        parts["train"].classes,
        parts["train"].group_names,
    )
    held = {name: part for name, part in parts.items() if name != "train"}
    with model.prompts_off():
        bare = {name: scores(model, part)[0] for name, part in parts.items()}
    found = {name: _audited(part, bare[name].argmax(1), positive) for name, part in held.items()}
    base = Point("bare model", None, found["val"], found.get("test"))
    thresholds = _thresholds(bare, parts, criterion, positive)
    if np.isnan(base.value(gap)):
        raise DataError(
            f"The {gap.replace('_', ' ')} is not defined on the {len(val)} validation examples:"
            f" {_cells(base.val)}. Give it examples of every label in two groups at least, or a"
            " larger share."
        )
    notes = [note for note in (suspicion(base.val),) if note]
    run: dict[str, Any] = {"recipe": recipe, "resume": resume, "progress": progress}
    folder = Path(out) if out is not None else None
    for note in notes:
        say(f"Careful: {note}")

    def trained(name: str, strength: float | None, objective: Objective | None) -> Point:
        say("accuracy alone" if objective is None else f"strength {strength:g}")
        history = fit(
            model,
            parts["train"],
            parts["val"],
            objective=objective,
            out=folder / name if folder else None,
            **run,
        )
        now = {key: audit_model(model, part, positive) for key, part in held.items()}
        return Point(
            name,
            strength,
            now["val"],
            now.get("test"),
            learned_copy(model),
            _collapsed(now["val"]),
            history.rows,
        )

    points = [trained(ALONE, None, None)]
    start = points[0].learned or {}
    for strength, objective in tried:
        restore(model, start)
        try:
            points.append(trained(repr(strength), strength, objective))
            broken = points[-1].note
        except DivergedError:
            broken = "it diverged"
        if broken:
            more = ", and larger ones were not tried" if strength != tried[-1][0] else ""
            notes.append(f"strength {strength:g}: {broken}{more}")
            say(notes[-1])
            break
    chosen, rule = choose(base, points, gap, budget, bound)
    if bound is None and chosen.value("accuracy") < base.value("accuracy") - budget - 1e-9:
        notes.append(
            f"no prompt is within {budget:.1%} of the bare model's accuracy on validation "
            f"({base.value('accuracy'):.1%} → {chosen.value('accuracy'):.1%})"
        )
    if chosen.note or not chosen.value(gap) < base.value(gap):
        why = (
            chosen.note
            or "it is no fairer on validation than the bare model"
            f" ({base.value(gap):.3f} → {chosen.value(gap):.3f})"
        )
        notes.append(
            f"do not use the chosen prompt: {why}. Keep the model as it is, or try more examples,"
            " more epochs or another width"
        )
    restore(model, chosen.learned or start)
    return Frontier(base, points, chosen, rule, criterion, thresholds, notes)


def objectives(
    method: str,
    criterion: str,
    strengths: Sequence[float] | None,
    budget: float,
    bound: float | None,
) -> list[tuple[float, Objective]]:
    """Each strength, rising, with its objective. Raises `TrainingError` for settings that are
    none.
    """
    if method not in METHODS or criterion not in GAP:
        raise TrainingError(
            f"Found method={method!r}, criterion={criterion!r}; needed is one of"
            f" {', '.join(METHODS)}, and 'eo' or 'dp'."
        )
    for name, value in (("budget", budget), ("bound", bound)):
        if value is not None and (
            isinstance(value, bool) or not isinstance(value, Real) or not 0 <= value < 1
        ):
            raise TrainingError(
                f"Found {name}={value!r}; needed is a number in [0, 1), as 0.01 for one point of"
                " 100."
            )
    if strengths is not None and (
        isinstance(strengths, str) or not isinstance(strengths, Sequence)
    ):
        raise TrainingError(f"Found strengths={strengths!r}; needed is a list of numbers.")
    make, usual = METHODS[method]
    wanted = [
        (value, make(criterion, value)) for value in (strengths if strengths is not None else usual)
    ]
    if not wanted or len({value for value, _ in wanted}) < len(wanted):
        raise TrainingError(
            f"Found strengths={list(strengths or [])}; needed are one or more, all different."
        )
    return sorted(
        ((float(value), objective) for value, objective in wanted), key=lambda pair: pair[0]
    )


def _cells(found: dict[str, Any]) -> str:
    return "; ".join(
        f"{label}, {group}: {cell['n']}"
        for label, row in found["cells"].items()
        for group, cell in row.items()
    )


def choose(
    base: Point, points: Sequence[Point], gap: str, budget: float, bound: float | None
) -> tuple[Point, str]:
    """(The point that a rule picks on validation, the rule in words).

    With a bound: the most accurate of those whose gap is at most that. Otherwise the fairest of
    those that are at most `budget` less accurate than the bare model. Where there is none, the one
    that misses by least.
    """
    usable = [p for p in points if not p.note] or list(points)
    if bound is not None:
        fit_for = [p for p in usable if p.value(gap) <= bound]
        rule = f"the most accurate with {gap.replace('_', ' ')} of at most {bound:g} on validation"
        if fit_for:
            return max(fit_for, key=lambda p: p.value("accuracy")), rule
        return (
            min(usable, key=lambda p: _or_worst(p.value(gap))),
            f"the fairest, since none is {rule}",
        )
    least = base.value("accuracy") - budget
    fit_for = [p for p in usable if p.value("accuracy") >= least - 1e-9]
    within = f"within {budget:.1%} of the bare model's accuracy on validation"
    if fit_for:
        return (
            min(fit_for, key=lambda p: _or_worst(p.value(gap))),
            f"the least {gap.replace('_', ' ')} {within}",
        )
    return (
        max(usable, key=lambda p: p.value("accuracy")),
        f"the most accurate, since none is {within}",
    )


def _or_worst(value: float) -> float:
    return float("inf") if np.isnan(value) else value


def audit_model(
    model: PromptedModel, examples: Examples, positive: str | None = None, progress: bool = False
) -> dict[str, Any]:
    """`vpt.metrics.groups.audit` of the model's decisions on labelled examples with groups. Raises
    `DataError`.
    """
    examples = grouped(model, examples, "audited")
    return _audited(examples, scores(model, examples, progress=progress)[0].argmax(1), positive)


def _audited(examples: Examples, decided: Tensor, positive: str | None) -> dict[str, Any]:
    """An audit of decisions `[n]` on examples with groups."""
    groups, names = examples.grouped or [], examples.group_names or []
    return audit(
        examples.targets, decided.tolist(), groups, examples.classes, names, positive=positive
    )


def suspicion(found: dict[str, Any]) -> str:
    """What an audit says against prompting this model at all: it knows the group only, or nothing;
    else an empty text.
    """
    groups = list(dict.fromkeys(name for row in found["cells"].values() for name in row))
    if len(groups) < 2:
        return (
            f"all examples are of one group, {groups[0]!r}, so there is no gap to measure; name"
            " another column"
        )
    chance = 1 / len(found["cells"])
    balanced, accuracy = (
        found["metrics"][name]["value"] for name in ("balanced_accuracy", "accuracy")
    )
    if accuracy <= chance:
        return (
            f"accuracy is {accuracy:.1%}, no better than chance ({chance:.1%}): look at how labels"
            " and classes are matched"
        )
    if balanced >= chance + ABOVE_CHANCE or accuracy < chance + ABOVE_CHANCE:
        return ""
    return (
        f"accuracy is {accuracy:.1%}, but {balanced:.1%} once label and group are balanced, near"
        f" chance ({chance:.1%}): this model seems to know the group only, and a prompt cannot"
        " bring out what is not in it"
    )


def _collapsed(found: dict[str, Any]) -> str:
    """What happened where a model no longer tells the classes apart; else nothing."""
    lost = (
        found["metrics"]["balanced_accuracy"]["value"] < 1 / len(found["cells"]) + ABOVE_CHANCE / 2
    )
    return "it hardly tells the classes apart any more" if lost else ""


# post-processing, for comparison --------------------------------------------------------
class _Scores(ClassifierMixin, BaseEstimator):
    """A "classifier" whose input is the frozen model's own probability."""

    def fit(self, x: Any, y: Any) -> _Scores:
        self.classes_ = np.unique(y)
        return self

    def predict_proba(self, x: Any) -> np.ndarray:
        p = np.asarray(x, float)[:, 0]
        return np.stack([1 - p, p], 1)


def _thresholds(
    logits: dict[str, Tensor], parts: dict[str, Examples], criterion: str, positive: str | None
) -> Point | None:
    """fairlearn's `ThresholdOptimizer` (Hardt et al. 2016) on the scores of each part: thresholds
    by group.
    """
    train = parts["train"]
    if len(train.classes) != 2:
        return None
    one = train.classes.index(positive) if positive is not None else 1
    x = {name: found.softmax(1)[:, [one]].double().numpy() for name, found in logits.items()}
    y = (np.array(train.targets) == one).astype(int)
    of = {name: part.grouped or [] for name, part in parts.items()}
    if any(set(own) - set(of["train"]) for own in of.values()):
        return None  # a group without a threshold
    optimizer = ThresholdOptimizer(
        estimator=_Scores().fit(x["train"], y),
        prefit=True,
        predict_method="predict_proba",
        constraints=CRITERIA[criterion].replace(" ", "_"),
    )
    try:
        optimizer.fit(x["train"], y, sensitive_features=of["train"])
    except ValueError:  # a group in which one label does not occur
        return None
    point: dict[str, Any] = {}
    for name, part in parts.items():
        if name != "train":
            said = torch.as_tensor(
                optimizer.predict(x[name], sensitive_features=of[name], random_state=0)
            )
            point[name] = _audited(part, torch.where(said == 1, one, 1 - one), positive)
    return Point(
        "group thresholds",
        None,
        point["val"],
        point.get("test"),
        None,
        "needs the group when predicting",
    )
