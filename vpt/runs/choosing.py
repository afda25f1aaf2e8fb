"""Choosing among kinds of readouts by what they say of examples that they never saw.

Every labelled example is used twice: held out once in a cross-validation, to choose by, and then
for the final fit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial

import numpy as np
import torch
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold
from torch import Tensor

from vpt.data import Examples
from vpt.metrics.calibrating import best_slope, slope_of
from vpt.metrics.comparing import share_interval, worth
from vpt.runs.probe import Folds
from vpt.sites import Config

FOLDS = 5


@dataclass(frozen=True)
class Candidate:
    """A kind of readout, and what it says of examples that were held out.

    name: for people and for the report. place: where it stands from simple to rich. scores: log
        probabilities `[m,C]`, calibrated. slope: by which its scores were multiplied for that.
    """

    name: str
    place: int
    scores: Tensor
    slope: float


@dataclass(frozen=True)
class Chosen:
    """What was chosen, and among what.

    name: of the candidate. names: what it averages, or only itself.
    table: of every candidate its accuracy, log loss and slope, out of fold.
    accuracy, log_loss, interval, n: of the one that was chosen, out of fold; the interval holds the
        accuracy with 95 % (Wilson). n is 0, and they mean nothing, where nothing could be held out.
    why: a sentence. factor: by which the scores of what is averaged are multiplied once more: a
        mean of calibrated probabilities is too modest.
    """

    name: str
    names: list[str]
    table: list[Config]
    accuracy: float
    log_loss: float
    interval: tuple[float, float]
    n: int
    why: str
    factor: float = 1.0

    def as_dict(self) -> Config:
        """In plain values."""
        return asdict(self)


def folds_of(examples: Examples, seed: int) -> Folds:
    """(what is kept, what is held out) of each fold, stratified; what belongs together (copies of a
    file, a person) stays on one side. Examples of a class with one unit are never held out; none
    at all where no class has two.
    """
    y = np.array(examples.targets)
    units = _units(examples)
    each = [len(set(units[y == c])) for c in np.unique(y)]
    several = np.isin(y, np.unique(y)[np.array(each) > 1])
    count = min([FOLDS, *(n for n in each if n > 1)])
    if count < 2 or not several.any():
        return []
    where = np.flatnonzero(several)
    if len(set(units)) < len(units):
        splitter = StratifiedGroupKFold(count, shuffle=True, random_state=seed)
        parts = splitter.split(where, y[where], units[where])
    else:
        plain = StratifiedKFold(count, shuffle=True, random_state=seed)
        parts = plain.split(where, y[where])
    everyone = np.arange(len(y))
    return [(np.setdiff1d(everyone, where[held]), where[held]) for _, held in parts]


def _units(examples: Examples) -> np.ndarray:
    """What stays together, by example."""
    together = examples.together
    return np.arange(len(examples)) if together is None else np.array(together)


def calibrated(name: str, place: int, scores: Tensor, y: Tensor, tested: Tensor) -> Candidate:
    """A candidate with its slope, of the tested examples (`vpt.metrics.calibrating.slope_of`)."""
    slope = slope_of(scores[tested], y[tested])
    return Candidate(name, place, torch.log_softmax(scores.double() * slope, 1), slope)


def choose(
    candidates: Sequence[Candidate],
    y: Tensor,
    tested: Tensor,
    least: str | None,
    together: Sequence[int] | None = None,
) -> Chosen:
    """The simplest candidate that is within one standard error of the best, by log loss out of
    fold; then the average with another where that is better by more than one standard error.

    candidates: what each says.
    y: labels `[m]`.
    tested: which of them were held out `[m]`.
    least: the name of the candidate than which nothing worse is given, if there is one.
    together: which examples belong together, by number `[m]`.
    """
    units = _of(together, tested)
    losses = {c.name: losses_of(c.scores, y, tested) for c in candidates}
    best = min(candidates, key=lambda c: float(losses[c.name].mean()))
    allowed = [
        c
        for c in candidates
        if (least is None or losses[c.name].mean() <= losses[least].mean())
        and _within(losses[c.name] - losses[best.name], units)
    ]
    one = min(allowed or [best], key=lambda c: (c.place, float(losses[c.name].mean())))
    names, scores, factor = [one.name], one.scores, 1.0
    why = "the least log loss out of fold"
    if one is not best:
        why = f"the simplest within one standard error of the best, {best.name}"
    others = [c for c in candidates if _go_together(c.name, one.name)]
    if others:
        means = {c.name: averaged([c.scores, one.scores]) for c in others}
        gains = {n: losses[one.name] - losses_of(mean, y, tested) for n, mean in means.items()}
        other = max(gains, key=lambda n: float(gains[n].mean()))
        if not _within(gains[other], units) and float(gains[other].mean()) > 0:
            names = [one.name, other]
            parts = [c.scores for c in (one, *others) if c.name in names]
            held = [part[tested] for part in parts]
            factor = best_slope(partial(averaged, held), y[tested])
            scores = averaged(parts, factor)
            why += f"; its average with {other} is better by more than one standard error"
    right = (scores.argmax(1) == y)[tested].double()
    alone = worth(right.numpy(), units)
    return Chosen(
        name=" and ".join(names),
        names=names,
        table=[_row(c, losses[c.name], y, tested) for c in candidates],
        accuracy=float(right.mean()),
        log_loss=float(losses_of(scores, y, tested).mean()),
        interval=share_interval(float(right.mean()) * alone, alone),
        n=len(right),
        why=why,
        factor=factor,
    )


def averaged(parts: Sequence[Tensor], factor: float = 1.0) -> Tensor:
    """The logarithm of the mean probability, the log probabilities `[m,C]` of each part being
    multiplied by a factor first.
    """
    scaled = torch.stack([torch.log_softmax(part * factor, 1) for part in parts])
    return scaled.logsumexp(0) - np.log(len(parts))


def no_worse(
    after: Tensor,
    before: Tensor,
    y: Tensor,
    tested: Tensor,
    together: Sequence[int] | None = None,
) -> bool:
    """Whether log probabilities `[m,C]` have no more log loss than others, but for one standard
    error.

    after, before: of the same examples. y, tested, together: as for `choose`.
    """
    gaps = losses_of(after, y, tested) - losses_of(before, y, tested)
    return _within(gaps, _of(together, tested))


def _of(together: Sequence[int] | None, tested: Tensor) -> list[int] | None:
    """Of the tested examples, with what each belongs together."""
    if together is None:
        return None
    return [together[i] for i in tested.nonzero()[:, 0].tolist()]


def losses_of(scores: Tensor, y: Tensor, tested: Tensor) -> Tensor:
    """Of log probabilities `[m,C]`, the log loss of each tested example."""
    return -scores.gather(1, y[:, None])[tested, 0]


def _within(differences: Tensor, units: Sequence[int] | None) -> bool:
    """Whether a mean difference is no more than its standard error (of units, if there are any)."""
    if not differences.any():
        return True
    alone = worth(differences.numpy(), units)
    error = float(differences.std()) / alone**0.5 if alone else float("inf")
    return float(differences.mean()) <= error


def _go_together(one: str, other: str) -> bool:
    """Queries and a set of fixed features, which do not share any."""
    return one.startswith("queries") != other.startswith("queries")


def _row(candidate: Candidate, losses: Tensor, y: Tensor, tested: Tensor) -> Config:
    right = (candidate.scores.argmax(1) == y)[tested].double()
    return {
        "candidate": candidate.name,
        "accuracy": float(right.mean()),
        "log_loss": float(losses.mean()),
        "slope": candidate.slope,
    }
