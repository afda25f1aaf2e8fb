"""The page of a reprogrammed model, and of an audit: groups, trade-off, border."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

from vpt.errors import PromptFileError
from vpt.errors.places import is_file
from vpt.files import write_atomically
from vpt.metrics.comparing import share_interval
from vpt.report import charts
from vpt.report.page import html_of, table_of
from vpt.report.progress import span
from vpt.report.tables import RECOMMENDED, audit_tables, sentence, tradeoff_tables
from vpt.runs.inlined import pictures_in
from vpt.runs.page import PAGE
from vpt.sites import Config
from vpt.training.folders import METRICS

TEMPLATE = "groups.html"


def is_reprogrammed(folder: Path) -> bool:
    """Whether a folder holds a run of `vpt reprogram`, by its numbers."""
    try:
        return is_file(folder / METRICS) and "points" in _numbers(folder)
    except PromptFileError:
        return False


def write_reprogrammed(folder: Path) -> Path:
    """Write the page of a reprogrammed model into its folder, and say where. Raises
    `PromptFileError`.
    """
    numbers = _numbers(folder)
    part = "test" if numbers["base"]["test"] else "val"
    chosen = next(point for point in numbers["points"] if point["name"] == numbers["chosen"])
    both = {"The model as it was": numbers["base"], "With the prompt": chosen}
    page = {
        "title": f"{folder.resolve().name}: a fairer model",
        "verdict": _verdict(numbers),
        "rule": numbers["rule"],
        "careful": numbers["notes"],
        "tables": [table_of(table) for table in tradeoff_tables(numbers)],
        "bars": [
            {"title": title, "picture": _bars(found[part], title)} for title, found in both.items()
        ],
        "pictures": pictures_in(folder),
        "facts": _facts(numbers),
        "left_out": numbers["skipped"],
        "usage": f"vpt predict {shlex.quote(str(folder))} FILE…\nvpt audit TABLE --prompt"
        f" {shlex.quote(str(folder))}",
    }
    write_atomically(folder / PAGE, html_of(page, TEMPLATE))
    return folder / PAGE


def _verdict(numbers: Config) -> str:
    """Whether to use it, if the run says so (older ones do not), and what it changed."""
    changed = f"{sentence(numbers['verdict'])}."
    if "recommendation" not in numbers:
        return changed
    said = sentence(RECOMMENDED[numbers["recommendation"]])
    return f"{said}: {numbers['why']}. {changed}"


def write_audited(path: Path, audit: Config, model: str, data: str) -> Path:
    """Write the page of an audit, and say where.

    audit: as `vpt.audit` gives it. model, data: what they are called.
    """
    worst = " and ".join(audit["worst_group"])
    accuracy = audit["metrics"]["worst_group_accuracy"]["value"]
    verdict = f"Worst served is {worst}: {accuracy:.1%} right."
    if "remedies" in audit:
        said = audit["remedies"]
        verdict += f" {sentence(said['verdict'])}: {said['why']}."
    if "compared" in audit:
        said = audit["compared"]
        recommended = sentence(RECOMMENDED[said["recommendation"]])
        verdict += f" {recommended}: beside the model without the prompt, {said['why']}."
    page = {
        "title": f"How {model} serves each group",
        "verdict": verdict,
        "rule": "",
        "careful": [audit["warning"]] if audit["warning"] else [],
        "tables": [table_of(table) for table in audit_tables(audit)],
        "bars": [{"title": f"{audit['n']} examples", "picture": _bars(audit, "by group")}],
        "pictures": [],
        "facts": [("model", model), ("data", data)],
        "left_out": [],
        "usage": "",
    }
    write_atomically(path, html_of(page, TEMPLATE))
    return path


def _bars(audit: Config, title: str) -> str:
    """The accuracy of each group, with its interval."""
    rows = []
    for name, group in audit["per_group"].items():
        low, high = share_interval(group["accuracy"] * group["n"], group["n"])
        rows.append((f"{name}, {group['n']}", group["accuracy"], low, high))
    worst = min(rows, key=lambda row: row[1])[0]
    return charts.intervals(rows, worst, f"accuracy of each group, {title}")


def _facts(numbers: Config) -> list[tuple[str, str]]:
    learned = sum(numbers["parameters_trained"].values())
    facts = [
        ("command", numbers["command"] or "from Python"),
        ("model", str(numbers["backbone"]["source"])),
        ("prompt", numbers["prompt"]),
        ("method", numbers["method"]),
        ("learned", f"{learned:,} numbers"),
    ]
    facts += [
        (part, f"{found['n']}: {found['made']}") for part, found in numbers["data"]["parts"].items()
    ]
    facts += [("noted", note) for note in numbers["data"]["notes"]]
    return [*facts, ("seed", str(numbers["seed"])), ("time", span(numbers["seconds"]))]


def _numbers(folder: Path) -> Config:
    if not is_file(folder / METRICS):
        raise PromptFileError(f"Found no {METRICS} in {folder}; needed is the folder of a run.")
    try:
        found = json.loads((folder / METRICS).read_text(encoding="utf-8"))
    except ValueError as error:
        raise PromptFileError(f"The numbers in {folder} cannot be read: {error}.") from error
    return found if isinstance(found, dict) else {}
