"""The web application: who may ask what, and what is answered."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Header, HTTPException, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response

from vpt.deploy.serving.asking import Rules, asking
from vpt.deploy.serving.counting import Counts
from vpt.deploy.serving.limits import Limits
from vpt.deploy.serving.service import Service
from vpt.deploy.serving.tasks import OfRunError, UnknownTaskError
from vpt.errors import VptError
from vpt.sites import Config

FOLLOWED = 1.0  # seconds between looks at the folder
PAGE = Path(__file__).with_name("page.html")


def application(service: Service, rules: Rules | None = None) -> FastAPI:
    """A service as a web application.

    POST /predict (an upload, or a path inside the allowed folder), GET /tasks, PUT and DELETE
    /tasks/NAME (with the token), GET /health, GET /metrics, GET / (a page to try a picture), GET
    /docs.
    """
    rules, counts = rules or Rules(), Counts()

    @asynccontextmanager
    async def lifetime(app: FastAPI) -> AsyncIterator[None]:
        following = asyncio.create_task(_follow(service, counts))
        yield
        following.cancel()
        await run_in_threadpool(service.close)

    app = FastAPI(title="vpt", version=metadata.version("vpt"), lifespan=lifetime)
    app.middleware("http")(counts)
    app.add_middleware(Limits, most=rules.most, seconds=rules.seconds)

    @app.exception_handler(VptError)
    async def explained(request: Request, error: VptError) -> Response:
        return JSONResponse({"detail": str(error)}, 422)

    @app.exception_handler(RequestValidationError)
    async def misread(request: Request, error: RequestValidationError) -> Response:
        wrong = [f"{one['loc'][-1]}: {one['msg']}" for one in error.errors()]  # and no echo
        return JSONResponse({"detail": "; ".join(wrong)}, 422)

    app.include_router(asking(service, rules, counts))
    app.include_router(changing(service, rules))
    app.include_router(watching(service, counts))
    return app


def changing(service: Service, rules: Rules) -> APIRouter:
    """The routes that list tasks, and change them."""
    router = APIRouter()

    @router.get("/tasks")
    async def tasks() -> Config:
        """What is served, and what is in the folder but cannot be."""
        return {"tasks": service.tasks.facts, "broken": service.tasks.broken}

    owner = Depends(_shows(rules.token))

    @router.put("/tasks/{name}", dependencies=[owner])
    async def put(name: str, request: Request) -> Response:
        """Add a task, or swap its prompt: the body is a prompt file."""
        try:
            new = await run_in_threadpool(service.tasks.put, name, await request.body())
        except OfRunError as error:
            raise HTTPException(409, str(error)) from error
        except OSError as error:
            raise HTTPException(507, _unwritable(error)) from error
        return JSONResponse({"task": name, "new": new}, 201 if new else 200)

    @router.delete("/tasks/{name}", dependencies=[owner])
    async def delete(name: str) -> Config:
        """Take a task out, and delete its prompt file."""
        try:
            await run_in_threadpool(service.tasks.take_out, name)
        except UnknownTaskError as error:
            raise HTTPException(404, str(error)) from error
        except OfRunError as error:
            raise HTTPException(409, str(error)) from error
        except OSError as error:
            raise HTTPException(507, _unwritable(error)) from error
        return {"task": name}

    return router


def watching(service: Service, counts: Counts) -> APIRouter:
    """The routes by which it is looked after, and the page."""
    router = APIRouter()

    @router.get("/health")
    async def health() -> Response:
        """Whether it serves: 200, or 503."""
        alive = service.batcher.alive
        told = {
            "status": "ok" if alive else "stopped",
            "model": type(service.backbone.model).__name__,
            "takes": service.backbone.inputs.kind,
            "tasks": len(service.tasks),
            "broken": len(service.tasks.broken),
            "waiting": len(service.batcher),
            "version": metadata.version("vpt"),
        }
        return JSONResponse(told, 200 if alive else 503)

    @router.get("/metrics")
    async def metrics() -> Response:
        """Counts, as Prometheus reads them."""
        _count(service, counts)
        return counts.page()

    @router.get("/", response_class=HTMLResponse)
    async def page() -> str:
        """A page to try a picture."""
        return PAGE.read_text(encoding="utf-8")

    return router


def _shows(token: str | None) -> Any:
    """What lets only those change the tasks who show the token."""

    async def checked(authorization: Annotated[str, Header()] = "") -> None:
        if token is None:
            raise HTTPException(403, "Tasks cannot be changed: it was started without a token.")
        if not hmac.compare_digest(authorization.encode(), f"Bearer {token}".encode()):
            raise HTTPException(
                401, "Needed is Authorization: Bearer TOKEN.", {"WWW-Authenticate": "Bearer"}
            )

    return checked


def _unwritable(error: OSError) -> str:
    return f"The folder of prompts cannot be written: {error.strerror or type(error).__name__}."


async def _follow(service: Service, counts: Counts) -> None:
    """Keep in step with the folder."""
    while True:
        await asyncio.sleep(FOLLOWED)
        _count(service, counts)
        with suppress(VptError, OSError):  # a folder that is being changed; the next look will do
            await run_in_threadpool(service.tasks.refresh)


def _count(service: Service, counts: Counts) -> None:
    counts.waiting.set(len(service.batcher))
    while service.batches:
        counts.batches.observe(service.batches.pop())
