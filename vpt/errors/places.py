"""Questions about paths that people and files name, answered with no for names that no file can
have.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path


def is_file(path: str | Path) -> bool:
    """Whether a plain file is there: no pipe, no device, no folder."""
    return _answer(Path(path).is_file)


def is_folder(path: str | Path) -> bool:
    """Whether a folder is there."""
    return _answer(Path(path).is_dir)


def is_within(path: str | Path, folder: str | Path) -> bool:
    """Whether a place is this folder or lies in it, links followed."""
    return _answer(lambda: Path(path).resolve().is_relative_to(Path(folder).resolve()))


def is_there(path: str | Path) -> bool:
    """Whether anything is there."""
    return _answer(Path(path).exists)


def _answer(ask: Callable[[], bool]) -> bool:
    """No where the system cannot say: a name that is too long, that holds a NUL, or whose links go
    round in a circle.
    """
    try:
        return ask()
    except (OSError, ValueError, RuntimeError):
        return False
