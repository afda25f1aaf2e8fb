"""Which strengths of a method are tried, and the objective of each."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Real

from vpt.errors import TrainingError
from vpt.fairness.choosing import GAP
from vpt.objectives import METHODS, OBJECTIVES, Objective


def objectives(
    method: str,
    criterion: str,
    strengths: Sequence[float] | None,
    budget: float,
    bound: float | None,
) -> list[tuple[float, Objective]]:
    """Each strength, rising, with its objective. Raises `TrainingError` for settings that are
    none.
    """
    if method not in METHODS or criterion not in GAP:
        known = ", ".join(
            f"{name} ({OBJECTIVES.about[kind.__name__]})" for name, kind in METHODS.items()
        )
        raise TrainingError(
            f"Found method={method!r}, criterion={criterion!r}; needed is one of {known}, and 'eo'"
            " or 'dp'."
        )
    for name, value in (("budget", budget), ("bound", bound)):
        number = isinstance(value, Real) and not isinstance(value, bool)
        if value is not None and not (number and 0 <= value < 1):
            raise TrainingError(
                f"Found {name}={value!r}; needed is a number in [0, 1), as 0.01 for one point of"
                " 100."
            )
    if strengths is not None and (
        isinstance(strengths, str) or not isinstance(strengths, Sequence)
    ):
        raise TrainingError(f"Found strengths={strengths!r}; needed is a list of numbers.")
    kind = METHODS[method]
    values = strengths if strengths is not None else kind.strengths
    wanted = [(value, kind.of(value, criterion)) for value in values]
    if not wanted or len({value for value, _ in wanted}) < len(wanted):
        raise TrainingError(
            f"Found strengths={list(strengths or [])}; needed are one or more, all different."
        )
    return sorted(
        ((float(value), objective) for value, objective in wanted), key=lambda pair: pair[0]
    )
