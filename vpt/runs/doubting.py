"""Which labels look wrong: what models that did not see an example make of its label, and what the
label does to the answers to others.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

ROUNDS = 20
RIGHT = 0.9  # how often labels are taken to be right, before anything is known
WORTH = 5.0  # and as how many examples of each class that counts
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
    """Labels weighed against what was said of their examples.

    said: shares of classes, by what did not see the label `[m,C]`.
    y: labels `[m]`.
    tested: of which examples something was said `[m]`; others are trusted.
    features: of the examples `[m,F]`.

    A label is a class seen through a confusion matrix, which is the same for all examples of a
    class and is found with the classes by expectation–maximisation (Dawid and Skene, Applied
    Statistics 28, 1979).
    """
    classes = said.shape[1]
    some, told = said[tested].double().clamp(min=1e-6), y[tested]
    same = torch.eye(classes).double()
    start = RIGHT * same + (1 - RIGHT) / max(1, classes - 1) * (1 - same)
    confusion, thought = start, some
    for _ in range(ROUNDS):
        thought = some * confusion[:, told].T
        thought = thought / thought.sum(1, keepdim=True)
        counts = thought.T @ same[told] + WORTH * start
        confusion = counts / counts.sum(1, keepdim=True)
    shares = same[y].clone()
    shares[tested] = thought
    right = shares.gather(1, y[:, None])[:, 0]
    return Doubts(shares, right, confusion, pulls(features, y, classes))


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
