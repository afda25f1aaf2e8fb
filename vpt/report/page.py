"""A page about a run: one HTML file that needs no network, and the same in short as Markdown."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from vpt.errors.text import printable
from vpt.sites import Config


@cache
def _template() -> Any:
    text = Path(__file__).with_name("page.html").read_text(encoding="utf-8")
    return Environment(autoescape=True, undefined=StrictUndefined).from_string(text)


def html_of(page: Config) -> bytes:
    """The page. Names of classes and files are data, never markup; what a terminal or a page would
    take for an order is spelled out.
    """
    return str(_template().render(**_plain(page))).encode("utf-8", "backslashreplace")


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
