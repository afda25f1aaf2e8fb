"""What the commands share: the console, and what is said on it."""

from __future__ import annotations

import csv
import io
import json
import shlex
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.table import Table

from vpt.errors.text import printable
from vpt.report.progress import clean

console = Console()
STOPPED = "Stopped. The same command with --resume goes on from the last checkpoint."


@contextmanager
def stoppable() -> Iterator[None]:
    """Ctrl-C ends a run with a sentence, not with a traceback."""
    try:
        yield
    except KeyboardInterrupt:
        console.print(STOPPED)
        raise typer.Exit(130) from None


def command() -> str:
    """The command line as it was given."""
    return shlex.join(["vpt", *sys.argv[1:]])


def folder_for(data: Path) -> Path:
    """Where a run goes that was told no folder: photos/ and photos.zip → runs/photos."""
    return Path("runs") / (data.resolve().stem or "data")


def given(**settings: object) -> dict[str, Any]:
    """Those that were given."""
    return {name: value for name, value in settings.items() if value is not None}


def dim(text: str) -> None:
    """Something on the way, in grey."""
    console.print(f"[dim]{clean(text, lines=True)}[/]")


def careful(text: str) -> None:
    """A warning."""
    console.print(f"[yellow]Careful:[/] {clean(text)}.", highlight=False)


def print_json(value: object) -> None:
    """One line of JSON, for programs."""
    typer.echo(json.dumps(value))


def print_csv(rows: Iterable[Iterable[object]]) -> None:
    """Rows of a CSV, for programs; what a terminal would take for an order is spelled out."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(
        [printable(cell, lines=False) if isinstance(cell, str) else cell for cell in row]
        for row in rows
    )
    typer.echo(text.getvalue(), nl=False)


def print_table(table: Table) -> None:
    """A table that fits the terminal; in a file or a pipe, each row on one line, nothing cut."""
    wide = console if console.is_terminal else Console(file=console.file, width=10_000)
    wide.print(table)
