"""What is known of a run, for its card: of one of `vpt adapt`, of one of `vpt reprogram`, or by the
prompt file alone.
"""

from __future__ import annotations

import re
import shlex
from importlib import metadata
from pathlib import Path, PureWindowsPath

from vpt.files.headers import Header
from vpt.report.page import table_of
from vpt.report.progress import span
from vpt.report.tables import RECOMMENDED, report_table, sentence, tradeoff_tables
from vpt.runs.inlined import cost_of
from vpt.sites import Config

# what tells of files stands in brackets: "2 files are in train and in test (a.png = b.png): …"
NAMED = re.compile(r" \(.*\)", re.DOTALL)
WORST = 3  # classes that are told among the limits


def of_adapted(numbers: Config) -> Config:
    """Of a run of `vpt adapt`."""
    part = next(part for part in ("test", "out_of_fold", "val") if part in numbers["parts"])
    found = numbers["parts"][part]
    scored = found["methods"][numbers["method"]]
    said = []
    if gap := found.get("difference"):
        value, low, high = (f"{100 * gap[name]:+.1f}" for name in ("value", "low", "high"))
        said.append(
            f"{sentence(numbers['method'])} against {gap['of']} on the same {gap['n']} examples:"
            f" {value} points ({low} to {high})."
        )
    low, high = (f"{100 * side:.0f}" for side in scored["interval"])
    right = scored["per_class"]
    worst = [name for name in sorted(right, key=right.__getitem__) if scored["per_class_n"][name]]
    told = [f"{name} ({right[name]:.0%} of {scored['per_class_n'][name]})" for name in worst]
    limits = [
        f"{scored['n']} examples say how good it is: with 95 %, between {low} and {high} % are"
        " right, on data like these.",
        f"Least often right: {', '.join(told[:WORST])}.",
        f"How sure it is differs from how often it is right by"
        f" {100 * scored['calibration_error']:.1f} points in the mean.",
        "Whether it serves all groups of people alike was not measured (vpt audit does).",
    ]
    table = table_of(report_table(numbers))
    table["caption"] = "Accuracy, with its interval of 95 % in brackets"
    return _of_run(numbers) | {
        "verdict": f"{sentence(numbers['verdict'])}.",
        "tested": part == "test",
        "tables": [table],
        "said": said,
        "cost": cost_of(numbers["cost"]),
        "limits": limits + [f"{sentence(_unnamed(text))}." for text in numbers["data"]["careful"]],
        "metrics": {"accuracy": scored["accuracy"]} if part == "test" else {},
    }


def of_reprogrammed(numbers: Config) -> Config:
    """Of a run of `vpt reprogram`."""
    chosen = next(point for point in numbers["points"] if point["name"] == numbers["chosen"])
    test = chosen["test"]
    recommended = f"{sentence(RECOMMENDED[numbers['recommendation']])}: {numbers['why']}."
    return _of_run(numbers) | {
        "verdict": f"{recommended} {sentence(numbers['verdict'])}.",
        "tested": test is not None,
        "tables": [table_of(table) for table in tradeoff_tables(numbers)],
        "said": [f"The choice: {numbers['rule']}."],
        "cost": None,
        "limits": [f"{sentence(_unnamed(text))}." for text in numbers["notes"]],
        "metrics": {"accuracy": test["metrics"]["accuracy"]["value"]} if test else {},
    }


def _of_run(numbers: Config) -> Config:
    """What both kinds of runs say of their data, and of how they were made."""
    parts = numbers["data"]["parts"]
    learned = sum(numbers["parameters_trained"].values())
    return {
        "called": (called := _called(numbers["command"])),
        "data": f"Learned from “{called}”.",
        "parts": [f"{part}: {found['n']}, {found['made']}" for part, found in parts.items()],
        "facts": [
            ("prompt", numbers["prompt"]),
            ("numbers learned", f"{learned:,}"),
            ("seed", numbers["seed"]),
            ("time", span(numbers["seconds"])),
            ("made with", f"vpt {metadata.version('vpt')}"),
        ],
    }


def of_header(header: Header) -> Config:
    """Of a prompt file alone, or of a run of another kind."""
    trained_on, scores = header["trained_on"], header["scores"]
    corrections = trained_on.get("corrections")
    if corrections:
        scores = scores["before_corrections"]
    rows = [
        [words, str(scores[f"{part}_n"]), f"{scores[f'{part}_accuracy']:.1%}"]
        for part, words in (("test", "test"), ("val", "validation"))
        if scores.get(f"{part}_n")
    ]
    heads = ["on", "examples", "accuracy"]
    caption = "Intervals are with the run that it comes from"
    limits = ["How it compares with what needs no prompt is not known here."]
    if corrections:
        limits.append(f"It was measured before it was corrected {corrections} times (vpt correct).")
    return {
        "verdict": "What is known of it is what its file says.",
        "tested": bool(scores.get("test_n")),
        "tables": [{"title": "", "heads": heads, "rows": rows, "caption": caption}] if rows else [],
        "said": [],
        "data": f"Learned from {trained_on.get('examples', 'an unknown number of')} examples.",
        "parts": [],
        "facts": [("prompt", header["prompt"]["name"]), ("readout", header["readout"]["name"])],
        "cost": None,
        "limits": limits,
        "metrics": {},
    }


def _called(command: str | None) -> str:
    """What the data of a run are called: the last name of their path, which the command says."""
    words = shlex.split(command or "")[2:3]
    name = PureWindowsPath(words[0]).name if words and not words[0].startswith("-") else ""
    return name if name and name != Path.home().name else "data without a name"


def _unnamed(text: str) -> str:
    """A sentence without what it says in brackets, where files are named."""
    return NAMED.sub("", text)
