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
from vpt.sites.places import KeyValues, Observe, Pixels, Query, Rows, Site, Tokens
from vpt.sites.registry import Form, Registry, import_all

__all__ = [
    "BackboneLike",
    "Config",
    "Form",
    "ImagesLike",
    "InputsLike",
    "KeyValues",
    "Observe",
    "Pixels",
    "Query",
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
