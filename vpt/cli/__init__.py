"""The command line: each command is a thin call of a function."""

from __future__ import annotations

import json
import logging
import shlex
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Column, Table

from vpt.errors import VptError
from vpt.errors.places import is_there
from vpt.errors.text import printable
from vpt.report.progress import clean
from vpt.report.tables import audit_tables, map_text, report_table, tradeoff_tables

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="Prompt tuning for frozen vision and audio transformers.",
)
console = Console()
STOPPED = "Stopped. The same command with --resume goes on from the last checkpoint."

Run = Annotated[Path, typer.Argument(help="a run's folder, or a prompt file")]
BackboneOption = Annotated[
    str | None,
    typer.Option(help="model to use, where the prompt file cannot name it (a local folder)"),
]
Seconds = Annotated[
    float | None, typer.Option(help="clip length, for models of sound that take any")
]
Dtype = Annotated[str | None, typer.Option(help="hold the frozen weights in fp32, bf16 or fp16")]
Inputs = Annotated[
    list[str] | None,
    typer.Option(
        help=(
            "how input is prepared, where the model does not say: mean=R,G,B, std=R,G,B,"
            " fit=squash, size=H,W, …"
        )
    ),
]
Label = Annotated[str | None, typer.Option(help="column of the label in a CSV, if not 'label'")]
SplitBy = Annotated[
    str | None,
    typer.Option(
        help=(
            "column of a CSV (a person, a speaker, …) whose values stay on one side when data is"
            " held out"
        )
    ),
]
Out = Annotated[
    Path | None,
    typer.Option(help="folder for the prompt file, numbers and pictures; runs/NAME of the data"),
]
AsJson = Annotated[bool, typer.Option("--json", help="print JSON instead of a table")]


def main() -> None:
    """Run the command line; a mistake of the user's is a message, not a traceback."""
    logging.getLogger("torch").setLevel(logging.ERROR)
    try:
        app()
    except VptError as error:
        Console(stderr=True).print(
            f"[bold red]{type(error).__name__}[/]: {clean(str(error), lines=True)}", highlight=False
        )
        sys.exit(1)
    finally:
        if (
            (distributed := sys.modules.get("torch.distributed"))
            and distributed.is_available()
            and distributed.is_initialized()
        ):
            # or a process that ends before the others may abort
            distributed.destroy_process_group()


@app.command()
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
    """Adapt a bundled backbone to digits or to spoken commands, or make two biased models fairer.
    Offline, a minute or two.
    """
    from vpt.demo.shows import BIASED, PICTURES, SOUNDS, make_fairer
    from vpt.demo.shows import demo as run_demo

    start, show = time.monotonic(), SOUNDS if audio else PICTURES
    if fairness:
        if audio or seeds > 1:
            raise typer.BadParameter(
                "--fairness goes alone: without --audio, and once (--seeds 1;"
                " examples/pretrain/fairness.py repeats it)"
            )
        for name, case in BIASED.items():
            console.print(case.story)
            _show_reprogrammed(make_fairer(case, out / name, say=_dim))
        console.print(
            f"Pictures, numbers and prompt files are in [bold]{clean(out)}[/]"
            f" ({time.monotonic() - start:.0f} s)."
        )
        return
    console.print(show.intro)
    rows = run_demo(out, seeds, say=_dim, show=show)
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


