"""The command that mends mistakes as they arise."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from vpt.cli.options import AsJson, BackboneOption, Dtype, Label, Overwrite, Run
from vpt.cli.terminal import console, print_json, print_table
from vpt.errors import TrainingError
from vpt.report.progress import clean
from vpt.report.tables import RECOMMENDED

SHOWN = 8  # examples whose answer changes


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

    if out is None:
        raise TrainingError(
            "Found no folder for the corrected run; needed is --out: the run itself is left as it"
            " is."
        )
    if undo == (data is not None):
        raise typer.BadParameter("give the mistakes (vpt correct RUN DATA --out RUN2), or --undo")
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
    _show(found.report)
    console.print(
        f"The corrected run is in [bold]{clean(out)}[/]; --undo brings back the one before it."
    )


def _show(report: dict[str, Any]) -> None:
    """What was mended, what to expect of others, and what else changes."""
    wrong, held, check = report["mistaken"], report["held_out"], report["check"]
    recommendation = RECOMMENDED[report["recommendation"]]
    console.print(f"[bold]Recommendation: {recommendation}.[/]")
    console.print(
        f"{report['mended']} of {wrong} mistakes mended."
        + (f" {report['given'] - wrong} were right already." if report["given"] > wrong else ""),
        highlight=False,
    )
    if held is None:
        console.print("A single one says nothing about others of its kind.")
    else:
        console.print(
            f"Held out in turn, {held['mended']} of {held['of']} are mended"
            f" ({held['low']:.0%} to {held['high']:.0%}): expect that of others of their kind.",
            highlight=False,
        )
    if check is None:
        console.print(
            f"Elsewhere about {report['turned_wrong']:.1%} of answers turn wrong and"
            f" {report['turned_right']:.1%} right, by what the run remembers. --check DATA measures"
            " it.",
            highlight=False,
        )
        return
    change = check["difference"]
    console.print(
        f"On {check['n']} examples of the check set: accuracy {check['before']:.1%} →"
        f" {check['after']:.1%}, {100 * change['value']:+.1f} points ({100 * change['low']:+.1f} to"
        f" {100 * change['high']:+.1f}); {change['worse']} turn wrong, {change['better']} right.",
        highlight=False,
    )
    table = Table("turns wrong", "is", "was said", "is said now")
    for one in check["turned_wrong"][:SHOWN]:
        table.add_row(*(clean(one[name]) for name in ("name", "label", "said", "now")))
    if check["turned_wrong"]:
        print_table(table)
