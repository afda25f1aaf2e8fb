"""The prompt file of a Hugging Face repository: this one file, from the cache or the hub, and never
code.
"""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path
from typing import cast

from vpt.errors import PromptFileError
from vpt.files.packing import file_bytes, unpack

SCHEME = "hf://"
SPELLED = re.compile("hf:/{1,2}")  # Path("hf://user/name") says "hf:/user/name"
WORD = "[A-Za-z0-9_][A-Za-z0-9._-]*"
REPO = re.compile(f"{WORD}/{WORD}")
REVISION = re.compile(f"{WORD}(/{WORD})*")  # a pull request is refs/pr/1
LONGEST = 96  # characters of a repository's name, as the hub has it
REFUSED = (401, 403)
LOG_IN = "Log in (hf auth login, or HF_TOKEN) with an account"
REASONS = {  # by the name of the library's error: it is imported where it is used
    "GatedRepoError": (
        f"its owner decides who may have it. Ask for it on its page. {LOG_IN} that was let in."
    ),
    "RepositoryNotFoundError": (
        f"there is no such repository, or it is private. Check its name. {LOG_IN} that may see it."
    ),
    "RevisionNotFoundError": "it has no such revision. Name a branch, a tag or a commit of it.",
    "RemoteEntryNotFoundError": "it holds no {file}. Needed is a repository that vpt push made.",
    "OfflineModeIsEnabled": (
        "HF_HUB_OFFLINE is set, and the cache does not have it. Unset it, or fetch it once where"
        " there is a network."
    ),
    "LocalEntryNotFoundError": (
        "the hub cannot be reached, and the cache does not have it. Check the network (and"
        " HF_ENDPOINT, if it is set), and try again."
    ),
}


def is_shared(place: str | Path) -> bool:
    """Whether a place is one of the hub, as "hf://user/name", in either spelling."""
    return SPELLED.match(_text(place)) is not None


def fetched(place: str | Path, file: str) -> Path:
    """This file of "hf://user/name" or "hf://user/name@revision" (a branch, a tag or a commit), in
    the cache of `huggingface_hub`, whose settings hold (HF_HOME, HF_HUB_OFFLINE, HF_TOKEN).

    Raises `PromptFileError` for a name that is none, for what cannot be had, and for a file that
    came damaged, which the cache then keeps no longer.
    """
    from huggingface_hub import hf_hub_download

    name, at, revision = SPELLED.sub("", _text(place), count=1).partition("@")
    repo = repository(name)
    if at and not _sound(REVISION, revision):
        raise PromptFileError(
            f"Found the revision {revision[:200]!r}; needed is a branch, a tag or a commit, as in"
            f" {SCHEME}{repo}@main: letters, digits, dots, dashes, one / between words."
        )
    told = f"{SCHEME}{repo}{at}{revision}"
    try:
        path = Path(hf_hub_download(repo, file, revision=revision or None))
    except Exception as error:  # of every library that the transfer goes through
        raise PromptFileError(f"{told} cannot be fetched: {reason(error, file)}") from error
    try:
        unpack(file_bytes(path), file)
    except PromptFileError as error:
        for part in (path.resolve(), path):
            with suppress(OSError):  # of a cache that is only read
                part.unlink(missing_ok=True)
        raise PromptFileError(
            f"{told} came damaged ({error}) It was taken out of the cache: try again. If it comes"
            " damaged again, it is so in the repository, and its owner has to push it anew."
        ) from error
    return path


def repository(name: str) -> str:
    """A repository's name, "user/name" or "hf://user/name", as "user/name". Raises
    `PromptFileError` for anything else, as an address or a path.
    """
    plain = SPELLED.sub("", _text(name), count=1)
    if not _sound(REPO, plain) or len(plain) > LONGEST:
        raise PromptFileError(
            f"Found {str(name)[:200]!r} as the name of a repository; needed is user/name: one /,"
            f" letters, digits, dots, dashes and underscores, at most {LONGEST} characters."
        )
    return plain


def reason(error: Exception, file: str = "") -> str:
    """What went wrong on the way to or from the hub, and what to do. file: that was asked for."""
    if type(error.__cause__).__name__ == "OfflineModeIsEnabled":
        error = cast(Exception, error.__cause__)  # why the cache was all there was
    for kind in type(error).__mro__:
        if kind.__name__ in REASONS:
            return REASONS[kind.__name__].format(file=file)
    said = next((line for line in str(error).split("\n") if line.strip()), type(error).__name__)
    status = getattr(getattr(error, "response", None), "status_code", None)
    do = "Check the network, and try again" if status not in REFUSED else f"{LOG_IN} that may do it"
    return f"{said.strip().rstrip('.')[:300]}. {do}."


def _text(place: str | Path) -> str:
    return place.as_posix() if isinstance(place, Path) else str(place)


def _sound(pattern: re.Pattern[str], text: str) -> bool:
    """Whether a name is of this kind, and leads nowhere else."""
    return pattern.fullmatch(text) is not None and ".." not in text
