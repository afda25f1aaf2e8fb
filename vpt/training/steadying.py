"""Whether training leaves its start by far. Then the rate was too high for this model: it is cut,
and training begins anew.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median

CUT = 4.0  # what the rate is divided by
MOST_CUTS = 5  # to less than a thousandth; what diverges even so does not do it for the rate
# of a run that is watched: the rate is highest after the first tenth, and falls from there
SHARE = 0.3
FAR = 10.0  # nats, of which no sane prompt makes so many: twice in a row is enough
RECENT, FEWEST = 8, 4  # updates whose median loss counts: one alone may be of odd examples


def watched(update: int, total: int) -> bool:
    """Whether this update (from 0) of `total` is among those that are watched."""
    return update < max(FEWEST, math.ceil(SHARE * total))


def noted(losses: Sequence[float], loss: float) -> list[float]:
    """The losses that are remembered: the first, of the prompt as it began, and the latest."""
    return [*losses[:1], *losses[1:][1 - RECENT :], loss]


def leaves(losses: Sequence[float]) -> bool:
    """Whether what `noted` remembers has left the start: the latest lie 1 nat above twice the
    first, or one is not finite.
    """
    if not math.isfinite(losses[-1]):
        return True
    latest = losses[1:]
    if len(latest) > 1 and min(latest[-2:]) > max(FAR, 2 * losses[0] + 1):
        return True
    return len(latest) >= FEWEST and median(latest) > 2 * losses[0] + 1
