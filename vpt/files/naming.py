"""Where a prompt file is: in a run's folder, by its own name, or in a repository of the hub."""

from __future__ import annotations

from pathlib import Path

from vpt.errors import PromptFileError
from vpt.errors.places import is_file, is_folder, is_there
from vpt.files.hub import SCHEME, fetched, is_shared

PROMPT = "prompt.vpt"


def prompt_file(place: str | Path) -> Path:
    """The prompt file of a run's folder, or the file itself, or where the cache has that of
    "hf://user/name". Raises `PromptFileError` if there is none.
    """
    if not isinstance(place, (str, Path)):
        raise PromptFileError(
            f"Found {type(place).__name__} where the path of a run or a prompt file should be."
        )
    if is_shared(place):
        return fetched(place, PROMPT)
    path = Path(place) / PROMPT if is_folder(place) else Path(place)
    if not is_file(path):
        found = "it is no plain file" if is_there(path) else "there is nothing"
        raise PromptFileError(
            f"Found no prompt file at {str(path)[:200]}: {found}. Needed is a run's folder (with"
            f" {PROMPT}), a prompt file, or {SCHEME}user/name."
        )
    return path
