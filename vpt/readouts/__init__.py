"""From a backbone's two outputs to the classes that are wanted. A new readout is a file here and a
line in `READOUTS`.
"""

from vpt.readouts.base import Readout
from vpt.readouts.features import Linear, NearestMean
from vpt.readouts.identity import Identity
from vpt.readouts.label_map import LabelMap
from vpt.readouts.ridge import RandomRidge
from vpt.readouts.task_heads import TaskHeads

READOUTS: dict[str, type[Readout]] = {
    cls.__name__: cls for cls in (Identity, Linear, NearestMean, LabelMap, TaskHeads, RandomRidge)
}

__all__ = [
    "READOUTS",
    "Identity",
    "LabelMap",
    "Linear",
    "NearestMean",
    "RandomRidge",
    "Readout",
    "TaskHeads",
]
