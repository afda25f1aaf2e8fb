"""The command that builds a feature store."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from vpt.cli.options import AsJson, Dtype, Inputs, Label, Seconds, SkipBad
from vpt.cli.terminal import console, print_json, stoppable
from vpt.report.progress import clean


def features(
    data: Annotated[Path, typer.Argument(help="a folder, a zip of one, or a CSV, with any labels")],
    out: Annotated[Path, typer.Option(help="the store: a new folder, or one to go on with")],
    backbone: Annotated[
        str | None,
        typer.Option(help="as for adapt; a bundled one that suits the data by default"),
    ] = None,
    queries: Annotated[
        bool,
        typer.Option(
            help="keys and values for queries, too: nearly all of the place that a store takes"
        ),
    ] = True,
    label: Label = None,
    seconds: Seconds = None,
    inputs: Inputs = None,
    dtype: Dtype = None,
    skip_bad: SkipBad = False,
    as_json: AsJson = False,
) -> None:
    """Run a model once over data and keep what it makes of them, for any number of tasks.

    vpt adapt DATA --store DIR and vpt audit DATA --store DIR then compute nothing of it again.
    """
    from vpt.backbones import told
    from vpt.data import look
    from vpt.runs.features import features as run_features
    from vpt.runs.opening import open_for

    with stoppable():
        source = look(data, label)
        how = {"seconds": seconds, "dtype": dtype, "inputs": told(inputs) if inputs else None}
        model = open_for(source, backbone, **how)
        built = run_features(
            source, out, model, queries=queries, skip_bad=skip_bad, progress=not as_json
        )
    if as_json:
        print_json(asdict(built) | {"folder": str(built.folder)})
        return
    console.print(
        f"[bold]{clean(built.folder)}[/] has {built.inputs:,} inputs ({built.new:,} new),"
        f" {built.bytes / 1e6:,.0f} MB.",
        highlight=False,
    )