@app.command()
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
        typer.Option(
            help=(
                "shallow:N, deep:N, prefix:N, border:WIDTH, patch:SIZE, full, smm, l2p, dual, coda;"
                " joined with +; deep:N@9-11"
            )
        ),
    ] = "deep:10",
    readout: Annotated[
        str,
        typer.Option(
            help=(
                "linear (a new classifier), identity (the model's own classes, by name), or"
                " map:bayes (map:random, …)"
            )
        ),
    ] = "linear",
    weights: Annotated[str, typer.Option(help="pretrained, random, or a file")] = "pretrained",
    seconds: Seconds = None,
    inputs: Inputs = None,
    label: Label = None,
    split_by: SplitBy = None,
    shots: Annotated[
        int | None, typer.Option(help="keep this many training examples of each class")
    ] = None,
    seed: int = 0,
    epochs: Annotated[int | None, typer.Option(min=1)] = None,
    lr: Annotated[float | None, typer.Option(help="peak learning rate of the prompt")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1)] = None,
    augment: Annotated[str, typer.Option(help="auto, none, crop or flip-crop")] = "auto",
    precision: Annotated[str | None, typer.Option(help="no (fp32), bf16 or fp16")] = None,
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
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="go on without files that cannot be used")
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="go on where a run in this folder was stopped")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="replace a finished run in this folder")
    ] = False,
) -> None:
    """Fit a prompt to a folder of labelled images or sounds, and say whether it was worth it."""
    from vpt.backbones import told
    from vpt.data import look
    from vpt.runs.adapting import adapt as run_adapt
    from vpt.runs.opening import open_for

    out = out or _folder_for(data)
    settings = _given(epochs=epochs, lr=lr, batch_size=batch_size, precision=precision, cache=cache)
    settings |= {"compile": "inductor", "workers": workers} if compiled else {"workers": workers}
    try:
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
            shots=shots,
            seed=seed,
            skip_bad=skip_bad,
            augment=augment,
            resume=resume,
            overwrite=overwrite,
            command=shlex.join(["vpt", *sys.argv[1:]]),
            **settings,
        )
    except KeyboardInterrupt:
        console.print(STOPPED)
        raise typer.Exit(130) from None
    console.print(report_table(result.metrics))
    if result.metrics["label_map"]:
        console.print(clean(map_text(result.metrics["label_map"]), lines=True), highlight=False)
    for path, reason in result.metrics["skipped"][:10]:
        console.print(f"[yellow]left out[/] {clean(path)}: {clean(reason)}", highlight=False)
    console.print(
        f"{clean(result.metrics['verdict'])}. Everything is in [bold]{clean(out)}[/]"
        f" ({result.metrics['seconds']:.0f} s)."
    )


ModelOption = Annotated[
    str,
    typer.Option(help="the classifier: a timm or Hugging Face name, a folder, or module:function"),
]
Group = Annotated[
    list[str] | None,
    typer.Option(help="column of the group; several make a group of each combination"),
]
Positive = Annotated[
    str | None, typer.Option(help="of two classes, the one whose rates count (the second by name)")
]


@app.command()
def reprogram(
    data: Annotated[
        Path, typer.Argument(help="a CSV (path, a label, a group or several[, split])")
    ],
    model: ModelOption,
    out: Out = None,
    label: Label = None,
    group: Group = None,
    split_by: SplitBy = None,
    border: Annotated[
        int | None,
        typer.Option(
            min=1, help="width of a learned border in pixels; short for --prompt border:W"
        ),
    ] = None,
    prompt: Annotated[
        str | None,
        typer.Option(help="any other form, as for adapt; by default a border of 20 in 224 pixels"),
    ] = None,
    method: Annotated[
        str,
        typer.Option(help="penalty (on the gap), adversary (FairReprogram) or worst (group DRO)"),
    ] = "penalty",
    criterion: Annotated[
        str, typer.Option(help="eo (equalized odds) or dp (demographic parity)")
    ] = "eo",
    strength: Annotated[
        list[float] | None, typer.Option(help="how strongly; several are tried, by default five")
    ] = None,
    budget: Annotated[
        float, typer.Option(help="accuracy on validation that may be lost, in [0,1]")
    ] = 0.01,
    bound: Annotated[
        float | None,
        typer.Option(help="instead of a budget: the gap on validation that is allowed"),
    ] = None,
    positive: Positive = None,
    readout: Annotated[
        str, typer.Option(help="identity (the model's own classes) or linear (a new classifier)")
    ] = "identity",
    seconds: Seconds = None,
    inputs: Inputs = None,
    seed: int = 0,
    epochs: Annotated[int | None, typer.Option(min=1)] = None,
    lr: Annotated[float | None, typer.Option(help="peak learning rate of the prompt")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1)] = None,
    precision: Annotated[str | None, typer.Option(help="no (fp32), bf16 or fp16")] = None,
    dtype: Dtype = None,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="go on without files that cannot be used")
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="go on where a run in this folder was stopped")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="replace a finished run in this folder")
    ] = False,
) -> None:
    """Make a biased classifier fairer without touching it: learn a border, and choose on the
    trade-off.
    """
    from vpt.data import look
    from vpt.fairness.reprogramming import reprogram as run_reprogram

    if border is not None and prompt is not None:
        raise typer.BadParameter("--border is short for --prompt border:W: give one of them")
    out = out or _folder_for(data)
    settings = _given(epochs=epochs, lr=lr, batch_size=batch_size, precision=precision)
    try:
        source = look(data, label, group or None, split_by=split_by)
        classifier = _classifier(model, source, seconds=seconds, dtype=dtype, inputs=inputs)
        result = run_reprogram(
            source,
            classifier,
            f"border:{border}" if border else prompt,
            method=method,
            criterion=criterion,
            strengths=strength or None,
            budget=budget,
            bound=bound,
            positive=positive,
            readout=readout,
            out=out,
            seed=seed,
            skip_bad=skip_bad,
            resume=resume,
            overwrite=overwrite,
            say=_dim,
            command=shlex.join(["vpt", *sys.argv[1:]]),
            **settings,
        )
    except KeyboardInterrupt:
        console.print(STOPPED)
        raise typer.Exit(130) from None
    _show_reprogrammed(result.report)
    console.print(
        f"Prompt file, numbers and pictures are in [bold]{clean(out)}[/]"
        f" ({result.report['seconds']:.0f} s)."
    )


