"""From a folder, a CSV manifest or a torch Dataset to labelled training, validation and test
examples.
"""

from vpt.data.augment import AUGMENTS, augment, in_views
from vpt.data.examples import Examples
from vpt.data.joining import balanced, joined, with_classes
from vpt.data.loading import load_data, read_parts
from vpt.data.looking import Source, look
from vpt.data.parts import CALLED, Data
from vpt.data.readers import read_sound, reader
from vpt.data.reading import BUNDLED
from vpt.data.splits import few_shot, hold_out

__all__ = [
    "AUGMENTS",
    "BUNDLED",
    "CALLED",
    "Data",
    "Examples",
    "Source",
    "augment",
    "balanced",
    "few_shot",
    "hold_out",
    "in_views",
    "joined",
    "load_data",
    "look",
    "read_parts",
    "read_sound",
    "reader",
    "with_classes",
]
