"""From a folder of prompts to a server that runs until it is stopped."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vpt.deploy.serving.app import application
from vpt.deploy.serving.asking import Rules
from vpt.deploy.serving.counting import SEVERAL
from vpt.deploy.serving.service import Service
from vpt.errors import ExportError
from vpt.errors.needs import whole

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
    dtype: str | None = None,
    token: str | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> None:
    """Serve a folder of prompts over HTTP, until it is told to stop (SIGTERM, Ctrl-C); what it has
    taken on by then is answered.

    folder, backbone, batch, waiting, dtype: as for `Service`.
    host, port: where it listens.
    workers: processes, each with a model of its own; one that dies is begun anew.
    files, token, most, seconds: as for `Rules`.
    say: is told what is done.

    Raises `PromptFileError`, `BackboneError` before it listens.
    """
    import uvicorn

    whole(ExportError, workers=workers, most=most)
    told: dict[str, Any] = {
        "folder": str(Path(folder).resolve()),
        "service": {"backbone": backbone, "batch": batch, "waiting": waiting, "dtype": dtype},
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
    if token:
        os.environ[TOKEN] = token
    service = _opened(told)
    say(
        f"{len(service.tasks)} tasks on {type(service.backbone.model).__name__}, at"
        f" http://{host}:{port}"
    )
    for name, reason in service.broken.items():
        say(f"Not served: {name}: {reason}")
    if workers == 1:
        uvicorn.run(application(service, _rules(told)), **how)
        return
    service.close()  # it was to see that it can be opened
    os.environ[TOLD] = json.dumps(told)
    os.environ[SEVERAL] = tempfile.mkdtemp(prefix="vpt-counts-")
    try:
        uvicorn.run(f"{__name__}:told_by_environment", factory=True, workers=workers, **how)
    finally:
        shutil.rmtree(os.environ.pop(SEVERAL), ignore_errors=True)


def told_by_environment() -> Any:
    """The application of one of several processes."""
    told = json.loads(os.environ[TOLD])
    return application(_opened(told), _rules(told))


def _opened(told: dict[str, Any]) -> Service:
    return Service(told["folder"], **told["service"])


def _rules(told: dict[str, Any]) -> Rules:
    rules = told["rules"]
    files = Path(rules["files"]) if rules["files"] else None
    return Rules(files, os.environ.get(TOKEN), rules["most"], rules["seconds"])