@app.command()
def audit(
    data: Annotated[
        Path,
        typer.Argument(
            help=(
                "a CSV (path, a label, a group or several[, split]); its test split, else all of it"
            )
        ),
    ],
    model: Annotated[
        str | None, typer.Option(help="as for reprogram; not needed where the run's file names it")
    ] = None,
    prompt: Annotated[
        Path | None, typer.Option(help="a run's folder or prompt file, to audit the model with it")
    ] = None,
    label: Label = None,
    group: Group = None,
    positive: Positive = None,
    split: Annotated[
        str, typer.Option(help="train, val or test, where the table has a column split")
    ] = "test",
    seconds: Seconds = None,
    inputs: Inputs = None,
    dtype: Dtype = None,
    as_json: AsJson = False,
) -> None:
    """How a classifier, with a prompt or without, serves each group, with the percentiles of a
    bootstrap.
    """
    from vpt.data import look
    from vpt.errors import BackboneError
    from vpt.fairness.reprogramming import audit as run_audit
    from vpt.runs.folder import open_run

    if model is None and prompt is None:
        raise BackboneError("Found neither --model nor --prompt; needed is a classifier to audit.")
    source = look(data, label, group or None)
    options: dict[str, Any] = {"seconds": seconds, "dtype": dtype}
    if prompt is not None:
        own = (
            model
            if model is None or not _is_function(model)
            else _classifier(model, source, **options, inputs=inputs)
        )
        audited = open_run(prompt, own, **options)
    else:
        audited = _classifier(str(model), source, **options, inputs=inputs)
    found = run_audit(source, audited, positive=positive, split=split)
    if as_json:
        typer.echo(json.dumps(found))
        return
    for table in audit_tables(found):
        console.print(table)
    for label_name, name in found["empty"]:
        console.print(
            f"[yellow]No examples[/] of label {clean(label_name)} in group {clean(name)}: its rates"
            " are left out."
        )
    if found["small"]:
        small = "; ".join(f"{label_name}, {name}" for label_name, name in found["small"])
        console.print(
            f"[yellow]Few examples[/] (their rates say little): {clean(small)}.", highlight=False
        )
    if found["warning"]:
        console.print(f"[yellow]Careful:[/] {clean(found['warning'])}.", highlight=False)


