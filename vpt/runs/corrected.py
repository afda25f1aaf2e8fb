"""What a correction comes to: on the given examples, and on a check set."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import date

import numpy as np
from torch import Tensor

from vpt.data import Examples
from vpt.metrics.comparing import difference, share_interval
from vpt.model import PromptedModel
from vpt.runs.moments import Moments, read_features, said_of
from vpt.runs.shifting import Shift
from vpt.sites import Config

HALF, FEW = 0.5, 0.2  # of the mistakes


@dataclass
class Checked:
    """Examples that show what else changes, with their features `[n,F]`, labels `[n]`, and scores
    before the correction `[n,C]`.
    """

    examples: Examples
    features: Tensor
    y: Tensor
    said: Tensor

    @classmethod
    def of(cls, model: PromptedModel, examples: Examples, progress: bool) -> Checked:
        """Of examples matched to a model that can be corrected."""
        features, y = read_features(model, examples, progress, "the check set")
        return cls(examples, features, y, said_of(model, features))

    def _after(self, moments: Moments, shift: Shift) -> Tensor:
        z = moments.standardised(self.features)
        return self.said + z @ shift.weight.T + shift.bias

    def lost(self, moments: Moments, shift: Shift) -> float:
        """Accuracy that is lost."""
        both = self.said, self._after(moments, shift)
        before, after = ((s.argmax(1) == self.y).double().mean() for s in both)
        return float(before - after)

    def changes(self, moments: Moments, shift: Shift) -> Config:
        """What changes, in plain values."""
        both = self.said, self._after(moments, shift)
        before, after = ((s.argmax(1) == self.y).numpy() for s in both)
        names = [self.examples.name(i) for i in range(len(self.examples))]
        classes = self.examples.classes
        told = [[classes[c] for c in s.argmax(1).tolist()] for s in both]

        def listed(which: np.ndarray) -> list[Config]:
            return [
                {
                    "name": names[i],
                    "label": classes[int(self.y[i])],
                    "said": told[0][i],
                    "now": told[1][i],
                }
                for i in np.flatnonzero(which)
            ]

        return {
            "n": len(names),
            "before": float(before.mean()),
            "after": float(after.mean()),
            "difference": asdict(difference(after, before, self.examples.together)),
            "turned_wrong": listed(before & ~after),
            "turned_right": listed(after & ~before),
        }


def report_of(
    examples: Examples, digests: list[str], said: Tensor, shift: Shift, budget: float
) -> Config:
    """What a correction comes to, in plain values: no picture, but what tells one again.

    examples: that were given, with digests.
    said: scores of them before.
    shift: that was chosen.
    budget: that was allowed.
    """
    classes = examples.classes
    before, now = (scores.argmax(1).tolist() for scores in (said, shift.said))
    mistaken = np.array(before) != np.array(examples.targets)
    wrong = int(mistaken.sum())
    held = int(shift.held_out[mistaken].sum())
    known = shift.folds > 1
    low, high = share_interval(held, wrong) if known else (0.0, 1.0)
    return {
        "date": date.today().isoformat(),
        "given": len(examples),
        "mistaken": wrong,
        "mended": int(shift.right[mistaken].sum()),
        "held_out": {"mended": held, "of": wrong, "low": low, "high": high} if known else None,
        "strength": shift.strength,
        "budget": budget,
        "turned_wrong": shift.lost,
        "turned_right": shift.won,
        "recommendation": _recommended(held / wrong) if known else "cannot tell",
        "examples": [
            {
                "name": examples.name(i),
                "digest": digests[i],
                "label": classes[examples.targets[i]],
                "said": classes[before[i]],
                "now": classes[now[i]],
            }
            for i in range(len(examples))
        ],
    }


def _recommended(mended: float) -> str:
    """By the share of mistakes that are mended when they are held out."""
    return "use" if mended >= HALF else "cannot tell" if mended >= FEW else "keep the model"
