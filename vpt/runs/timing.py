"""How long a pass over data will take, from a few examples timed here."""

from __future__ import annotations

import time
from collections.abc import Sequence

from vpt.backbones import Backbone
from vpt.data import Data, Examples
from vpt.runs.briefing import TRIED
from vpt.runs.kept import Kept, keep
from vpt.runs.passes import SOURCES


def time_pass(
    backbone: Backbone, data: Data, blocks: Sequence[int], also: Sequence[Examples] = ()
) -> tuple[Kept, float, int]:
    """(what was kept of a few training examples, how many seconds a pass over all parts will take
    by them, how many inputs these have). blocks: as for `keep`. also: other parts.
    """
    few = data.train.subset(range(min(TRIED, len(data.train))))
    keep(backbone, few, live=True)  # the first forward is slower
    started = time.perf_counter()
    kept = keep(backbone, few, blocks=blocks, live=True)
    source = SOURCES.get(backbone)
    parts = [*data.parts.values(), *also]
    inputs = sum(source.missing(p) if source else len(p.windows()[0]) for p in parts)
    return kept, (time.perf_counter() - started) / len(kept.clips) * inputs, inputs
