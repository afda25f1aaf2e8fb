"""A run's folder: where its prompt file is, what it says, and using it on files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict

import torch
from torch.utils.data import default_collate

from vpt.backbones import Backbone
from vpt.data import look, read_parts
from vpt.data.examples import Examples
from vpt.data.files import Files
from vpt.data.readers import WORDS, kind_of, reader
from vpt.errors import BadFilesError, DataError, PromptFileError
from vpt.errors.places import is_file, is_folder
from vpt.files import load, read, rebuild, write_atomically
from vpt.files.headers import Header
from vpt.model import PromptedModel
from vpt.prompts import Border, PixelPrompt, Prompt, Stack
from vpt.readouts import LabelMap
from vpt.report import pixels
from vpt.sites import Config
from vpt.training.evaluation import evaluate, scores
from vpt.training.folders import PROMPT

# of one file; top: its likeliest classes with their probabilities
Prediction = TypedDict(
    "Prediction",
    {"file": str, "class": str, "probability": float, "top": list[tuple[str, float]]},
)


class Inspection(TypedDict):
    """What a prompt file is: where it acts, how many numbers it has, its header, and the pictures
    that were drawn of it.
    """

    file: str
    bytes: int
    acts: str
    parameters: dict[str, int]
    label_map: dict[str, list[tuple[str, float]]] | None
    header: Header
    pictures: list[str]


def draw_pixels(model: PromptedModel, val: Examples, folder: Path) -> None:
    """Each border or patch alone, and, for images, six validation images with all of them."""
    parts = pixel_prompts(model.prompt)
    for name in (*(form.__name__.lower() for form in PixelPrompt.__subclasses__()), "reprogrammed"):
        (folder / f"{name}.png").unlink(missing_ok=True)  # of a run whose place this one takes
    for part in parts:
        _draw(part, folder / f"{type(part).__name__.lower()}.png")
    if parts and model.backbone.inputs.kind == "image":
        chosen = torch.linspace(0, len(val) - 1, min(6, len(val))).long().tolist()
        before = default_collate([val[i][0] for i in chosen])
        with torch.no_grad():
            after, _ = model.attachment.pixels(before.to(model.backbone.device), None)
        if before.ndim == 5:  # of a video, its first picture
            before, after = before[:, 0], after[:, 0]
        titles = [val.classes[val.targets[i]] for i in chosen]
        png = pixels.reprogrammed(list(before), list(after), titles)
        write_atomically(folder / "reprogrammed.png", png)


def _draw(part: PixelPrompt, path: Path) -> None:
    """A pixel prompt alone, as PNG."""
    unit = "in [0,1]" if part.is_image else "in the front end's units"
    canvas = part.canvas().cpu()
    png = pixels.pixel_prompt(canvas, part.describe(), unit, isinstance(part, Border))
    write_atomically(path, png)


def prompt_file(place: str | Path) -> Path:
    """The prompt file of a run's folder, or the file itself. Raises `PromptFileError` if there is
    none.
    """
    place = Path(place)
    path = place / PROMPT if is_folder(place) else place
    if not is_file(path):
        raise PromptFileError(
            f"Found no prompt file at {path}; needed is a run's folder (with {PROMPT}) or a prompt"
            " file."
        )
    return path


def open_run(
    place: str | Path,
    backbone: Backbone | str | Path | None = None,
    *,
    dtype: str | None = None,
    seconds: float | None = None,
) -> PromptedModel:
    """A run's fitted model; its backbone is opened again by name, or by the name that is given,
    unless an open one is passed.

    dtype, seconds: as for `vpt.load`. Raises `PromptFileError`.
    """
    return load(prompt_file(place), backbone, dtype=dtype, seconds=seconds)


def predict(
    model: PromptedModel, paths: str | Path | Sequence[str | Path], top: int = 3
) -> list[Prediction]:
    """Class names and probabilities of files: [{"file", "class", "probability", "top": [(class,
    probability), …]}].

    Raises `BadFilesError` naming every file that cannot be read, before the model runs.
    """
    paths = [paths] if isinstance(paths, (str, Path)) else list(paths)
    if isinstance(top, bool) or not isinstance(top, int) or top < 1:
        raise DataError(f"Found top={top!r}; needed is how many classes to give, at least 1.")
    files = Files([Path(p) for p in paths], reader(model.backbone.inputs))
    bad = [
        (str(p), reason)
        for i, p in enumerate(paths)
        if (reason := _misfit(Path(p), model) or files.reason(i))
    ]
    if bad:
        raise BadFilesError(bad, len(paths))
    if not paths:
        raise DataError("Found no files to predict; needed is at least one.")
    examples = Examples(files, [0] * len(paths), ["unknown"], named=False)
    shares = torch.softmax(scores(model, examples)[0], dim=1)
    count = shares.shape[1]
    names = model.classes or [str(c) for c in range(count)]
    values, order = shares.topk(min(top, count), dim=1)
    rows: list[Prediction] = []
    for path, classes, likely in zip(paths, order.tolist(), values.tolist(), strict=True):
        best = [(names[c], value) for c, value in zip(classes, likely, strict=True)]
        name, probability = best[0]
        rows.append({"file": str(path), "class": name, "probability": probability, "top": best})
    return rows


def _misfit(path: Path, model: PromptedModel) -> str | None:
    """Why a path is no file for this model, by its name; or None."""
    if is_folder(path):
        return "a folder; name the files in it"
    if not is_file(path):
        return "no such file"
    kind, needed = kind_of(path), model.backbone.inputs.kind
    if kind in (None, needed):
        return None
    return f"this run takes {WORDS[needed]}, and that is {WORDS[kind]}"


def evaluate_on(model: PromptedModel, source: str | Path, label: str | None = None) -> Config:
    """`evaluate` on the test split of a folder or manifest; on all of it where it has no test
    split, which "of" says.

    label: the column of the label. Raises `DataError`.
    """
    listed = look(source, label)
    examples = read_parts(listed, model.backbone.inputs, part="test")
    tested = any(item.split == "test" for item in listed.listing.items)
    of = "the test split" if tested else "all of it, as it has no test split"
    return {**evaluate(model, examples, progress=True), "of": of}


def inspect(place: str | Path, draw_to: Path | None = None, draw: bool = True) -> Inspection:
    """What a prompt file is, without its backbone.

    draw: pixel prompts are drawn as PNG into `draw_to` (by default beside the file). Raises
        `PromptFileError`.
    """
    path = prompt_file(place)
    header, tensors = read(path)
    prompt, readout = rebuild(header, tensors)
    drawn = []
    for number, part in enumerate(pixel_prompts(prompt) if draw else []):
        suffix = f"-{number}" if number else ""
        name = f"{path.stem}-{type(part).__name__.lower()}{suffix}.png"
        picture = (draw_to or path.parent) / name
        _draw(part, picture)
        drawn.append(str(picture))
    return {
        "file": str(path),
        "bytes": path.stat().st_size,
        "acts": prompt.describe(),
        "parameters": {"prompt": count(prompt), "readout": count(readout)},
        "label_map": readout.mapping() if isinstance(readout, LabelMap) else None,
        "header": header,
        "pictures": drawn,
    }


def pixel_prompts(prompt: Prompt) -> list[PixelPrompt]:
    """The borders, patches and patterns in a prompt."""
    parts = list(prompt.prompts) if isinstance(prompt, Stack) else [prompt]
    return [part for part in parts if isinstance(part, PixelPrompt)]


def trained(model: PromptedModel) -> dict[str, int]:
    """How many numbers learn by gradient, of the "prompt" and of the "readout"."""
    readout = model.readout
    return {"prompt": count(model.prompt), "readout": count(readout) if readout.trainable else 0}


def count(module: torch.nn.Module) -> int:
    """Number of learned numbers."""
    return sum(p.numel() for p in module.parameters())
