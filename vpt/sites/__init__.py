"""The vocabulary that prompts, readouts, data and backbones share. Nothing here knows a model, or
imports anything of vpt.
"""

from vpt.sites.asked import (
    BackboneLike,
    Config,
    ImagesLike,
    InputsLike,
    Raw,
    ReachLike,
    Settings,
    SoundLike,
    takes_images,
)
from vpt.sites.places import Attended, Bare, KeyValues, Observe, Pixels, Queries, Rows, Site, Tokens
from vpt.sites.registry import Form, Registry, import_all

__all__ = [
    "Attended",
    "BackboneLike",
    "Bare",
    "Config",
    "Form",
    "ImagesLike",
    "InputsLike",
    "KeyValues",
    "Observe",
    "Pixels",
    "Queries",
    "Raw",
    "ReachLike",
    "Registry",
    "Rows",
    "Settings",
    "Site",
    "SoundLike",
    "Tokens",
    "import_all",
    "takes_images",
]
