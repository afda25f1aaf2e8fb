"""From a folder of prompts to a server that runs until it is stopped."""

from __future__ import annotations

import json
import os
import shutil
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vpt.deploy.serving.app import application
from vpt.deploy.serving.asking import Rules
from vpt.deploy.serving.counting import SEVERAL
from vpt.deploy.serving.service import KEPT, Service
from vpt.errors import ExportError
from vpt.errors.needs import whole
from vpt.errors.places import is_folder

TOLD = "VPT_SERVE"  # what processes that serve together are told, as JSON
TOKEN = "VPT_TOKEN"  # noqa: S105  # the name of a variable


def serve(
    folder: str | Path,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    backbone: str | None = None,
    workers: int = 1,
    files: str | Path | None = None,
    most: int = Rules.most,
    seconds: float = Rules.seconds,
    batch: int = 32,
    waiting: int = 512,
    keep: int = KEPT,
    dtype: str | None = None,
    token: str | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> None:
    """Serve a folder of prompts over HTTP, until it is told to stop (SIGTERM, Ctrl-C); what it has
    taken on by then is answered.

    folder, backbone, batch, waiting, keep, dtype: as for `Service`.
    host, port: where it listens.
    workers: processes, each with a model of its own; one that dies is begun anew.
    files, token, most, seconds: as for `Rules`.
    say: is told what is done.

    Raises `PromptFileError`, `BackboneError`, and `ExportError` for a place where it cannot listen,
    before it does.
    """
    import uvicorn

    whole(ExportError, workers=workers, most=most)
    told: dict[str, Any] = {
        "folder": str(Path(folder).resolve()),
        "service": {
            "backbone": backbone,
            "batch": batch,
            "waiting": waiting,
            "keep": keep,
            "dtype": dtype,
        },
        "rules": {
            "files": str(Path(files).resolve()) if files else None,
            "most": most,
            "seconds": seconds,
        },
    }
    how: dict[str, Any] = {
        "host": host,
        "port": port,
        "log_level": "warning",
        "timeout_keep_alive": 10,
        "timeout_graceful_shutdown": int(seconds) + 1,
        "h11_max_incomplete_event_size": 1 << 16,
    }
    if files is not None and not is_folder(Path(files)):
        raise ExportError(f"Found no folder {files}; needed is one whose files may be named.")
    _refuse_taken(host, port)
    service = _opened(told)
    for name, reason in service.tasks.broken.items():
        say(f"Not served: {name}: {reason}")
    say(
        f"{len(service.tasks)} tasks on {type(service.backbone.model).__name__}, at"
        f" http://{host}:{port}"
    )
    if workers == 1:
        uvicorn.run(application(service, _rules(told, token)), **how)
        return
    like = service.like
    service.close()  # it was to see that it can be opened
    del service  # each process has a model of its own
    place = Path(tempfile.mkdtemp(prefix="vpt-serve-"))
    if like is not None:  # a process that is begun anew finds another folder, maybe
        told["service"]["like"] = str(shutil.copy(like, place / "like.vpt"))
    os.environ |= {TOLD: json.dumps(told), SEVERAL: str(place), TOKEN: token or ""}
    try:
        uvicorn.run(f"{__name__}:told_by_environment", factory=True, workers=workers, **how)
    finally:
        for name in (TOLD, SEVERAL, TOKEN):
            del os.environ[name]
        shutil.rmtree(place, ignore_errors=True)


def _refuse_taken(host: str, port: int) -> None:
    """Raise `ExportError` where nothing can listen there."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind(address)
    except OSError as error:
        raise ExportError(
            f"Cannot listen at {host}, port {port}: {error.strerror or error}. Choose another"
            " port=… (--port) or host=… (--host)."
        ) from error


def told_by_environment() -> Any:
    """The application of one of several processes."""
    told = json.loads(os.environ[TOLD])
    return application(_opened(told), _rules(told, os.environ[TOKEN] or None))


def _opened(told: dict[str, Any]) -> Service:
    return Service(told["folder"], **told["service"])


def _rules(told: dict[str, Any], token: str | None) -> Rules:
    rules = told["rules"]
    files = Path(rules["files"]) if rules["files"] else None
    return Rules(files, token, rules["most"], rules["seconds"])
