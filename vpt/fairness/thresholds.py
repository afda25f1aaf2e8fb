"""Post-processing, for comparison: thresholds by group on the scores of the bare model."""

from __future__ import annotations

import numpy as np
import torch
from fairlearn.postprocessing import ThresholdOptimizer
from sklearn.base import BaseEstimator, ClassifierMixin
from torch import Tensor

from vpt.data import Examples
from vpt.fairness.auditing import audit_decisions
from vpt.fairness.choosing import Point
from vpt.objectives.by_group import CRITERIA
from vpt.runs.probe import Folds


class _Scores(ClassifierMixin, BaseEstimator):
    """A "classifier" whose input is the frozen model's own probability."""

    def fit(self, x: np.ndarray, y: np.ndarray) -> _Scores:
        self.classes_ = np.unique(y)
        return self

    def predict_proba(self, x: np.ndarray) -> np.ndarray:
        p = np.asarray(x, float)[:, 0]
        return np.stack([1 - p, p], 1)


def group_thresholds(
    logits: dict[str, Tensor], parts: dict[str, Examples], criterion: str, positive: str | None
) -> Point | None:
    """Thresholds by group, learned from "train", as a point beside others; None where there are
    none (`decided_by_group`).
    """
    decided = decided_by_group(logits, parts, criterion, positive)
    return point_of(decided, parts, positive) if decided is not None else None


def point_of(decided: dict[str, Tensor], parts: dict[str, Examples], positive: str | None) -> Point:
    """These decisions on "val", and on "test" if they are there, as a point."""
    audits = {name: audit_decisions(parts[name], said, positive) for name, said in decided.items()}
    return Point(
        "group thresholds",
        None,
        audits["val"],
        audits.get("test"),
        note="needs the group when predicting",
    )


def decided_by_group(
    logits: dict[str, Tensor], parts: dict[str, Examples], criterion: str, positive: str | None
) -> dict[str, Tensor] | None:
    """What fairlearn's `ThresholdOptimizer` (Hardt et al. 2016) decides `[n]` on the scores `[n,2]`
    of each part: thresholds by group, learned from "train".

    None where there are none: for more than two classes, for a group that was not learned from, or
    one in which a label does not occur.
    """
    train = parts["train"]
    if len(train.classes) != 2:
        return None
    one = train.classes.index(positive) if positive is not None else 1
    x = {name: part.softmax(1)[:, [one]].double().numpy() for name, part in logits.items()}
    y = (np.array(train.targets) == one).astype(int)
    groups = {name: part.grouped or [] for name, part in parts.items()}
    if any(set(of_part) - set(groups["train"]) for of_part in groups.values()):
        return None
    optimizer = ThresholdOptimizer(
        estimator=_Scores().fit(x["train"], y),
        prefit=True,
        predict_method="predict_proba",
        constraints=CRITERIA[criterion].replace(" ", "_"),
    )
    try:
        optimizer.fit(x["train"], y, sensitive_features=groups["train"])
    except ValueError:  # a group in which one label does not occur
        return None
    decided = {}
    for name in parts.keys() - {"train"}:
        said = optimizer.predict(x[name], sensitive_features=groups[name], random_state=0)
        decided[name] = torch.where(torch.as_tensor(said) == 1, one, 1 - one)
    return decided


def cross_fitted_thresholds(
    logits: Tensor, examples: Examples, folds: Folds, criterion: str, positive: str | None
) -> Tensor | None:
    """What thresholds by group decide `[n]` of examples that they were not learned from; None where
    there are none. logits: scores `[n,C]`.
    """
    decided = torch.zeros(len(examples), dtype=torch.long)
    for kept, held in folds:
        rows = {"train": kept.tolist(), "held": held.tolist()}
        said = decided_by_group(
            {name: logits[own] for name, own in rows.items()},
            {name: examples.subset(own) for name, own in rows.items()},
            criterion,
            positive,
        )
        if said is None:
            return None
        decided[rows["held"]] = said["held"]
    return decided
