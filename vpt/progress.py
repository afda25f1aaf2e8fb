"""Progress bars on the terminal's error stream; nothing where there is no terminal."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from vpt.text import printable


def progress_bar(shown: bool) -> Progress:
    """A bar that leaves nothing behind."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, transient=True, disable=not (shown and console.is_terminal))


def clean(text: object, lines: bool = False) -> str:
    """Text from outside for rich: no markup, and nothing that a terminal obeys. lines: whether it may have several."""
    return escape(printable(str(text), lines))


def notice(text: str, shown: bool = True) -> None:
    """A line on the error stream about what is done, for people."""
    if shown:
        Console(stderr=True).print(f"[dim]{clean(text, lines=True)}[/]", highlight=False)
