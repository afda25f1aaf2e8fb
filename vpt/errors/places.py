"""Questions about paths that people and files name, answered with no for names that no file can have."""

from __future__ import annotations

from pathlib import Path


def is_file(path: str | Path) -> bool:
    """Whether a plain file is there: no pipe, no device, no folder."""
    try:
        return Path(path).is_file()
    except (OSError, ValueError):  # too long, or with a NUL
        return False


def is_folder(path: str | Path) -> bool:
    """Whether a folder is there."""
    try:
        return Path(path).is_dir()
    except (OSError, ValueError):
        return False


def is_within(path: str | Path, folder: str | Path) -> bool:
    """Whether a place is this folder or lies in it, links followed."""
    try:
        return Path(path).resolve().is_relative_to(Path(folder).resolve())
    except (OSError, ValueError, RuntimeError):
        return False


def is_there(path: str | Path) -> bool:
    """Whether anything is there."""
    try:
        return Path(path).exists()
    except (OSError, ValueError):
        return False
