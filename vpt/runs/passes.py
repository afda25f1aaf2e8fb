"""Where passes may come from besides the model: what has seen the same inputs before."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING

from vpt.backbones import Backbone

if TYPE_CHECKING:  # it makes passes itself
    from vpt.runs.stored import Passes

# of backbones that have such, inside `vpt.runs.stored.stored`
SOURCES: weakref.WeakKeyDictionary[Backbone, Passes] = weakref.WeakKeyDictionary()
