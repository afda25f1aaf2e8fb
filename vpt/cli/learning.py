"""Commands that learn a prompt for a task."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from vpt.cli.options import (
    PROMPT_FORMS,
    READOUT_FORMS,
    BatchSize,
    Dtype,
    Epochs,
    Features,
    Inputs,
    Label,
    Out,
    Overwrite,
    Precision,
    Rate,
    Resume,
    Seconds,
    Seed,
    Shots,
    SkipBad,
    SplitBy,
    StoreOption,
    Weights,
)
from vpt.cli.terminal import command, console, dim, folder_for, given, stoppable
from vpt.cli.verdicts import show_reprogrammed
from vpt.report.progress import clean
from vpt.report.tables import map_text, report_table


def demo(
    out: Annotated[Path, typer.Option(help="where pictures and prompt files go")] = Path(
        "vpt-demo"
    ),
    seeds: Annotated[
        int, typer.Option(min=1, help="how often to repeat, for mean ± standard deviation")
    ] = 1,
    audio: Annotated[
        bool, typer.Option("--audio", help="spoken commands instead of handwritten digits")
    ] = False,
    fairness: Annotated[
        bool, typer.Option("--fairness", help="biased models made fairer by a border")
    ] = False,
) -> None:
    """Adapt a bundled backbone to digits or spoken commands, offline, in a minute or two.

    With --fairness: make two biased models fairer.
    """
    from vpt.demo.shows import BIASED, PICTURES, SOUNDS, make_fairer
    from vpt.demo.shows import demo as run_demo

    start, show = time.monotonic(), SOUNDS if audio else PICTURES
    if fairness:
        if audio or seeds > 1:
            raise typer.BadParameter(
                "--fairness goes alone: without --audio, and once (--seeds 1;"
                " examples/biased_model/fairness.py repeats it)"
            )
        for name, case in BIASED.items():
            console.print(case.story)
            show_reprogrammed(make_fairer(case, out / name, say=dim))
        console.print(
            f"Pictures, numbers and prompt files are in [bold]{clean(out)}[/]"
            f" ({time.monotonic() - start:.0f} s)."
        )
        return
    console.print(show.intro)
    rows = run_demo(out, seeds, say=dim, show=show)
    table = Table(
        "method",
        "test accuracy",
        "parameters",
        title=f"{show.title}, {seeds} seed{'s' * (seeds > 1)}",
    )
    for row in rows:
        table.add_row(row.name, row.text(), f"{row.parameters:,}")
    console.print(table)
    console.print(
        f"Pictures, curves and prompt files are in [bold]{clean(out)}[/]"
        f" ({time.monotonic() - start:.0f} s)."
    )


def adapt(
    data: Annotated[
        Path,
        typer.Argument(
            help=(
                "a folder (class/file or split/class/file), a zip of one, or a CSV"
                " (path,label[,group][,split])"
            )
        ),
    ],
    out: Out = None,
    backbone: Annotated[
        str | None,
        typer.Option(
            help=(
                "a bundled, timm or Hugging Face name, or a local folder; a bundled one that suits"
                " the data"
            )
        ),
    ] = None,
    prompt: Annotated[
        str,
        typer.Option(help=f"auto (chooses fixed features, queries or both) or {PROMPT_FORMS}"),
    ] = "auto",
    readout: Annotated[
        str,
        typer.Option(help=READOUT_FORMS),
    ] = "linear",
    features: Features = None,
    weights: Weights = "pretrained",
    seconds: Seconds = None,
    inputs: Inputs = None,
    label: Label = None,
    split_by: SplitBy = None,
    shots: Shots = None,
    val_apart: Annotated[
        bool, typer.Option("--val-apart", help="auto: learn nothing from the validation examples")
    ] = False,
    probe_only: Annotated[
        bool, typer.Option("--probe-only", help="fit a linear probe, and no prompt")
    ] = False,
    prune: Annotated[
        bool, typer.Option("--prune", help="auto: leave out queries that earn nothing")
    ] = False,
    start: Annotated[
        str | None,
        typer.Option(help="auto: a file of queries learned beforehand, where they begin"),
    ] = None,
    unlabelled: Annotated[
        str | None,
        typer.Option(help="auto: a folder of files without labels, to be learned from, too"),
    ] = None,
    noisy: Annotated[
        bool, typer.Option("--noisy", help="auto: labels may be wrong; count each as believed")
    ] = False,
    store: StoreOption = None,
    seed: Seed = 0,
    epochs: Epochs = None,
    lr: Rate = None,
    batch_size: BatchSize = None,
    augment: Annotated[str, typer.Option(help="auto, none, crop or flip-crop")] = "auto",
    precision: Precision = None,
    dtype: Dtype = None,
    cache: Annotated[
        str,
        typer.Option(
            help="of what enters a prompt that begins late: auto, bf16 (half the memory) or off"
        ),
    ] = "auto",
    compiled: Annotated[
        bool, typer.Option("--compile", help="compile the prompted model (torch.compile)")
    ] = False,
    workers: Annotated[
        int, typer.Option(min=0, help="processes that read and prepare the data")
    ] = 0,
    skip_bad: SkipBad = False,
    resume: Resume = False,
    overwrite: Overwrite = False,
) -> None:
    """Fit a prompt to a folder of labelled images or sounds, and say whether it was worth it."""
    from vpt.backbones import told
    from vpt.data import look
    from vpt.runs.adapting import adapt as run_adapt
    from vpt.runs.opening import open_for

    out = out or folder_for(data)
    settings = given(epochs=epochs, lr=lr, batch_size=batch_size, precision=precision, cache=cache)
    settings |= {"compile": "inductor", "workers": workers} if compiled else {"workers": workers}
    with stoppable():
        source = look(data, label, split_by=split_by)
        opened = open_for(
            source,
            backbone,
            weights=weights,
            seconds=seconds,
            dtype=dtype,
            inputs=told(inputs) if inputs else None,
        )
        result = run_adapt(
            source,
            opened,
            prompt,
            out=out,
            readout=readout,
            features=features,
            shots=shots,
            seed=seed,
            skip_bad=skip_bad,
            val_apart=val_apart,
            probe_only=probe_only,
            prune=prune,
            start=start,
            unlabelled=unlabelled,
            noisy=noisy,
            store=store,
            augment=augment,
            resume=resume,
            overwrite=overwrite,
            command=command(),
            **settings,
        )
    console.print(report_table(result.metrics))
    if result.metrics["label_map"]:
        console.print(clean(map_text(result.metrics["label_map"]), lines=True), highlight=False)
    for path, reason in result.metrics["skipped"][:10]:
        console.print(f"[yellow]left out[/] {clean(path)}: {clean(reason)}", highlight=False)
    chosen = result.metrics["chosen"]
    if chosen is not None and chosen["why"] not in result.metrics["verdict"]:
        console.print(clean(f"chosen was {chosen['name']}: {chosen['why']}."), highlight=False)
    for text in (result.metrics["suspects"] or {"said": []})["said"]:
        console.print(f"[yellow]Careful:[/] {clean(text)}.", highlight=False)
    console.print(
        f"{clean(result.metrics['verdict'])}. Everything is in [bold]{clean(out)}[/], report.html"
        f" first ({result.metrics['seconds']:.0f} s)."
    )
