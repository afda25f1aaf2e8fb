"""Commands that use what was learned: a run, a prompt file, or a folder of them."""

from __future__ import annotations

import json
import sys
from itertools import chain
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from vpt.cli.options import AsJson, BackboneOption, Dtype, Label, Run, Seconds
from vpt.cli.terminal import console, print_csv, print_json, print_table
from vpt.errors.text import printable
from vpt.report.progress import clean
from vpt.report.tables import map_text


def evaluate(
    run: Run,
    data: Annotated[
        Path,
        typer.Argument(
            help="a folder, a zip or a CSV; its test split if it has one, else all of it"
        ),
    ],
    label: Label = None,
    backbone: BackboneOption = None,
    seconds: Seconds = None,
    dtype: Dtype = None,
    as_json: AsJson = False,
) -> None:
    """Accuracy of a run's prompt on labelled data."""
    from vpt.files import load
    from vpt.runs.folder import evaluate_on

    found = evaluate_on(load(run, backbone, seconds=seconds, dtype=dtype), data, label)
    if as_json:
        print_json(found)
        return
    console.print(
        f"{found['n']} examples: accuracy {found['accuracy']:.1%}, loss {found['loss']:.3f}",
        highlight=False,
    )
    console.print(f"Evaluated was {found['of']}.", highlight=False)
    table = Table("class", "accuracy")
    for name, value in found["per_class"].items():
        table.add_row(clean(name), f"{value:.1%}")
    console.print(table)


