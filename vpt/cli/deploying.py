"""Commands that take a run to where its model runs."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from vpt.cli.options import AsJson, BackboneOption, Dtype, Label, explained
from vpt.cli.terminal import console, dim, print_json
from vpt.report.progress import clean


def export(
    runs: Annotated[
        list[Path],
        typer.Argument(
            help="a run's folder or a prompt file; or several whose prompts only read (queries)"
        ),
    ],
    out: Annotated[Path, typer.Option(help="the file to write")],
    to: Annotated[
        str | None, typer.Option(help=f"by the file's ending, or onnx: {explained('deploy')}")
    ] = None,
    int8: Annotated[
        Path | None,
        typer.Option(
            help="keep weights in eight bits, and say what it costs on these labelled data"
        ),
    ] = None,
    label: Label = None,
    backbone: BackboneOption = None,
    dtype: Dtype = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace the file")] = False,
    as_json: AsJson = False,
) -> None:
    """Write a run to a file that runs without vpt, and see that it says the same.

    Several runs on one model share one forward; each is an output of its folder's name.
    """
    from vpt.deploy.exporting import export as run_export

    named = {(run.parent if run.is_file() else run).resolve().name: run for run in runs}
    if len(named) < len(runs):
        raise typer.BadParameter("two of these runs have one name, by which outputs are called")
    found = run_export(
        runs[0] if len(runs) == 1 else named,
        out,
        to=to,
        int8=int8,
        label=label,
        backbone=backbone,
        dtype=dtype,
        overwrite=overwrite,
        say=(lambda text: None) if as_json else dim,
    )
    if as_json:
        print_json(asdict(found) | {"path": str(found.path)})
        return
    size = found.path.stat().st_size
    console.print(
        f"[bold]{clean(found.path)}[/] ({size / 1e6:.1f} MB) says what the model says, to"
        f" {found.difference:.0e} of the largest score.",
        highlight=False,
    )
    if (cost := found.int8) is not None:
        console.print(
            f"In eight bits: {cost.bytes[0] / 1e6:.1f} → {cost.bytes[1] / 1e6:.1f} MB, accuracy"
            f" {cost.before:.1%} → {cost.after:.1%} on {cost.n} examples; on {cost.same:.1%} both"
            " say the same.",
            highlight=False,
        )
