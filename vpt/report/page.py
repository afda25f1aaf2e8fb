"""A page about a run: one HTML file that needs no network, and the same in short as Markdown."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from rich.table import Table
from rich.text import Text

from vpt.errors.text import printable
from vpt.sites import Config

LOGGER = logging.getLogger("vpt")


@cache
def _template(name: str) -> Any:
    room = FileSystemLoader(Path(__file__).parent)
    return Environment(autoescape=True, undefined=StrictUndefined, loader=room).get_template(name)


def html_of(page: Config, template: str = "page.html") -> bytes:
    """The page, from what its template asks for. Names of classes and files are data, never markup;
    what a terminal or a page would take for an order is spelled out.
    """
    return str(_template(template).render(**_plain(page))).encode("utf-8", "backslashreplace")


def draw_or_say(folder: Path, draw: Callable[[], object]) -> None:
    """Draw the page of a run's folder; the run stands, whatever befalls the page."""
    try:
        draw()
    except Exception as error:
        LOGGER.warning(
            "The page of %s could not be drawn: %s. vpt report tries again.", folder, error
        )


def table_of(table: Table) -> Config:
    """A table of the terminal, for a page."""
    columns = [[_words(cell) for cell in column.cells] for column in table.columns]
    return {
        "title": _words(table.title),
        "heads": [_words(column.header) for column in table.columns],
        "rows": [list(row) for row in zip(*columns, strict=True)],
        "caption": _words(table.caption),
    }


def _words(cell: object) -> str:
    return Text.from_markup(cell).plain if isinstance(cell, str) else str(cell or "")


def _plain(value: Any) -> Any:
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, (list, tuple)) else value


def markdown_of(page: Config) -> str:
    """Verdict, numbers and facts, for a pull request."""
    rows = ["method", "on", "accuracy", "balanced", "log loss", "calibration error"]
    lines = [f"### {_cell(page['title'])}", "", f"{_cell(page['verdict'])}.", ""]
    lines += [f"| {' | '.join(rows)} |", f"|{' --- |' * len(rows)}"]
    for row in page["numbers"]:
        cells = [row[name] for name in ("method", "part", "accuracy", "balanced", "loss")]
        cells.append(row["calibration"])
        strong = "**" if row["strong"] else ""
        lines.append(f"| {' | '.join(f'{strong}{_cell(cell)}{strong}' for cell in cells)} |")
    lines += ["", *(f"- {_cell(name)}: {_cell(value)}" for name, value in page["facts"])]
    return "\n".join(lines) + "\n"


def _cell(text: object) -> str:
    """Text as Markdown shows it, whatever stands in it."""
    plain = printable(str(text), lines=False)
    for sign in "\\`*_[]<>|#":
        plain = plain.replace(sign, f"\\{sign}")
    return plain
