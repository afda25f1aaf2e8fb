"""The page of a run: how good it is, what it gets wrong, what was done, how to use it."""

from __future__ import annotations

import csv
import json
import shlex
from collections.abc import Mapping
from pathlib import Path

from vpt.data.examples import Examples
from vpt.errors import PromptFileError
from vpt.errors.places import is_file
from vpt.files import write_atomically
from vpt.report import charts
from vpt.report.page import html_of, markdown_of
from vpt.report.progress import span
from vpt.report.tables import HEADS, sentence
from vpt.runs.answers import PARTS
from vpt.runs.inlined import cost_of, pictures_in
from vpt.runs.mistakes import Row, alike, classes, groups, matrix, reliability
from vpt.runs.report import PREDICTIONS
from vpt.runs.showing import Show, from_notes, from_parts, noted
from vpt.sites import Config
from vpt.training.folders import METRICS

PAGE = "report.html"
SHOWN = "shown.json"


def write_page(folder: Path, parts: Mapping[str, Examples] | None = None) -> Path:
    """Write the page of a run's folder into it, and say where. Raises `PromptFileError`.

    parts: the examples, where they are at hand: what the page shows of them is kept in the folder,
        and taken from there when the page is written again.
    """
    notes: dict[str, dict[str, str]] = {}
    show = from_notes(_notes(folder)) if parts is None else noted(from_parts(parts), notes)
    page = html_of(page_of(folder, show))
    if parts is not None:
        write_atomically(folder / SHOWN, json.dumps(notes).encode())
    write_atomically(folder / PAGE, page)
    return folder / PAGE


def _notes(folder: Path) -> Config:
    if not is_file(folder / SHOWN):
        return {}
    try:
        found = json.loads((folder / SHOWN).read_text(encoding="utf-8"))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def markdown(folder: Path) -> str:
    """The same in short, as Markdown. Raises `PromptFileError`."""
    return markdown_of(page_of(folder, from_notes({})))


def page_of(folder: Path, show: Show) -> Config:
    """What the page says, by the names of its template."""
    metrics, rows = read_run(folder)
    part = next((part for part in PARTS if part in metrics["parts"]), None)
    shown = [row for row in rows if row["part"] == part]
    method, chosen = metrics["method"], metrics["chosen"]
    worth, unseen = groups(shown, rows, show, metrics.get("suspects"))
    wrong = [row for row in shown if row["answer"] != row["label"]]
    scored = metrics["parts"][part]["methods"][method] if part else {}
    return {
        "title": f"{folder.resolve().name}: {len(metrics['data']['classes'])} classes",
        "verdict": sentence(metrics["verdict"]),
        "chosen": chosen,
        "parts": [_part(name, metrics) for name in PARTS if name in metrics["parts"]],
        "numbers": _numbers(metrics),
        "groups": worth,
        "rows_n": len(shown),
        "wrong_n": len(wrong),
        "shown_part": PARTS[part] if part else "",
        "alike": alike(shown),
        "unseen": unseen,
        "matrix": matrix(shown, list(metrics["data"]["classes"])),
        "classes": classes(metrics["data"]["classes"], scored),
        "class_parts": list(metrics["data"]["parts"]),
        "reliability": reliability(shown),
        "calibration": _calibration(metrics, part),
        "curves": _curves(metrics),
        "candidates": _candidates(chosen),
        "queries": _queries(metrics.get("queries")),
        "cost": cost_of(metrics.get("cost")),
        "pictures": pictures_in(folder),
        "facts": _facts(folder, metrics),
        "left_out": metrics["skipped"],
        "usage": _usage(folder, metrics),
    }


def read_run(folder: Path) -> tuple[Config, list[Row]]:
    """A run's numbers and answers. Raises `PromptFileError`."""
    for name in (METRICS, PREDICTIONS):
        if not is_file(folder / name):
            raise PromptFileError(
                f"Found no {name} in {folder}; needed is the folder of a run of vpt adapt."
            )
    try:
        metrics = json.loads((folder / METRICS).read_text(encoding="utf-8"))
        with (folder / PREDICTIONS).open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        if not {"parts", "method", "data", "verdict"} <= metrics.keys():
            raise ValueError("it is of an older vpt")
    except (ValueError, AttributeError) as error:
        raise PromptFileError(f"The numbers in {folder} cannot be read: {error}.") from error
    return metrics, rows


