"""What corrections of a run come to, in words and tables, and their page."""

from __future__ import annotations

import shlex
from pathlib import Path

from rich.table import Table

from vpt.errors import PromptFileError
from vpt.errors.places import is_file
from vpt.files import write_atomically
from vpt.report.page import html_of, table_of
from vpt.report.progress import clean
from vpt.report.tables import RECOMMENDED, sentence
from vpt.runs.journal import JOURNAL, journal
from vpt.runs.page import PAGE
from vpt.sites import Config

TEMPLATE = "groups.html"
SHOWN = 8  # examples whose answer changes


def is_corrected(folder: Path) -> bool:
    """Whether a folder holds a run of `vpt correct`."""
    return is_file(folder / JOURNAL)


def in_words(report: Config) -> list[str]:
    """What was mended, what to expect of others, and what else changes, a sentence or two each."""
    wrong, held, check = report["mistaken"], report["held_out"], report["check"]
    right = report["given"] - wrong
    said = [
        f"{report['mended']} of {wrong} mistakes mended."
        + (f" {right} were right already." if right else "")
    ]
    if held is None:
        said.append("A single one says nothing about others of its kind.")
    else:
        said.append(
            f"Held out in turn, {held['mended']} of {held['of']} are mended"
            f" ({held['low']:.0%} to {held['high']:.0%}): expect that of others of their kind."
        )
    if check is None:
        said.append(
            f"Elsewhere about {report['turned_wrong']:.1%} of answers turn wrong and"
            f" {report['turned_right']:.1%} right, by what the run remembers. --check DATA measures"
            " it."
        )
    else:
        change = check["difference"]
        said.append(
            f"On {check['n']} examples of the check set: accuracy {check['before']:.1%} →"
            f" {check['after']:.1%}, {100 * change['value']:+.1f} points"
            f" ({100 * change['low']:+.1f} to {100 * change['high']:+.1f}); {change['worse']} turn"
            f" wrong, {change['better']} right."
        )
    return said


def changed(report: Config, which: str = "turned_wrong", most: int = SHOWN) -> Table | None:
    """Examples of the check set that are "turned_wrong" or "turned_right"; None where there is
    none.
    """
    rows = (report["check"] or {}).get(which) or []
    if not rows:
        return None
    title = which.replace("turned", "turns").replace("_", " ")
    table = Table(title, "is", "was said", "is said now")
    for one in rows[:most]:
        table.add_row(*(clean(one[name]) for name in ("name", "label", "said", "now")))
    if len(rows) > most:
        table.caption = f"and {len(rows) - most} more"
    return table


def write_corrected(folder: Path) -> Path:
    """Write the page of a corrected run into its folder, and say where. Raises
    `PromptFileError`.
    """
    entries = journal(folder)
    if not entries:
        raise PromptFileError(f"Found no {JOURNAL} in {folder}; needed is a run of vpt correct.")
    last, run = entries[-1], shlex.quote(str(folder))
    recommended = sentence(RECOMMENDED[last["recommendation"]])
    turned = [changed(last, which, 50) for which in ("turned_wrong", "turned_right")]
    tables = [_list(entries), _given(last), *turned]
    page = {
        "title": f"{folder.resolve().name}: {_times(len(entries))}",
        "verdict": f"{recommended}. {' '.join(in_words(last))}",
        "rule": "the one that mends most of the mistakes when they are held out, of those within"
        f" {last['budget']:.1%} of accuracy elsewhere",
        "careful": [],
        "tables": [table_of(table) for table in tables if table is not None],
        "bars": [],
        "pictures": [],
        "facts": [
            ("learned from", "the mistakes alone: no earlier example, and no picture is kept")
        ],
        "left_out": [],
        "usage": f"vpt predict {run} FILE…\nvpt correct {run} MISTAKES --out AGAIN\n"
        f"vpt correct {run} --undo --out BEFORE",
    }
    write_atomically(folder / PAGE, html_of(page, TEMPLATE))
    return folder / PAGE


def _times(count: int) -> str:
    return "corrected once" if count == 1 else f"corrected {count} times"


def _list(entries: list[Config]) -> Table:
    table = Table(
        "correction", "on", "mistakes mended", "held out", "elsewhere", title="corrections"
    )
    for one in entries:
        held, check = one["held_out"], one["check"]
        lost = 100 * (one["turned_right"] - one["turned_wrong"])
        elsewhere = f"{lost:+.1f} points, foreseen"
        if check is not None:
            elsewhere = f"{100 * check['difference']['value']:+.1f} points of {check['n']}"
        table.add_row(
            str(one["number"]),
            one["date"],
            f"{one['mended']} of {one['mistaken']}",
            f"{held['mended']} of {held['of']}" if held else "–",
            elsewhere,
        )
    return table


def _given(last: Config) -> Table:
    """What the last correction was of."""
    table = Table("given", "is", "was said", "is said now", title="the last correction")
    for one in last["examples"][:50]:
        table.add_row(*(clean(one[name]) for name in ("name", "label", "said", "now")))
    return table