def predict(
    run: Annotated[
        Path,
        typer.Argument(
            help="a run's folder, a prompt file, or hf://user/name; with --library, a file"
        ),
    ],
    files: Annotated[
        list[Path] | None,
        typer.Argument(help="images or sounds, folders of them, or - for paths on standard input"),
    ] = None,
    library: Annotated[
        Path | None, typer.Option(help="a folder of prompt files or runs, instead of a run")
    ] = None,
    task: Annotated[str | None, typer.Option(help="which of the library to use")] = None,
    top_k: Annotated[
        int, typer.Option(min=1, help="how many classes of each file, the likeliest first")
    ] = 3,
    adapt: Annotated[
        bool,
        typer.Option(
            "--adapt", help="learn again, from these very files without labels, too (transductive)"
        ),
    ] = False,
    backbone: BackboneOption = None,
    seconds: Seconds = None,
    dtype: Dtype = None,
    as_csv: Annotated[
        bool, typer.Option("--csv", help="print rows of file, class, probability, class 2, …")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Classify files with a run's prompt, or with one of a folder of prompts."""
    from vpt.files import load
    from vpt.runs.predicting import predict as run_predict

    paths = list(files or [])
    if task is not None and library is None:
        raise typer.BadParameter("--task is one of a library's: say --library FOLDER too")
    if adapt and library is not None:
        raise typer.BadParameter("--adapt learns a run again: name its folder, not a library")
    if library is not None:
        paths, run = [run, *paths], _one_of(library, task)
    if library is None and not paths and run.is_file() and run.suffix != ".vpt":
        raise typer.BadParameter(f"{run} comes where a run does: vpt predict RUN {run}")
    paths = [named for path in paths for named in (_on_input() if str(path) == "-" else [path])]
    if adapt:
        from vpt.runs.transductive import predict_adapted

        found = predict_adapted(
            run, paths, top_k, backbone=backbone, seconds=seconds, dtype=dtype, progress=True
        )
    else:
        model = load(run, backbone, seconds=seconds, dtype=dtype)
        found = run_predict(model, paths, top_k, progress=not (as_csv or as_json))
    if as_json:
        print_json(
            [
                {
                    "file": one.name,
                    "class": one.label,
                    "probability": one.probability,
                    "top": list(one.probabilities.items()),
                }
                for one in found
            ]
        )
    elif as_csv:
        more = range(2, len(found[0].probabilities) + 1)
        names = [f"{what} {number}" for number in more for what in ("class", "probability")]
        rows = [[one.name, *chain(*one.probabilities.items())] for one in found]
        print_csv([["file", "class", "probability", *names], *rows])
    else:
        table = Table("file", "class", "probability", "then")
        for one in found:
            others = list(one.probabilities.items())[1:]
            then = ", ".join(f"{name} {share:.0%}" for name, share in others)
            table.add_row(clean(one.name), clean(one.label), f"{one.probability:.0%}", clean(then))
        print_table(table)


def report(
    runs: Annotated[list[Path], typer.Argument(help="folders of runs of vpt adapt")],
    as_markdown: Annotated[
        bool, typer.Option("--markdown", help="print verdict and numbers, for a pull request")
    ] = False,
) -> None:
    """Write a page about each run: how good it is, what it gets wrong, how to use it. Several runs
    are compared on the examples that all of them tested, in pairs.
    """
    from vpt.fairness.page import is_reprogrammed, write_reprogrammed
    from vpt.runs.comparing import compare_runs, compared, write_comparison
    from vpt.runs.corrections import is_corrected, write_corrected
    from vpt.runs.page import markdown, write_page

    for run in runs:
        if as_markdown:
            typer.echo(markdown(run))
        else:
            write = write_reprogrammed if is_reprogrammed(run) else write_page
            write = write_corrected if is_corrected(run) else write
            console.print(f"[bold]{clean(str(write(run)))}[/]")
    if len(runs) > 1 and not as_markdown:
        found = compare_runs(runs)
        print_table(compared(found))
        console.print(f"Side by side: [bold]{clean(str(write_comparison(found)))}[/]")


def _on_input() -> list[Path]:
    """The paths on standard input, one on each line."""
    return [Path(line) for line in sys.stdin.read().splitlines() if line.strip()]


def library(
    folder: Annotated[Path, typer.Argument(help="a folder of prompt files, or of runs")],
    as_json: AsJson = False,
) -> None:
    """List the prompts in a folder, each with its classes and the backbone it is for."""
    from vpt.runs.folder import inspect as run_inspect
    from vpt.tasks.library import prompt_files

    found = {name: run_inspect(path, draw=False) for name, path in prompt_files(folder).items()}
    if as_json:
        print_json(found)
        return
    table = Table("task", "acts", "classes", "backbone", "bytes", title=clean(str(folder)))
    for name, row in found.items():
        backbone = row["header"]["backbone"]
        classes = row["header"]["classes"] or ["not named"]
        listed = ", ".join(classes[:4]) + (f" … ({len(classes)})" if len(classes) > 4 else "")
        weights = f"{backbone['identity']['source']} {backbone['fingerprint'][:8]}"
        table.add_row(
            *(clean(text) for text in (name, row["acts"], listed, weights, f"{row['bytes']:,}"))
        )
    console.print(table)


def inspect(run: Run, as_json: AsJson = False) -> None:
    """Say what a prompt file is, how large, and where it acts; draw pixel prompts to PNG."""
    from vpt.runs.folder import inspect as run_inspect

    found = run_inspect(run)
    if as_json:
        print_json(found)
        return
    header = found["header"]
    tower = f", its {name}" if (name := header["backbone"]["identity"].get("tower")) else ""
    table = Table(show_header=False, title=clean(found["file"]))
    rows = {
        "acts": found["acts"],
        "size": (
            f"{found['bytes']:,} bytes; {found['parameters']['prompt']:,} +"
            f" {found['parameters']['readout']:,} numbers (prompt + readout)"
        ),
        "backbone": (
            f"{header['backbone']['identity']['source']} ({header['backbone']['model']}{tower})"
        ),
        "weights": f"SHA-256 {header['backbone']['fingerprint'][:16]}…",
        "classes": ", ".join(
            printable(name, lines=False) for name in (header["classes"] or ["not named"])[:12]
        ),
        "label map": (
            map_text(found["label_map"])
            if found["label_map"]
            else "none (not made from the model's own classes)"
        ),
        "scores": json.dumps(header["scores"], indent=1),
        "pictures": "\n".join(found["pictures"]) or "none (nothing in pixel space)",
    }
    for name, value in rows.items():
        table.add_row(name, clean(value, lines=True))
    console.print(table)


def _one_of(folder: Path, task: str | None) -> Path:
    """The prompt file of a task in a folder. Raises `PromptFileError`."""
    from vpt.errors import PromptFileError
    from vpt.tasks.library import prompt_files

    found = prompt_files(folder)
    if task not in found:
        raise PromptFileError(
            f"Found --task {task} for {folder}; needed is one of its tasks:"
            f" {', '.join(list(found)[:10])}."
        )
    return found[task]
