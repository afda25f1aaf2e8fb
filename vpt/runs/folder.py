"""A run's folder: where its prompt file is, what it says, and using it on files."""

from __future__ import annotations

from pathlib import Path
from typing import TypedDict

import torch
from torch.utils.data import default_collate

from vpt.data import look, read_parts
from vpt.data.examples import Examples
from vpt.files import read, rebuild, write_atomically
from vpt.files.headers import Header
from vpt.files.hub import is_shared
from vpt.files.naming import prompt_file
from vpt.model import PromptedModel
from vpt.prompts import Border, HardQueries, PixelPrompt, Prompt, Stack
from vpt.readouts import LabelMap
from vpt.report import pixels
from vpt.report.crops import crops
from vpt.sites import Config
from vpt.training.evaluation import evaluate

CROPS = "crops.png"


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
    for name in (
        *(form.__name__.lower() for form in PixelPrompt.__subclasses__()),
        "reprogrammed",
        "crops",
    ):
        (folder / f"{name}.png").unlink(missing_ok=True)  # of a run whose place this one takes
    for part in parts:
        _draw(part, folder / f"{type(part).__name__.lower()}.png")
    if isinstance(model.prompt, HardQueries):
        _draw_crops(model.prompt, folder / CROPS)
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


def _draw_crops(prompt: HardQueries, path: Path) -> None:
    """What each hard query is, as PNG."""
    rows = []
    for block, own, places in zip(prompt.blocks, prompt.crops, prompt.taken, strict=True):
        named = [f"{Path(p['example']).stem[:18]}\nrow {p['row']}, {p['column']}" for p in places]
        images = [crop.permute(1, 2, 0).numpy() / 255 for crop in own.cpu()]
        rows.append((f"block {block}", list(zip(images, named, strict=True))))
    title = "The places whose tokens are the queries, with what is around them"
    write_atomically(path, crops(rows, title))


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

    draw: pixel prompts and hard queries are drawn as PNG into `draw_to` (by default beside the
        file). Raises `PromptFileError`.
    """
    path = prompt_file(place)
    header, tensors = read(path)
    prompt, readout = rebuild(header, tensors)
    beside = draw_to or (Path() if is_shared(place) else path.parent)  # not in the hub's cache
    drawn = []
    if draw and isinstance(prompt, HardQueries):
        drawn.append(str(beside / f"{path.stem}-{CROPS}"))
        _draw_crops(prompt, Path(drawn[0]))
    for number, part in enumerate(pixel_prompts(prompt) if draw else []):
        suffix = f"-{number}" if number else ""
        name = f"{path.stem}-{type(part).__name__.lower()}{suffix}.png"
        picture = beside / name
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
    learned = sum(p.numel() for p in model.prompt.parameters() if p.requires_grad)
    return {"prompt": learned, "readout": count(readout) if readout.trainable else 0}


def count(module: torch.nn.Module) -> int:
    """Number of learned numbers."""
    return sum(p.numel() for p in module.parameters())
