"""The command that mends mistakes as they arise."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vpt.cli.options import AsJson, BackboneOption, Dtype, Label, Overwrite, Run
from vpt.cli.terminal import console, print_json, print_table
from vpt.errors import TrainingError
from vpt.report.progress import clean
from vpt.report.tables import RECOMMENDED


def correct(
    run: Run,
    data: Annotated[
        Path | None,
        typer.Argument(help="a folder (class/file), a zip or a CSV of mistakes, rightly labelled"),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="folder for the corrected run; the run itself stays")
    ] = None,
    check: Annotated[
        Path | None, typer.Option(help="labelled data that show what else changes")
    ] = None,
    budget: Annotated[
        float, typer.Option(help="accuracy elsewhere that may be lost, in [0,1)")
    ] = 0.005,
    undo: Annotated[
        bool, typer.Option("--undo", help="write the run as it was before its last correction")
    ] = False,
    label: Label = None,
    backbone: BackboneOption = None,
    dtype: Dtype = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Make a run right on a handful of mistakes, and on others of their kind.

    Neither its model nor the examples that it learned from are touched or needed.
    """
    from vpt.runs.correcting import correct as run_correct
    from vpt.runs.correcting import undo_correction
    from vpt.runs.corrections import changed, in_words

    if out is None:
        raise TrainingError(
            "Found no folder for the corrected run; needed is --out: the run itself is left as it"
            " is."
        )
    if undo == (data is not None):
        raise typer.BadParameter("give the mistakes (vpt correct RUN DATA --out RUN2), or --undo")
    if undo and check is not None:
        raise typer.BadParameter("--undo brings back what was; there is nothing to --check")
    if undo:
        console.print(
            f"As it was before: [bold]{clean(undo_correction(run, out, overwrite=overwrite))}[/]"
        )
        return
    found = run_correct(
        run,
        data or "",
        out=out,
        check=check,
        budget=budget,
        label=label,
        backbone=backbone,
        dtype=dtype,
        overwrite=overwrite,
        progress=not as_json,
    )
    if as_json:
        print_json(found.report)
        return
    recommendation = RECOMMENDED[found.report["recommendation"]]
    console.print(f"[bold]Recommendation: {recommendation}.[/]")
    for said in in_words(found.report):
        console.print(said, highlight=False)
    if (table := changed(found.report)) is not None:
        print_table(table)
    console.print(
        f"The corrected run is in [bold]{clean(out)}[/]; --undo brings back the one before it."
    )
