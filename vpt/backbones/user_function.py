"""A model that a user's own function makes, named as "module:function"."""

from __future__ import annotations

import importlib
import sys

from torch import nn

from vpt.errors import BackboneError
from vpt.errors.places import is_there


def names_function(source: str) -> bool:
    """Whether this is `module:function`, and neither a file or folder nor a name of a library."""
    module, _, function = source.partition(":")
    return bool(function) and module not in ("vpt", "hf-hub", "hf_hub") and not is_there(source)


def made_by(source: str) -> nn.Module:
    """What `module:function` gives; the module is found in the current folder, or installed. Only a
    user's own words come here, never those of a prompt file. Raises `BackboneError`.
    """
    module, _, function = source.partition(":")
    sys.path.insert(0, "")
    try:
        made = getattr(importlib.import_module(module), function)()
    except Exception as error:  # whatever the user's own function raises
        raise BackboneError(
            f"{source!r} could not be called: {type(error).__name__}: {error}. Needed is"
            " module:function, a function without arguments that gives a module, or a backbone:"
            " vpt.load_backbone(module, inputs=vpt.Images(…))."
        ) from error
    finally:
        sys.path.remove("")
    if not isinstance(made, nn.Module):
        raise BackboneError(
            f"{source!r} gave {type(made).__name__}; needed is a module, or a backbone."
        )
    return made
