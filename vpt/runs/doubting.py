"""Which labels look wrong: what models that did not see an example make of its label, and what the
label does to the answers to others.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from vpt.metrics.calibrating import SLOPES

ROUNDS = 30
WRONG = 0.1  # of all labels, before anything is known
RARE = 0.01  # of them always
WORTH = 10.0  # examples of each class, as which it counts that all mistakes are alike
RIDGE = 1.0  # of the regression by which influence is measured
MOST = 2000  # examples that it is measured among: time grows with their cube


@dataclass(frozen=True)
class Doubts:
    """What is thought of each label.

    shares: of the classes, given the label and what others say `[m,C]`. right: that of the label
        `[m]`. confusion: how often an example of each class has each label `[C,C]`. pull: by how
        much the others would be answered better without this example `[m]`.
    """

    shares: Tensor
    right: Tensor
    confusion: Tensor
    pull: Tensor

    @property
    def likely(self) -> Tensor:
        """The class that is thought of each example `[m]`."""
        return self.shares.argmax(1)


def doubts_of(said: Tensor, y: Tensor, tested: Tensor, features: Tensor) -> Doubts:
    """Labels weighed against what was said of their examples, and by what they do to others.

    said: shares of classes, by what did not see the label `[m,C]`.
    y: labels `[m]`.
    tested: of which examples something was said `[m]`; others are trusted.
    features: of the examples `[m,F]`.
    """
    shares, confusion = explained(said, y, tested)
    right = shares.gather(1, y[:, None])[:, 0]
    return Doubts(shares, right, confusion, pulls(features, y, said.shape[1]))


def expecting(doubts: Doubts, said: Tensor, y: Tensor, tested: Tensor) -> Doubts:
    """The same doubts where wrong labels are expected. What a label does to others stays."""
    shares, confusion = explained(said, y, tested, expected=True)
    right = shares.gather(1, y[:, None])[:, 0]
    return replace(doubts, shares=shares, right=right, confusion=confusion)


def explained(
    said: Tensor, y: Tensor, tested: Tensor, expected: bool = False
) -> tuple[Tensor, Tensor]:
    """(Shares of the classes given the label and what was said `[m,C]`, confusion matrix `[C,C]`).

    said, y, tested: as for `doubts_of`.
    expected: whether someone says that labels are wrong.

    A label is a class seen through a confusion matrix, which is the same for all examples of a
    class and is found with the classes by expectation–maximisation (Dawid and Skene, Applied
    Statistics 28, 1979). What learned from wrong labels is less sure than it should be: where they
    are expected, by how much scores are to be multiplied is found along with it, by the likelihood
    of the labels. Elsewhere it is taken to be as sure as it should be: a poor model that is sure of
    some mistakes, under labels that are right, cannot be told from a good one under wrong labels.
    """
    logs, told = said[tested].double().clamp(min=1e-9).log(), y[tested]
    slopes = SLOPES if expected else (1.0,)
    found = max((_explained(logs * slope, told) for slope in slopes), key=lambda one: one[0])
    shares = torch.eye(said.shape[1]).double()[y]
    shares[tested] = found[1]
    return shares, found[2]


def _explained(scores: Tensor, told: Tensor) -> tuple[float, Tensor, Tensor]:
    """(Mean log likelihood of labels `[m]`, shares of classes given them `[m,C]`, confusion matrix)
    for class scores `[m,C]`.
    """
    some, classes = torch.softmax(scores, 1), scores.shape[1]
    same = torch.eye(classes).double()
    others = (1 - same) / max(1, classes - 1)
    confusion, wrong = (1 - WRONG) * same + WRONG * others, WRONG
    for _ in range(ROUNDS):
        shares = some * confusion[:, told].T
        shares = shares / shares.sum(1, keepdim=True).clamp(min=1e-12)
        wrong = 1 - float(shares.gather(1, told[:, None]).mean())
        wrong = min(max(wrong, RARE), 1 - RARE)
        counts = shares.T @ same[told] + WORTH * ((1 - wrong) * same + wrong * others)
        confusion = counts / counts.sum(1, keepdim=True)
    likely = (some * confusion[:, told].T).sum(1).clamp(min=1e-12)
    return float(likely.log().mean()), shares, confusion


def pulls(features: Tensor, y: Tensor, classes: int) -> Tensor:
    """By how much the squared error on all other examples falls when one is left out `[m]`: above 0
    for a label that does harm. Of ridge regression on standardised features, in closed form: with
    B = (K + λ)⁻¹ and α = BY, leaving out i turns what is said of j by λ B_ji α_i / B_ii. Of more
    than `MOST` examples, each is measured among some of the others.
    """
    parts = torch.arange(len(y)).split(MOST)
    if len(parts) > 1:
        order = torch.randperm(len(y), generator=torch.Generator().manual_seed(0))
        found = torch.zeros(len(y)).double()
        for part in order.tensor_split(len(parts)):
            found[part] = pulls(features[part], y[part], classes)
        return found
    x = features.double()
    x = (x - x.mean(0)) / x.std(0).clamp(min=1e-6 * float(x.abs().max().clamp(min=1e-12)))
    kernel = x @ x.T / x.shape[1]
    level = RIDGE
    inverse = torch.linalg.inv(kernel + level * torch.eye(len(x)).double())
    targets = torch.nn.functional.one_hot(y, classes).double()
    alpha = inverse @ (targets - targets.mean(0))
    moved = inverse / inverse.diagonal()  # [j, i]
    before = 2 * moved * (alpha @ alpha.T)
    after = moved.square() * alpha.square().sum(1)
    fall = level**2 * (before - after)
    return fall.sum(0) - fall.diagonal()
