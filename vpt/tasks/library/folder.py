"""A folder of prompt files as a library."""

from __future__ import annotations

from pathlib import Path

from vpt.backbones import Backbone
from vpt.errors import PromptFileError, VptError
from vpt.tasks.library.library import PromptLibrary


def open_library(folder: str | Path, backbone: Backbone, keep: int = 64) -> PromptLibrary:
    """A library of all prompt files in a folder, named as they are (`flowers.vpt`, or a run's
    folder `flowers/prompt.vpt`).

    Raises `PromptFileError` for a folder without any, or naming every file that does not fit.
    """
    files, wrong = prompt_files(folder), []
    library = PromptLibrary(backbone, keep)
    try:
        for name, path in files.items():
            try:
                library.add(name, path)
            except VptError as error:
                wrong.append(str(error))
        if wrong:
            raise PromptFileError(f"{len(wrong)} prompt files do not fit. " + " ".join(wrong[:5]))
    except BaseException:
        library.close()
        raise
    return library


def prompt_files(folder: str | Path) -> dict[str, Path]:
    """Task name → prompt file, by name. Raises `PromptFileError` for a folder without any, and for
    one with two of one name.
    """
    found, why = prompt_files_or_why(Path(folder))
    if why:
        raise PromptFileError(next(iter(why.values())))
    if not found:
        raise PromptFileError(
            f"Found no prompt files in {folder}; needed are NAME.vpt, or runs' folders"
            " NAME/prompt.vpt."
        )
    return found


def prompt_files_or_why(folder: Path) -> tuple[dict[str, Path], dict[str, str]]:
    """(Task name → prompt file, by name; of each name that two have, why it is none of them)."""
    files = {path.stem: path for path in sorted(folder.glob("[!.]*.vpt"))}
    runs = {path.parent.name: path for path in sorted(folder.glob("[!.]*/prompt.vpt"))}
    why = {
        name: f"Found two prompts called {name!r}: {files[name]} and {runs[name]}. Rename one of"
        " them."
        for name in sorted(files.keys() & runs.keys())
    }
    return {name: path for name, path in (files | runs).items() if name not in why}, why
