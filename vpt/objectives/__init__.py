"""What training minimises. A new objective is a file here, which registers it."""

from importlib import import_module
from pkgutil import iter_modules

from vpt.objectives.base import OBJECTIVES, Gradients, Objective, register
from vpt.objectives.by_group import ByGroup

for _file in iter_modules(__path__):
    import_module(f"{__name__}.{_file.name}")

# the ways to make a model fairer, by their short name
METHODS: dict[str, type[ByGroup]] = {
    objective.method: objective
    for objective in OBJECTIVES.values()
    if issubclass(objective, ByGroup)
}

__all__ = ["METHODS", "OBJECTIVES", "ByGroup", "Gradients", "Objective", "register"]


def __getattr__(name: str) -> type[Objective]:
    """An objective by the name of its class."""
    if name not in OBJECTIVES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return OBJECTIVES[name]


def __dir__() -> list[str]:
    return sorted([*__all__, *OBJECTIVES])
