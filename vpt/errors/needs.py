"""The checks that write our error sentences: a whole number, a share, one of several words."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from numbers import Integral

from vpt.errors import VptError


def whole(
    error: type[VptError],
    /,
    *,
    least: int = 1,
    most: int | None = None,
    numpy: bool = False,
    **values: object,
) -> None:
    """Raise `error` unless every value is a whole number from `least` to `most`, and no bool.

    numpy: whether numpy's whole numbers count, too; where a value is written into a file, they do
        not.
    """
    for name, value in values.items():
        kind = Integral if numpy else int
        fits = isinstance(value, kind) and not isinstance(value, bool)
        if not fits or int(value) < least or (most is not None and int(value) > most):  # type: ignore[call-overload]
            where = f"of at least {least}" if most is None else f"from {least} to {most}"
            raise error(f"Found {name}={value!r}; needed is a whole number {where}.")


def share(error: type[VptError], /, **values: object) -> None:
    """Raise `error` unless every value is a number in [0, 1)."""
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1:
            raise error(f"Found {name}={value!r}; needed is a number in [0, 1).")


def one_of(error: type[VptError], known: Iterable[str], /, **values: object) -> None:
    """Raise `error` unless every value is one of the known words."""
    known = list(known)
    for name, value in values.items():
        if value not in known:
            raise error(
                f"Found {name}={value!r}; needed is one of {', '.join(known)}."
                f"{did_you_mean(value, known)}"
            )


def did_you_mean(word: object, known: Iterable[str]) -> str:
    """A question to put behind an error, where a known word is close to the one that was found."""
    near = get_close_matches(str(word), list(known), 1, 0.7)
    return f" Did you mean {near[0]}?" if near else ""