def _part(part: str, metrics: Config) -> Config:
    """The accuracies of one part, drawn."""
    found = metrics["parts"][part]
    rows = [
        (name, scored["accuracy"], *scored["interval"]) for name, scored in found["methods"].items()
    ]
    rows.sort(key=lambda row: row[1])
    said = ""
    if gap := found.get("difference"):
        low, high = 100 * gap["low"], 100 * gap["high"]
        said = (
            f"{metrics['method']} against {gap['of']} on the same examples:"
            f" {100 * gap['value']:+.1f} points ({low:+.1f} to {high:+.1f})."
        )
    n = found["methods"][metrics["method"]]["n"]
    title = HEADS[part]
    picture = charts.intervals(rows, metrics["method"], f"accuracy, {title}")
    return {"title": title.capitalize(), "n": n, "picture": picture, "difference": said}


def _numbers(metrics: Config) -> list[Config]:
    return [
        {
            "method": name,
            "part": HEADS[part],
            "accuracy": f"{scored['accuracy']:.1%}",
            "balanced": f"{scored['balanced_accuracy']:.1%}",
            "loss": f"{scored['loss']:.3f}",
            "calibration": f"{100 * scored['calibration_error']:.1f}",
            "strong": name == metrics["method"],
        }
        for part in PARTS
        if part in metrics["parts"]
        for name, scored in metrics["parts"][part]["methods"].items()
    ]


def _calibration(metrics: Config, part: str | None) -> str:
    found = metrics["calibration"]
    if part is None:
        return ""
    after = f"Calibration error {100 * found['after'][part]:.1f} points"
    on = " (they were scaled on these very examples)" if part != "test" else ""
    if found["slope"] is None:
        return f"{after}."
    before = f"{100 * found['before'][part]:.1f}"
    return (
        f"{after}{on}; {before} before its scores were multiplied by {found['slope']:.2f}, chosen"
        " on examples that were held out."
    )


def _curves(metrics: Config) -> list[Config]:
    rows = metrics.get("history") or []
    if not rows:
        return []
    kinds = (
        ("Accuracy", {"train_accuracy": "training", "val_accuracy": "validation"}),
        ("Loss (cross-entropy)", {"loss": "training", "val_loss": "validation"}),
    )
    return [
        {
            "title": f"{title} by epoch",
            "picture": charts.lines(rows, names, metrics["best_epoch"], title),
        }
        for title, names in kinds
        if any(name in row for row in rows for name in names)
    ]


def _candidates(chosen: Config | None) -> list[Config]:
    if chosen is None:
        return []
    return [
        {
            "name": row["candidate"],
            "accuracy": f"{row['accuracy']:.1%}",
            "loss": f"{row['log_loss']:.3f}",
            "strong": row["candidate"] in chosen["names"],
        }
        for row in chosen["table"]
    ]


def _queries(found: Config | None) -> Config | None:
    """What each query is worth, for reading."""
    if found is None:
        return None
    rows = [
        {
            "name": f"block {one['block']}, query {one['query']}",
            "moves": f"{one['moves']:.0%}",
            "costs": f"{one['costs']:+.3f}",
            "spread": f"{one['spread']:.2f}",
        }
        for one in found["worth"]
    ]
    return {"rows": rows, "odd": found["odd"], "left_out": found["left_out"]}


def _facts(folder: Path, metrics: Config) -> list[tuple[str, str]]:
    numbers = metrics["parameters_trained"]
    file = next(folder.glob("*.vpt"), None)
    facts = [
        ("command", metrics["command"] or "from Python"),
        ("model", str(metrics["backbone"]["source"])),
        ("input", metrics["inputs"]),
        ("prompt", metrics["prompt"]),
        ("learned", f"{numbers['prompt']:,} numbers of the prompt, {numbers['readout']:,} on top"),
    ]
    facts += [
        (part, f"{found['n']}: {found['made']}") for part, found in metrics["data"]["parts"].items()
    ]
    facts += [("noted", note) for note in metrics["data"]["notes"]]
    facts += [("careful", note) for note in metrics["data"]["careful"]]
    facts += [("file", f"{file.name}, {file.stat().st_size:,} bytes")] if file else []
    facts += [("seed", str(metrics["seed"])), ("time", span(metrics["seconds"]))]
    return facts


def _usage(folder: Path, metrics: Config) -> str:
    return (
        f"vpt predict {shlex.quote(str(folder))} FILE…\n\n"
        "import vpt\n\n"
        f'for found in vpt.predict({str(folder)!r}, ["FILE"]):\n'
        "    print(found.label, found.probability)"
    )
