"""From a backbone's two outputs to the classes that are wanted. A new readout is one file here,
which registers itself; `import_all` finds it.
"""

from vpt.readouts.average import Average
from vpt.readouts.base import Readout
from vpt.readouts.features import Linear, NearestMean
from vpt.readouts.identity import Identity
from vpt.readouts.label_map import LabelMap
from vpt.readouts.registry import READOUTS, build, parse
from vpt.readouts.ridge import RandomRidge
from vpt.readouts.task_heads import TaskHeads
from vpt.sites import import_all

import_all(__name__, __path__)

__all__ = [
    "READOUTS",
    "Average",
    "Identity",
    "LabelMap",
    "Linear",
    "NearestMean",
    "RandomRidge",
    "Readout",
    "TaskHeads",
    "build",
    "parse",
]


def __getattr__(name: str) -> type[Readout]:
    """A readout by the name of its class."""
    return READOUTS.attribute(__name__, name)
