"""Several runs on the examples that all of them tested, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.table import Table

from vpt.errors import PromptFileError
from vpt.files import write_atomically
from vpt.metrics.comparing import Difference, difference, share_interval, worth
from vpt.report import charts
from vpt.report.page import html_of, table_of
from vpt.report.progress import clean
from vpt.runs.page import read_run

COMPARISON = "comparison.html"


@dataclass(frozen=True)
class Compared:
    """A run on n examples: its accuracy with the interval of 95 %, and how much more often it is
    right than the first run, in pairs (None for that one).
    """

    folder: Path
    method: str
    accuracy: float
    interval: tuple[float, float]
    n: int
    gain: Difference | None


def compare_runs(folders: Sequence[Path]) -> list[Compared]:
    """Each run on the test examples that all of them have, by name. Raises `PromptFileError` where
    there are none, or where labels disagree.
    """
    found = [read_run(folder) for folder in folders]
    tested = [{row["file"]: row for row in rows if row["part"] == "test"} for _, rows in found]
    names = [name for name in tested[0] if all(name in rows for rows in tested[1:])]
    if not names:
        raise PromptFileError(
            f"Found no test example that all of {', '.join(map(str, folders))} have; needed are"
            " runs on the same test split."
        )
    for rows, folder in zip(tested, folders, strict=True):
        odd = [name for name in names if rows[name]["label"] != tested[0][name]["label"]]
        if odd:
            raise PromptFileError(
                f"{odd[0]} is labelled {rows[odd[0]]['label']} in {folder}, and"
                f" {tested[0][odd[0]]['label']} in {folders[0]}: these are different tasks."
            )
    right = [
        np.array([rows[name]["answer"] == rows[name]["label"] for name in names]) for rows in tested
    ]
    # what belongs together; an example without such a number stands alone
    units = [tested[0][name].get("unit") or f"alone {i}" for i, name in enumerate(names)]
    place = {unit: number for number, unit in enumerate(dict.fromkeys(units))}
    together = [place[unit] for unit in units]
    alone = [worth(own.astype(float), together) for own in right]
    return [
        Compared(
            folder,
            metrics["method"],
            float(own.mean()),
            share_interval(float(own.mean()) * n, n),
            len(own),
            difference(own, right[0], together) if i else None,
        )
        for i, (folder, (metrics, _), own, n) in enumerate(
            zip(folders, found, right, alone, strict=True)
        )
    ]


def compared(found: Sequence[Compared]) -> Table:
    """The runs side by side, each against the first."""
    heads = ("run", "method", "accuracy (95 %)", "− the first (95 %)")
    table = Table(*heads, title=f"{found[0].n} examples that all have tested")
    for one in found:
        low, high = one.interval
        gain = one.gain
        table.add_row(
            clean(str(one.folder)),
            clean(one.method),
            f"{one.accuracy:.1%} ({low:.0%} to {high:.0%})",
            f"{100 * gain.value:+.1f} ({100 * gain.low:+.1f} to {100 * gain.high:+.1f})"
            if gain is not None
            else "",
        )
    return table


def write_comparison(found: Sequence[Compared]) -> Path:
    """Write a page with the runs side by side into the folder of the first, and say where."""
    rows = [(str(one.folder), one.accuracy, *one.interval) for one in found]
    best = max(found, key=lambda one: one.accuracy)
    title = f"{len(found)} runs on the same {found[0].n} examples"
    page = {
        "title": title,
        "verdict": f"Most often right is {best.folder}: {best.accuracy:.1%}.",
        "rule": "",
        "careful": [],
        "tables": [table_of(compared(found))],
        "bars": [{"title": title, "picture": charts.intervals(rows, str(best.folder), title)}],
        "pictures": [],
        "facts": [(str(one.folder), one.method) for one in found],
        "left_out": [],
        "usage": "",
    }
    path = Path(found[0].folder) / COMPARISON
    write_atomically(path, html_of(page, "groups.html"))
    return path
