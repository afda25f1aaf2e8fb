"""Packages that an extra brings."""

from __future__ import annotations

import importlib.util

from vpt.errors import ExportError


def needed(extra: str, *packages: str) -> None:
    """Raise `ExportError` where one of these is not installed, with what brings it."""
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise ExportError(
            f"Found no {', '.join(missing)}; needed is the extra {extra}: pip install"
            f" 'vpt[{extra}]' brings it."
        )
