"""The command that says why."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from vpt.cli.options import AsJson, BackboneOption, Dtype, Run, Seconds
from vpt.cli.terminal import console, print_json, print_table
from vpt.report.progress import clean


def explain(
    run: Run,
    files: Annotated[list[Path], typer.Argument(help="images or sounds, or folders of them")],
    out: Annotated[Path, typer.Option(help="folder for the pictures")] = Path("explained"),
    label: Annotated[
        str | None, typer.Option(help="the class to explain, instead of the model's answer")
    ] = None,
    queries: Annotated[
        bool,
        typer.Option("--queries", help="draw what each query answers to most among these files"),
    ] = False,
    backbone: BackboneOption = None,
    seconds: Seconds = None,
    dtype: Dtype = None,
    as_json: AsJson = False,
) -> None:
    """Draw what in each file speaks for the answer, and say in which blocks it was read."""
    from vpt.files import load
    from vpt.runs.overlays import explain_files

    model = load(run, backbone, seconds=seconds, dtype=dtype)
    if queries:
        from vpt.runs.answering import draw_answers

        path = draw_answers(model, list(files), out, label, progress=True)
        if as_json:
            print_json({"picture": str(path)})
        else:
            console.print(f"What each query answers to is in [bold]{clean(path)}[/].")
        return
    found = explain_files(model, list(files), out, label)
    if as_json:
        print_json([asdict(one) | {"picture": str(one.picture)} for one in found])
        return
    blocks = list(found[0].blocks)
    table = Table("file", "class", "probability", *(f"block {b}" for b in blocks), "picture")
    for one in found:
        adds = [f"{one.blocks[b]:+.2f}" for b in blocks]
        row = [one.name, one.label, f"{one.probability:.0%}", *adds, str(one.picture)]
        table.add_row(*(clean(cell) for cell in row))
    print_table(table)
