"""The command line: each command is a thin call of a function; they are listed in this order."""

from __future__ import annotations

import logging
import sys
from importlib import metadata
from typing import Annotated

import typer
from rich.console import Console

from vpt.cli.correcting import correct
from vpt.cli.deploying import export
from vpt.cli.explaining import explain
from vpt.cli.fairness import audit, reprogram
from vpt.cli.learning import adapt, demo
from vpt.cli.models import backbones, bench
from vpt.cli.serving import serve
from vpt.cli.sharing import push
from vpt.cli.storing import features
from vpt.cli.using import evaluate, inspect, library, predict, report
from vpt.errors import VptError
from vpt.report.progress import clean

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode="rich",
)
for command in (
    demo,
    adapt,
    reprogram,
    audit,
    evaluate,
    predict,
    library,
    inspect,
    report,
    explain,
    correct,
    features,
    export,
    push,
    serve,
    backbones,
    bench,
):
    app.command()(command)


def _say_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"vpt {metadata.version('vpt')}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_say_version, is_eager=True, help="which vpt this is"),
    ] = False,
) -> None:
    """Prompt tuning for frozen vision and audio transformers."""


def main() -> None:
    """Run the command line; a mistake of the user's is a message, not a traceback."""
    logging.getLogger("torch").setLevel(logging.ERROR)
    try:
        app()
    except VptError as error:
        Console(stderr=True).print(
            f"[bold red]{type(error).__name__}[/]: {clean(str(error), lines=True)}", highlight=False
        )
        sys.exit(1)
    finally:
        if (
            (distributed := sys.modules.get("torch.distributed"))
            and distributed.is_available()
            and distributed.is_initialized()
        ):
            # or a process that ends before the others may abort
            distributed.destroy_process_group()
