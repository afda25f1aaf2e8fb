"""What influence is on: a gap between groups or the loss, smooth in the scores."""

from __future__ import annotations

from itertools import combinations

import torch
from torch import Tensor
from torch.nn import functional as F

from vpt.data import Examples
from vpt.errors import DataError
from vpt.model import PromptedModel
from vpt.training.evaluation import matched, scores

MEASURES = ("dp", "eopp", "eo", "loss")
KINK = 1e-3  # |u| is taken as √(u² + KINK²), which has a slope at 0


class Measure:
    """What is measured on validation, smooth in the scores. Raises `DataError` where no two groups
    can be compared.

    of: one of `MEASURES`. positive: the class that "eopp" is about, by default the last.
    """

    def __init__(self, of: str, val: Examples, positive: str | None) -> None:
        y, group = torch.tensor(val.targets), torch.tensor(val.grouped or [0] * len(val))
        if positive is not None and positive not in val.classes:
            raise DataError(
                f"Found positive={positive!r}; the classes are {', '.join(val.classes)}."
            )
        last = val.classes.index(positive) if positive is not None else len(val.classes) - 1
        strata = {
            "dp": [y >= 0],
            "eopp": [y == last],
            "eo": [y == c for c in range(len(val.classes))],
            "loss": [],
        }[of]
        self.y = y
        self.of = of
        self.pairs = [
            (keep & (group == a), keep & (group == b))
            for keep in strata
            for a, b in combinations(group[keep].unique(), 2)
        ]
        if of != "loss" and not self.pairs:
            raise DataError(
                "The validation examples are of one group (within each label); a gap needs two."
            )

    def __call__(self, logits: Tensor) -> Tensor:
        """Scores `[n,C]` → the measure."""
        if self.of == "loss":
            return F.cross_entropy(logits, self.y)
        soft = logits.softmax(1)
        gaps = torch.stack([soft[a].mean(0) - soft[b].mean(0) for a, b in self.pairs])
        return (gaps.square() + KINK**2).sqrt().sum() / 2


def measured(model: PromptedModel, val: Examples, of: str, positive: str | None = None) -> float:
    """The measure on validation."""
    val = matched(model, val)
    return float(Measure(of, val, positive)(scores(model, val)[0]))
