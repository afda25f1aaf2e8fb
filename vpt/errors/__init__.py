"""What can go wrong, by name: every error a user can cause is a `VptError`.

Each message says what was found, what is needed and what to do about it.
"""

from __future__ import annotations

from vpt.errors.text import printable


class VptError(Exception):
    """Base of every error that vpt raises on purpose. Its message names what it found, with nothing
    that a terminal obeys.
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(printable(message))


class BackboneError(VptError):
    """A model cannot be opened, or has no place of the kind that was asked for."""


class BundledFileError(VptError):
    """A file that ships with the package is missing or is not as it was shipped."""


class InputError(VptError):
    """A raw input has the wrong shape, type, range or sample rate."""


class PromptError(VptError):
    """A prompt does not fit its backbone, or acted on nothing."""


class DataError(VptError):
    """A data set is missing, empty, mislabelled or cannot be split as asked."""


class BadFilesError(DataError):
    """Some files of a data set cannot be used; `.bad` lists them as (path, reason). instead: what
    else can be done.
    """

    def __init__(self, bad: list[tuple[str, str]], total: int, instead: str = "") -> None:
        self.bad = bad
        shown = "\n".join(f"  {path}: {reason}" for path, reason in bad[:20])
        more = f"\n  (+{len(bad) - 20} more)" if len(bad) > 20 else ""
        super().__init__(
            f"{len(bad)} of {total} files cannot be used:\n{shown}{more}\nRepair or remove"
            f" them{instead}."
        )


class TrainingError(VptError):
    """Training cannot start, or cannot resume from what it found."""


class DivergedError(TrainingError):
    """A loss or gradient became NaN or infinite; the model holds the last good prompt."""


class ExportError(VptError):
    """A model cannot be exported, or what was exported says something else than the model."""


class StoreError(VptError):
    """A feature store is of another model, damaged, or cannot be written."""


class PromptFileError(VptError):
    """A prompt file is altered, cut, of an unknown version, made for another backbone, or cannot be
    fetched from a hub or sent to one.
    """
