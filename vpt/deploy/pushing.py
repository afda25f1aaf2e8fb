"""A run to the Hugging Face hub: its prompt file, and a card that says what it is worth."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vpt.deploy.card import card_of, without_path
from vpt.errors import PromptFileError
from vpt.files import file_bytes, pack, read
from vpt.files.hub import SCHEME, reason, repository
from vpt.files.naming import PROMPT, prompt_file

CARD = "README.md"
OPENED = ("bundled", "timm", "timm-hub", "hub")  # by a name that is the same everywhere


@dataclass(frozen=True)
class Pushed:
    """What `push` sent. place: of this very commit, for `vpt.load`. url: of the repository's page.
    card: what it says. bytes: of the prompt file.
    """

    place: str
    url: str
    card: str
    bytes: int


def push(
    run: str | Path,
    repo: str,
    *,
    private: bool = False,
    message: str = "Upload a prompt with vpt",
    token: str | None = None,
    licence: str | None = None,
) -> Pushed:
    """Send a run's prompt file and its card to a repository of the Hugging Face hub, which is made
    if it is not there. Nothing else is sent: no example (but hard queries are crops of some), and
    no path of this machine.

    run: a run's folder, or a prompt file.
    repo: "user/name".
    private: whether only its owner sees it.
    message: of the commit.
    token: of the account, if another than `hf auth login` or HF_TOKEN says.
    licence: of the prompt, as the hub calls it ("apache-2.0").

    Raises `PromptFileError` for a prompt that was altered or damaged, a name that is none, where
    the hub refuses or cannot be reached, and for `private` where everybody sees the repository.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    repo = repository(repo)
    data, card = to_send(run, repo, licence)
    hub = HfApi(token=token)
    files = [CommitOperationAdd(PROMPT, data), CommitOperationAdd(CARD, card.encode())]
    try:
        url = str(hub.create_repo(repo, private=private, exist_ok=True))
        open_to_all = private and not hub.model_info(repo).private
        if not open_to_all:
            commit = hub.create_commit(repo, files, commit_message=message).oid
    except Exception as error:  # of every library that the transfer goes through
        raise PromptFileError(f"{repo} cannot be written: {reason(error)}") from error
    if open_to_all:
        raise PromptFileError(
            f"{repo} is there already, and everybody sees it; nothing was sent. Make it private on"
            " its page, choose another name, or push without private=True (--private)."
        )
    return Pushed(f"{SCHEME}{repo}@{commit}", url, card, len(data))


def to_send(run: str | Path, repo: str, licence: str | None = None) -> tuple[bytes, str]:
    """(the prompt file, its card), as `push` sends them: a model that was opened from a folder is
    called by the folder's own name. Raises `PromptFileError`.
    """
    repo = repository(repo)
    place = prompt_file(run)
    header, tensors = read(place)
    data = file_bytes(place)
    identity = header["backbone"]["identity"]
    if identity["kind"].split(",")[0] not in OPENED:
        identity["source"] = without_path(str(identity["source"]))
        data = pack(tensors, header)
    return data, card_of(place, header, len(data), repo, licence)
