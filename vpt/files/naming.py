"""Where a prompt file is: in a run's folder, or by its own name."""

from __future__ import annotations

from pathlib import Path

from vpt.errors import PromptFileError
from vpt.errors.places import is_file, is_folder, is_there

PROMPT = "prompt.vpt"


def prompt_file(place: str | Path) -> Path:
    """The prompt file of a run's folder, or the file itself. Raises `PromptFileError` if there is
    none.
    """
    if not isinstance(place, (str, Path)):
        raise PromptFileError(
            f"Found {type(place).__name__} where the path of a run or a prompt file should be."
        )
    path = Path(place) / PROMPT if is_folder(place) else Path(place)
    if not is_file(path):
        found = "it is no plain file" if is_there(path) else "there is nothing"
        raise PromptFileError(
            f"Found no prompt file at {str(path)[:200]}: {found}. Needed is a run's folder (with"
            f" {PROMPT}) or a prompt file."
        )
    return path
