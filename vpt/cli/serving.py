"""The command that serves a folder of prompts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vpt.cli.options import BackboneOption, Dtype
from vpt.cli.terminal import dim


def serve(
    folder: Annotated[Path, typer.Argument(help="a folder of prompt files, or of runs")],
    host: Annotated[str, typer.Option(help="where it listens; 0.0.0.0 for all of the network")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(min=1, max=65535, help="where it listens")] = 8000,
    workers: Annotated[
        int, typer.Option(min=1, help="processes, each with a model of its own")
    ] = 1,
    files: Annotated[
        Path | None, typer.Option(help="a folder whose files may be named in place of an upload")
    ] = None,
    token: Annotated[
        str | None,
        typer.Option(
            envvar="VPT_TOKEN", help="who shows it may change the tasks; better by the variable"
        ),
    ] = None,
    most: Annotated[int, typer.Option(min=1, help="bytes of a request")] = 32_000_000,
    timeout: Annotated[
        float, typer.Option(min=0.1, help="seconds for a request to arrive, and to be answered")
    ] = 30.0,
    batch: Annotated[int, typer.Option(min=1, help="inputs in one forward")] = 32,
    waiting: Annotated[int, typer.Option(min=1, help="requests that may wait")] = 512,
    keep: Annotated[
        int, typer.Option(min=1, help="tasks in memory; others are read when they are asked for")
    ] = 256,
    backbone: BackboneOption = None,
    dtype: Dtype = None,
) -> None:
    """Serve a folder of prompts over HTTP: one model in memory, any number of tasks.

    /predict, /tasks, /health, /metrics, /docs, and a page to try a picture. Whatever waits, of any
    task, shares a forward. A prompt that is put into the folder is served from then on.
    """
    from vpt.deploy.needs import needed

    needed("serve", "fastapi", "uvicorn", "python_multipart", "prometheus_client")
    from vpt.deploy.serving.running import serve as run_serve

    run_serve(
        folder,
        host=host,
        port=port,
        backbone=backbone,
        workers=workers,
        files=files,
        most=most,
        seconds=timeout,
        batch=batch,
        waiting=waiting,
        keep=keep,
        dtype=dtype,
        token=token,
        say=dim,
    )
