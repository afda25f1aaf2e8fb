"""Which unlabelled examples are like the labelled ones: others are of none of the classes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import normalize

ODD = 0.05  # the share of labelled examples that are no nearer to any other


def alike(labelled: Tensor, others: Tensor, together: Sequence[int] | None = None) -> Tensor:
    """Which of the others are as near to a labelled example as most of these are to each other
    `[u]`: by the cosine between features, nearer than the twentieth that is furthest off.

    labelled, others: features `[m,F]` and `[u,F]`. together: which of the labelled ones belong
        together `[m]`: frames of one film say nothing about how near two films are.
    """
    known, fresh = normalize(labelled.double(), dim=1), normalize(others.double(), dim=1)
    units = torch.arange(len(known)) if together is None else torch.tensor(together)
    near = known @ known.T
    near[units[:, None] == units] = -1.0
    least = near.max(1).values.quantile(ODD)
    return (fresh @ known.T).max(1).values >= least