@app.command()
def evaluate(
    run: Run,
    data: Annotated[
        Path,
        typer.Argument(
            help="a folder or CSV manifest; its test split if it has one, else all of it"
        ),
    ],
    label: Label = None,
    backbone: BackboneOption = None,
    seconds: Seconds = None,
    dtype: Dtype = None,
    as_json: AsJson = False,
) -> None:
    """Accuracy of a run's prompt on labelled data."""
    from vpt.runs.folder import evaluate_on, open_run

    found = evaluate_on(open_run(run, backbone, seconds=seconds, dtype=dtype), data, label)
    if as_json:
        typer.echo(json.dumps(found))
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


@app.command()
def predict(
    run: Annotated[
        Path, typer.Argument(help="a run's folder, or a prompt file; left out with --library")
    ],
    files: Annotated[list[Path] | None, typer.Argument(help="images or sounds")] = None,
    library: Annotated[
        Path | None, typer.Option(help="a folder of prompt files or runs, instead of a run")
    ] = None,
    task: Annotated[str | None, typer.Option(help="which of the library to use")] = None,
    backbone: BackboneOption = None,
    seconds: Seconds = None,
    dtype: Dtype = None,
    as_json: AsJson = False,
) -> None:
    """Classify files with a run's prompt, or with one of a folder of prompts."""
    from vpt.runs.folder import open_run
    from vpt.runs.folder import predict as run_predict

    paths: list[str | Path] = list(files or [])
    if task is not None and library is None:
        raise typer.BadParameter("--task is one of a library's: say --library FOLDER too")
    if library is not None:
        paths, run = [run, *paths], _one_of(library, task)
    found = run_predict(open_run(run, backbone, seconds=seconds, dtype=dtype), paths)
    if as_json:
        typer.echo(json.dumps(found))
        return
    table = Table("file", "class", "probability", "then")
    for row in found:
        then = ", ".join(f"{name} {p:.0%}" for name, p in row["top"][1:])
        table.add_row(
            clean(row["file"]), clean(row["class"]), f"{row['probability']:.0%}", clean(then)
        )
    console.print(table)


@app.command()
def library(
    folder: Annotated[Path, typer.Argument(help="a folder of prompt files, or of runs")],
    as_json: AsJson = False,
) -> None:
    """List the prompts in a folder, each with its classes and the backbone it is for."""
    from vpt.runs.folder import inspect as run_inspect
    from vpt.tasks.library import prompt_files

    found = {name: run_inspect(path, draw=False) for name, path in prompt_files(folder).items()}
    if as_json:
        typer.echo(json.dumps(found))
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


@app.command()
def inspect(run: Run, as_json: AsJson = False) -> None:
    """Say what a prompt file is, how large, and where it acts; draw pixel prompts to PNG."""
    from vpt.runs.folder import inspect as run_inspect

    found = run_inspect(run)
    if as_json:
        typer.echo(json.dumps(found))
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


@app.command()
def backbones() -> None:
    """List the bundled backbones, and what else can be opened."""
    from vpt.backbones import bundled

    table = Table(Column("name", no_wrap=True), "what", "classes", "size", "licence")
    for name, about in bundled().items():
        table.add_row(
            name,
            about["summary"],
            str(about["classes"]),
            f"{about['bytes'] / 1e6:.1f} MB",
            about["licence"],
        )
    console.print(table)
    for name, about in bundled().items():
        console.print(
            f"{name}, its card: {about['card']}", soft_wrap=True, highlight=False, markup=False
        )
    console.print(
        "Others by name: timm (vit_base_patch16_224.augreg_in21k, swin_tiny_patch4_window7_224, …),"
        " Hugging Face ids (ViT, DINOv2 and v3, CLIP, SigLIP, BEiT, Swin, AST, wav2vec2, HuBERT,"
        " Whisper, …), or a local folder."
    )


