"""Commands for a biased model: how it serves each group, and a border that makes it fairer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vpt.cli.options import (
    METHODS,
    PROMPT_FORMS,
    READOUT_FORMS,
    AsJson,
    BatchSize,
    Dtype,
    Epochs,
    Group,
    Inputs,
    Label,
    Out,
    Overwrite,
    Positive,
    Precision,
    Rate,
    Resume,
    Seconds,
    Seed,
    SkipBad,
    SplitBy,
    StoreOption,
)
from vpt.cli.terminal import (
    command,
    console,
    dim,
    folder_for,
    given,
    print_json,
    stoppable,
)
from vpt.cli.verdicts import show_audited, show_reprogrammed
from vpt.report.progress import clean

if TYPE_CHECKING:
    from vpt.backbones import Backbone
    from vpt.model import PromptedModel

ModelOption = Annotated[
    str,
    typer.Option(help="the classifier: a timm or Hugging Face name, a folder, or module:function"),
]
Classes = Annotated[
    str | None,
    typer.Option(help="names of the model's classes, in its order, where it has none: young,old"),
]


def _named(classes: str | None) -> dict[str, Any]:
    """Names of classes as an option of `load_backbone`."""
    return {"classes": [name.strip() for name in classes.split(",")]} if classes else {}


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
        typer.Option(
            help=(
                "auto (the default: no prompt, corrects the model's own scores, in seconds; a"
                " border where it cannot or a recipe is given), or one of:"
                f" {PROMPT_FORMS}. Several are compared, as auto,patch:16"
            )
        ),
    ] = None,
    folds: Annotated[
        int,
        typer.Option(
            min=0, help="hold every example out once, in so many folds; 0: a share of them chooses"
        ),
    ] = 0,
    method: Annotated[
        str,
        typer.Option(help=METHODS),
    ] = "penalty",
    criterion: Annotated[
        str, typer.Option(help="eo (equalized odds) or dp (demographic parity)")
    ] = "eo",
    strength: Annotated[
        list[float] | None,
        typer.Option(help="how strongly; several are tried, by default the method's own"),
    ] = None,
    budget: Annotated[
        float, typer.Option(help="accuracy on validation that may be lost, in [0,1)")
    ] = 0.01,
    bound: Annotated[
        float | None,
        typer.Option(help="instead of a budget: the gap on validation that is allowed"),
    ] = None,
    positive: Positive = None,
    readout: Annotated[str, typer.Option(help=READOUT_FORMS)] = "identity",
    classes: Classes = None,
    seconds: Seconds = None,
    inputs: Inputs = None,
    seed: Seed = 0,
    epochs: Epochs = None,
    lr: Rate = None,
    batch_size: BatchSize = None,
    precision: Precision = None,
    dtype: Dtype = None,
    skip_bad: SkipBad = False,
    resume: Resume = False,
    overwrite: Overwrite = False,
) -> None:
    """Make a biased classifier fairer without touching it.

    Corrections of its scores, or prompts, are learned at several strengths; one is chosen on the
    trade-off, and it is said whether it is worth using.
    """
    from vpt.backbones import told
    from vpt.data import look
    from vpt.fairness.reprogramming import reprogram as run_reprogram
    from vpt.runs.opening import open_for

    if border is not None and prompt is not None:
        raise typer.BadParameter("--border is short for --prompt border:W: give one of them")
    out = out or folder_for(data)
    settings = given(epochs=epochs, lr=lr, batch_size=batch_size, precision=precision)
    with stoppable():
        source = look(data, label, group or None, split_by=split_by)
        how = {"inputs": told(inputs) if inputs else None, "seconds": seconds, "dtype": dtype}
        classifier = open_for(source, model, **how, **_named(classes))
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
            folds=folds,
            out=out,
            seed=seed,
            skip_bad=skip_bad,
            resume=resume,
            overwrite=overwrite,
            say=dim,
            command=command(),
            **settings,
        )
    show_reprogrammed(result.report)
    console.print(
        f"Prompt file, numbers and pictures are in [bold]{clean(out)}[/]"
        f" ({result.report['seconds']:.0f} s)."
    )


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
    classes: Classes = None,
    split: Annotated[
        str, typer.Option(help="train, val or test, where the table has a column split")
    ] = "test",
    criterion: Annotated[
        str, typer.Option(help="by which a prompt is judged: eo (equalized odds) or dp")
    ] = "eo",
    budget: Annotated[float, typer.Option(help="accuracy that a prompt may cost, in [0,1)")] = 0.01,
    out: Annotated[
        Path | None, typer.Option(help="a page to write, for example audit.html")
    ] = None,
    store: StoreOption = None,
    seconds: Seconds = None,
    inputs: Inputs = None,
    dtype: Dtype = None,
    as_json: AsJson = False,
) -> None:
    """How a classifier, with a prompt or without, serves each group.

    Beside each gap are the percentiles of a bootstrap.
    """
    from vpt.backbones import told
    from vpt.backbones.user_function import names_function
    from vpt.data import look
    from vpt.errors import BackboneError
    from vpt.fairness.audited import audit as run_audit
    from vpt.fairness.page import write_audited
    from vpt.files import load
    from vpt.runs.opening import open_for

    if model is None and prompt is None:
        raise BackboneError("Found neither --model nor --prompt; needed is a classifier to audit.")
    source = look(data, label, group or None)
    how = {"inputs": told(inputs) if inputs else None, "seconds": seconds, "dtype": dtype}
    named = _named(classes)
    audited: Backbone | PromptedModel
    if prompt is None:
        audited = open_for(source, model, **how, **named)
    else:
        if inputs:
            raise typer.BadParameter("a run says itself how its input is prepared: no --inputs")
        if named and model is None:
            raise typer.BadParameter("--classes names those of the bare model: say --model, too")
        made = model is not None and (names_function(model) or bool(named))
        own = open_for(source, model, **how, **named) if made else model
        audited = load(prompt, own, seconds=seconds, dtype=dtype)
    judged: dict[str, Any] = {"criterion": criterion, "budget": budget, "store": store}
    found = run_audit(source, audited, positive=positive, split=split, **judged)
    if as_json:
        print_json(found)
    else:
        show_audited(found)
    if out is not None:
        write_audited(out, found, str(prompt or model), str(data))
