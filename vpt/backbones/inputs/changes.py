"""What someone changes in how input is prepared: in Python, or in words on the command line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vpt.errors import InputError
from vpt.sites import Config


def overridden(inputs: Any, changes: Config) -> Any:
    """An input description with some of its fields changed. Raises `InputError` for an unknown
    field.
    """
    from dataclasses import fields, replace

    known = [f.name for f in fields(inputs) if f.init and f.name != "front_end"]
    if unknown := sorted(set(changes) - set(known)):
        raise InputError(
            f"Found inputs {', '.join(unknown)}; what can be said is {', '.join(known)}."
        )
    derived: Config = {}
    if "size" in changes or "crop_pct" in changes:  # what they lead to, unless that is said too
        derived = {"resize_to": (0, 0)}
    try:
        return replace(inputs, **(derived | changes))
    except (TypeError, ValueError) as error:
        said = ", ".join(f"{name}={value!r}" for name, value in changes.items())
        raise InputError(f"Found inputs {said}, which cannot be: {error}") from error


def told(words: Sequence[str]) -> Config:
    """ "mean=0.5,0.5,0.5", "fit=squash" → the fields that they change. Raises `InputError` for what
    is no NAME=VALUE.
    """
    found: Config = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not (name and equals and value):
            raise InputError(
                f"Found --inputs {word!r}; needed is NAME=VALUE, as mean=0.5,0.5,0.5 or fit=squash."
            )
        parts = [_number(part) for part in value.split(",")]
        found[name] = parts[0] if len(parts) == 1 else tuple(parts)
    return found


def _number(text: str) -> float | int | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
