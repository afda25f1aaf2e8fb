"""Options that several commands have, each said once."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer


def registered(room: str) -> dict[str, str]:
    """How text names what is registered in a room ("prompts", "readouts"), and what each is.

    Read off from the files: to import them takes seconds, and help should not.
    """
    found: dict[str, str] = {}
    for file in sorted((Path(__file__).parents[1] / room).glob("*.py")):
        text = file.read_text(encoding="utf-8")
        found |= dict(re.findall(r'@register\(\s*"([^"]+)",\s*"([^"]+)"', text))
    return found


def explained(room: str) -> str:
    """The same as one line of help: "linear (a new classifier on the features), …"."""
    return ", ".join(f"{usage} ({does})" for usage, does in registered(room).items())


PROMPT_FORMS = f"{', '.join(registered('prompts'))}; joined with +; deep:N@5-7 in these blocks"
READOUT_FORMS = explained("readouts")
METHODS = explained("objectives")

Run = Annotated[Path, typer.Argument(help="a run's folder, a prompt file, or hf://user/name")]
BackboneOption = Annotated[
    str | None,
    typer.Option(help="model to use, where the one that the prompt file names cannot be opened"),
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
            " held out; of a folder: series or file, by the files' names"
        )
    ),
]
Out = Annotated[
    Path | None,
    typer.Option(help="folder for the prompt file, numbers and pictures; runs/NAME of the data"),
]
AsJson = Annotated[bool, typer.Option("--json", help="print JSON instead of a table")]
Group = Annotated[
    list[str] | None,
    typer.Option(help="column of the group; several make a group of each combination"),
]
Positive = Annotated[
    str | None, typer.Option(help="of two classes, the one whose rates count (the second by name)")
]
Shots = Annotated[int | None, typer.Option(help="keep this many training examples of each class")]
Seed = Annotated[
    int, typer.Option(help="of the split, the prompt and the order in which examples come")
]
Epochs = Annotated[
    int | None, typer.Option(min=1, help="passes over the training data; the recipe's own")
]
Rate = Annotated[float | None, typer.Option(help="peak learning rate of the prompt")]
BatchSize = Annotated[
    int | None, typer.Option(min=1, help="examples in an update; the recipe's own")
]
Precision = Annotated[str | None, typer.Option(help="no (fp32), bf16 or fp16")]
Weights = Annotated[str, typer.Option(help="pretrained, random, or a file")]
Features = Annotated[
    str | None,
    typer.Option(
        help=(
            "what a linear readout reads: cls (the default), mean, blocks, blocks:N, queries;"
            " joined with +"
        )
    ),
]
StoreOption = Annotated[
    Path | None,
    typer.Option(
        help="a feature store (vpt features), or a new folder for one; what it has is not computed"
    ),
]
SkipBad = Annotated[
    bool, typer.Option("--skip-bad", help="go on without files that cannot be used")
]
Resume = Annotated[
    bool, typer.Option("--resume", help="go on where a run in this folder was stopped")
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="replace a finished run in this folder")
]
