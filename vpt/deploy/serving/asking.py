"""POST /predict: what tasks say of a picture or a sound."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, File, Form, HTTPException, UploadFile
from fastapi.concurrency import run_in_threadpool

from vpt.data.readers import RawInput
from vpt.deploy.serving.batching import Answers, Busy, Stopped
from vpt.deploy.serving.counting import Counts
from vpt.deploy.serving.limits import HANG_UP
from vpt.deploy.serving.service import Service, answer
from vpt.deploy.serving.tasks import UnknownTaskError
from vpt.errors import DataError, PromptFileError
from vpt.errors.places import is_file
from vpt.sites import Config

AGAIN = {"Retry-After": "1"}
FULL = "As many requests wait as may; try again in a moment."
DECODED = min(4, os.cpu_count() or 1)  # at once: a picture may take half a gigabyte


@dataclass(frozen=True)
class Rules:
    """Whom and what it serves.

    files: a folder whose files may be named in place of an upload. token: that whoever changes the
        tasks must show; None lets nobody. most: bytes of a request. seconds: until a request has
        arrived, and again until it is answered.
    """

    files: Path | None = None
    token: str | None = None
    most: int = 32_000_000
    seconds: float = 30.0


def asking(service: Service, rules: Rules, counts: Counts) -> APIRouter:
    """The route that is asked for answers."""
    router, decoding, reading = APIRouter(), asyncio.Semaphore(DECODED), 0

    @router.post("/predict")
    async def predict(
        file: Annotated[UploadFile | None, File(description="a picture or a sound")] = None,
        path: Annotated[str | None, Form(description="of a file in the allowed folder")] = None,
        task: Annotated[list[str] | None, Form(description="one or several")] = None,
        top_k: Annotated[int, Form(ge=1, le=1000)] = 3,
    ) -> Config:
        """What tasks say of a picture or a sound; several share one forward where they can."""
        nonlocal reading
        tasks = _tasks(service, task)
        if reading >= service.batcher.waiting:
            raise HTTPException(503, FULL, AGAIN)
        reading += 1
        try:
            async with asyncio.timeout(rules.seconds):
                async with decoding:  # an upload is on disk until then
                    name, data = await _given(rules, file, path)
                    windows = await _prepared(service, rules, name, data)
                found = await _answered(service, windows, tasks)
        except TimeoutError:
            why = f"It was not answered in {rules.seconds:g} seconds."
            raise HTTPException(503, why, AGAIN) from None
        finally:
            reading -= 1
        for one in tasks:
            counts.answers.labels(one).inc()
        return {
            "file": name,
            "answers": {one: answer(found[one], top_k) for one in tasks},
        }

    return router


async def _prepared(
    service: Service, rules: Rules, name: str, data: bytes | Path
) -> list[RawInput]:
    """Raw input of what was handed over."""
    try:
        return await run_in_threadpool(service.prepare, data, name)
    except DataError as error:
        raise HTTPException(422, _without_folder(str(error), rules)) from error


def _tasks(service: Service, named: list[str] | None) -> list[str]:
    """The tasks that were asked for, each once; the only one where there is one."""
    if not named:
        known = list(service.tasks.facts)
        if len(known) == 1:
            return known
        raise HTTPException(422, f"Say which task, or several: task={', '.join(known[:10])}.")
    gone = [name for name in named if name not in service.tasks]
    if gone:
        raise HTTPException(
            404, f"There is no task {gone[0]!r:.120}; GET /tasks lists those there are."
        )
    return list(dict.fromkeys(named))


async def _given(
    rules: Rules, file: UploadFile | None, path: str | None
) -> tuple[str, bytes | Path]:
    """(The name of what is to be classified, its bytes or where it is)."""
    if (file is None) == (path is None):
        raise HTTPException(422, "Send one of file (an upload) and path (of the allowed folder).")
    if file is not None:
        return file.filename or "upload", await file.read()
    if rules.files is None:
        raise HTTPException(
            403, "Files of this machine are not served: it was started without --files."
        )
    name = str(path)
    try:
        folder = rules.files.resolve()
        found = (folder / name).resolve()
    except (OSError, ValueError, RuntimeError):
        raise HTTPException(404, "There is no such file.") from None
    if not found.is_relative_to(folder):
        raise HTTPException(403, "That is outside of the folder whose files may be named.")
    if not is_file(found):
        raise HTTPException(404, "There is no such file.")
    return name, found


def _without_folder(said: str, rules: Rules) -> str:
    """A reason, without where the folder is on this machine."""
    return said.replace(f"{rules.files.resolve()}{os.sep}", "") if rules.files else said


async def _answered(service: Service, windows: list[RawInput], tasks: list[str]) -> Answers:
    """What each task says, when its batch has run."""
    try:
        return await asyncio.wrap_future(service.ask(windows, tasks))
    except Busy:
        raise HTTPException(503, FULL, AGAIN) from None
    except Stopped:
        raise HTTPException(503, "It is stopping.", HANG_UP) from None
    except UnknownTaskError as error:
        raise HTTPException(404, str(error)) from error
    except PromptFileError as error:  # since somebody looked at the folder last
        raise HTTPException(404, "The file of a task is gone, or was altered.") from error
