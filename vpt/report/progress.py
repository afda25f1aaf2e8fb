"""How far something is: a bar on the terminal's error stream, a line now and then where there is no
terminal.
"""

from __future__ import annotations

import time
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

from vpt.errors.text import printable

EVERY = 20.0  # seconds between two lines in a log


class Lines(Progress):
    """The same without a terminal (a log, a batch system): a plain line every 20 seconds, so that
    it is seen to live.
    """

    def __init__(self, console: Console) -> None:
        super().__init__(console=console, auto_refresh=False, disable=True)
        self._said = time.monotonic()

    def advance(self, task_id: TaskID, advance: float = 1) -> None:
        """As `Progress` does, and now and then a line."""
        super().advance(task_id, advance)
        self._say(self._tasks[task_id])

    def update(self, task_id: TaskID, **changes: Any) -> None:
        """As `Progress` does, and now and then a line."""
        super().update(task_id, **changes)
        self._say(self._tasks[task_id])

    def _say(self, task: Task) -> None:
        now = time.monotonic()
        if now - self._said < EVERY or not task.total:
            return
        self._said = now
        left = f", about {span(task.time_remaining)} left" if task.time_remaining else ""
        self.console.print(
            f"{task.description}: {task.completed:.0f} of {task.total:.0f}{left}",
            markup=False,
            highlight=False,
        )


def progress_bar(shown: bool) -> Progress:
    """A bar that leaves nothing behind; lines in a log."""
    console = Console(stderr=True)
    if shown and not console.is_terminal:
        return Lines(console)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=console, transient=True, disable=not shown)


def span(seconds: float) -> str:
    """A length of time for people: "40 s", "2 min 10 s", "6 minutes", "2.5 hours"."""
    if seconds < 100:
        return f"{max(1, round(seconds))} s"
    if seconds < 300:
        minutes, rest = divmod(round(seconds, -1), 60)
        return f"{minutes:.0f} min {rest:.0f} s"
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"


def clean(text: object, lines: bool = False) -> str:
    """Text from outside for rich: no markup, and nothing that a terminal obeys. lines: whether it
    may have several.
    """
    return escape(printable(str(text), lines))


def notice(text: str, shown: bool = True) -> None:
    """A line on the error stream about what is done, for people."""
    if shown:
        Console(stderr=True).print(f"[dim]{clean(text, lines=True)}[/]", highlight=False)
