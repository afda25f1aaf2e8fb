"""What training minimises. A new objective is one file here, which registers itself; `import_all`
finds it.
"""

from vpt.objectives.base import OBJECTIVES, Gradients, Objective, register
from vpt.objectives.by_group import ByGroup
from vpt.sites import import_all

import_all(__name__, __path__)

# the ways to make a model fairer, by their short name
METHODS: dict[str, type[ByGroup]] = {
    name: form.cls for name, form in OBJECTIVES.forms.items() if issubclass(form.cls, ByGroup)
}

__all__ = ["METHODS", "OBJECTIVES", "ByGroup", "Gradients", "Objective", "register"]


def __getattr__(name: str) -> type[Objective]:
    """An objective by the name of its class."""
    return OBJECTIVES.attribute(__name__, name)


def __dir__() -> list[str]:
    return sorted([*__all__, *OBJECTIVES.classes])