@app.command()
def bench(
    out: Annotated[Path, typer.Option(help="where bench.json and bench.png go")] = Path(
        "vpt-bench"
    ),
    backbone: Annotated[
        str, typer.Option(help="a bundled, timm or Hugging Face name, or a local folder")
    ] = "vpt:vit-p8-64",
    weights: Annotated[str, typer.Option(help="pretrained, random, or a file")] = "pretrained",
    tokens: Annotated[
        list[int] | None, typer.Option(help="prompt lengths (10, 50 and 100)")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1)] = 8,
    repeats: Annotated[int, typer.Option(min=1, help="rounds; in each, everything once")] = 10,
    images: Annotated[
        int, typer.Option(min=0, help="examples of an epoch with a late prompt; 0 leaves it out")
    ] = 300,
    precision: Annotated[str, typer.Option(help="no (fp32) or bf16 (autocast)")] = "no",
    dtype: Dtype = None,
    compiled: Annotated[bool, typer.Option("--compile", help="with torch.compile")] = False,
    device: Annotated[str, typer.Option(help="cpu or cuda")] = "cpu",
    memory: Annotated[bool, typer.Option(help="peak memory too, in fresh processes")] = True,
) -> None:
    """Time prompts against a plain forward, LoRA (with peft installed) and full fine-tuning, side
    by side on this machine.
    """
    from vpt.bench.bench import bench as run_bench
    from vpt.bench.steps import Setting
    from vpt.bench.tables import bench_tables

    start = time.monotonic()
    setting = Setting(
        backbone,
        weights,
        dtype,
        precision,
        compiled,
        device,
        batch_size,
        tuple(tokens or (10, 50, 100)),
    )
    for table in bench_tables(
        run_bench(setting, repeats=repeats, images=images, memory=memory, out=out)
    ):
        console.print(table)
    console.print(
        f"Numbers and a picture are in [bold]{clean(out)}[/] ({time.monotonic() - start:.0f} s)."
    )


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


def _folder_for(data: Path) -> Path:
    """Where a run goes that was told no folder: photos/ and photos.zip → runs/photos."""
    return Path("runs") / (data.resolve().stem or "data")


def _given(**settings: Any) -> dict[str, Any]:
    """Those that were given."""
    return {name: value for name, value in settings.items() if value is not None}


def _dim(text: str) -> None:
    console.print(f"[dim]{clean(text, lines=True)}[/]")


def _show_reprogrammed(report: dict[str, Any]) -> None:
    """The trade-off, accuracy by label and group before and after, and what was chosen by what
    rule.
    """
    for table in tradeoff_tables(report):
        console.print(table)
    for note in report["notes"]:
        console.print(f"[yellow]Careful:[/] {clean(note)}.", highlight=False)
    verdict = clean(report["verdict"][0].upper() + report["verdict"][1:])
    console.print(f"Chosen: {clean(report['rule'])}.\n{verdict}.\n")


def _is_function(source: str) -> bool:
    """Whether this is `module:function`."""
    module, _, function = source.partition(":")
    return bool(function) and module not in ("vpt", "hf-hub", "hf_hub") and not is_there(source)


def _classifier(
    source: str, data: Any, inputs: list[str] | None, seconds: float | None, dtype: str | None
) -> Any:
    """A model for data: by name or folder, or made by `module:function` of the user's own, in the
    current folder or installed.
    """
    import importlib

    from torch import nn

    from vpt.backbones import told
    from vpt.errors import BackboneError
    from vpt.runs.opening import open_for

    options: dict[str, Any] = {
        "seconds": seconds,
        "dtype": dtype,
        "inputs": told(inputs) if inputs else None,
    }
    if not _is_function(source):
        return open_for(data, source, **options)
    module, _, function = source.partition(":")
    sys.path.insert(0, "")
    try:
        made = getattr(importlib.import_module(module), function)()
    except Exception as error:  # whatever the user's own function raises
        raise BackboneError(
            f"{source!r} could not be called: {type(error).__name__}: {error}. Needed is"
            " module:function, a function without arguments that gives a module, or a backbone:"
            " vpt.load_backbone(module, inputs=vpt.Images(…))."
        ) from error
    finally:
        sys.path.remove("")
    if not isinstance(made, nn.Module):
        raise BackboneError(
            f"{source!r} gave {type(made).__name__}; needed is a module, or a backbone."
        )
    return open_for(data, made, **options)
