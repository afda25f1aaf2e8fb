"""The classifier of what queries read, fitted anew once they have learned.

Queries learn together with a classifier, by a few hundred steps with dropout. Regression on what
they then read, of the strength that is best out of fold, is the better classifier for the same
queries: the one that they learned with served to find them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from vpt.readouts import Linear
from vpt.runs.kept import Kept
from vpt.runs.probe import FALLBACK, Folds, cross_fitted, fit_probe
from vpt.runs.soft_probe import SoftProbes
from vpt.training.memory import Memory, read_all
from vpt.training.side_by_side import BATCH, Members


@torch.no_grad()
def refitted(
    members: Members, memories: Sequence[Memory], kept: Kept, folds: Folds, classes: int
) -> tuple[Members, float]:
    """(Members with new classifiers, their C): a member for each fold, which sees what the fold
    keeps, and one for all examples, the last.

    members: that have learned so.
    memories: of the blocks that their queries read.
    kept: of whose examples.
    folds: in the order of the members.
    classes: how many there are.

    Members do not share what they read, so each fold is fitted on what its own queries read; C is
    one, of least log loss over all that was held out.
    """
    reads = [_reads(members, number, memories, kept) for number in range(len(folds) + 1)]
    labels, strength = kept.y.numpy(), FALLBACK
    if folds:
        each = [read.double().numpy() for read in reads[:-1]]
        strength = cross_fitted(each, labels, folds, classes).strength
    everyone = np.arange(len(labels))
    fitted = []
    for read, rows in zip(reads, [*(own for own, _ in folds), everyone], strict=True):
        some = torch.from_numpy(rows)
        fitted.append(fit_probe(read[some], kept.y[some], classes, 0, strength, "queries")[0])
    return _with(members, fitted), strength


@torch.no_grad()
def refitted_on_shares(
    members: Members, memories: Sequence[Memory], kept: Kept, told: Tensor, strength: float
) -> Members:
    """Members with new classifiers, fitted on shares of classes.

    members: that have learned from them.
    memories: of the blocks that their queries read.
    kept: of whose examples.
    told: what each member is told `[E,m,C]`, as for `vpt.runs.again.Again`.
    strength: C.
    """
    fitted = []
    for number, shares in enumerate(told):
        probes = SoftProbes(_reads(members, number, memories, kept), "queries")
        fitted.append(probes.readout(probes.fit(shares, strength), told.shape[2]))
    return _with(members, fitted)


def _with(members: Members, fitted: Sequence[Linear]) -> Members:
    """Members with these classifiers, one for each."""
    mean, scale, weight, bias = (
        torch.stack([getattr(one, name) for one in fitted]).to(members.weight)
        for name in ("mean", "scale", "weight", "bias")
    )
    return replace(members, mean=mean, scale=scale, weight=weight, bias=bias)


def _reads(members: Members, number: int, memories: Sequence[Memory], kept: Kept) -> Tensor:
    """What the queries of one member read of each example `[m,F]`."""
    own = [rows[number : number + 1] for rows in members.queries]
    index = torch.arange(len(memories[0].keys)).split(BATCH)
    read = [read_all(memories, own, some)[:, 0].cpu() for some in index]
    return kept.of_examples(torch.cat(read))
