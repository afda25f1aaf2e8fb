"""What a run is about to do, said before it does it: the data as it was understood, the model as it
was opened, the time.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Column, Table
from torch.utils.data import default_collate

from vpt.backbones import Backbone
from vpt.backbones.precision import NAMES
from vpt.data import CALLED, Data, Examples
from vpt.data.sounds import starts_of
from vpt.model import PromptedModel
from vpt.report.progress import clean, span
from vpt.sites import Config, Raw, SoundLike, takes_images
from vpt.training.evaluation import accelerator_in
from vpt.training.late import late_features, without_cache
from vpt.training.recipe import Recipe

MOST = 12  # classes that are named
TRIED = 8  # examples that are timed


def data_facts(data: Data) -> Config:
    """What is known of the data, as plain values: classes with counts, how each part came about,
    what was left out or is odd.
    """
    counts = {part: Counter(examples.targets) for part, examples in data.parts.items()}
    return {
        "classes": {
            name: {part: counts[part][y] for part in counts} for y, name in enumerate(data.classes)
        },
        "parts": {
            part: {"n": len(examples), "made": data.made.get(part, "given")}
            for part, examples in data.parts.items()
        },
        "clip_seconds": [min(data.lengths), max(data.lengths)] if data.lengths else None,
        "in_windows": sum(_in_windows(examples) for examples in data.parts.values()),
        "notes": data.notes,
        "careful": data.careful,
    }


def say_before(
    data: Data, backbone: Backbone, prompt: str, seconds: float | None, whereof: str = ""
) -> None:
    """Print what is about to be done, on the error stream.

    seconds: how long it takes, where that is known. whereof: what that is spent on.
    """
    table = Table(
        Column(style="bold", no_wrap=True),
        Column(overflow="fold"),
        box=None,
        show_header=False,
        pad_edge=False,
    )
    for name, text in _facts(data, backbone, prompt, seconds, whereof):
        table.add_row(name, clean(text))
    console = Console(stderr=True)
    console.print(table, highlight=False)
    for text in data.careful:
        console.print(f"[yellow]Careful:[/] {clean(text)}.", highlight=False)


def _facts(
    data: Data, backbone: Backbone, prompt: str, seconds: float | None, whereof: str
) -> list[tuple[str, str]]:
    """(what it is about, what is said of it), line by line."""
    rows = [("classes", f"{len(data.classes)}: {_listed(data.classes)}")]
    rows += [
        (CALLED[part], _part(examples, data.made.get(part, "given")))
        for part, examples in data.parts.items()
    ]
    if data.lengths and not takes_images(backbone.inputs):
        rows.append(("clips", _clips(data, backbone.inputs)))
    rows += [("noted", note) for note in data.notes]
    if data.skipped:
        names = [Path(name).name for name, _ in data.skipped]
        rows.append(("left out", f"{len(names)} files: {_listed(names, 3)}"))
    source = str(backbone.identity["source"])
    dtype = NAMES.get(backbone.dtype, str(backbone.dtype))
    rows += [
        ("model", f"{Path(source).name or source} ({type(backbone.model).__name__}, {dtype})"),
        ("input", str(backbone.inputs)),
        ("prompt", prompt),
    ]
    if seconds is not None:
        rows.append(("time", f"about {span(seconds)} here, in all{whereof}"))
    return rows


def _listed(names: list[str], most: int = MOST) -> str:
    more = f", … ({len(names) - most} more)" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _part(examples: Examples, made: str) -> str:
    """How many, of each class, and how that came about."""
    counts = Counter(examples.targets)
    each = [counts[y] for y in range(len(examples.classes))]
    if min(each) == max(each):
        sizes = f"{each[0]} of each class"
    elif len(each) <= MOST:
        pairs = zip(examples.classes, each, strict=True)
        sizes = ", ".join(f"{name} {count}" for name, count in pairs)
    else:
        order = sorted(range(len(each)), key=lambda y: each[y])
        few, many = order[0], order[-1]
        sizes = (
            f"{each[few]} ({examples.classes[few]}) to {each[many]} ({examples.classes[many]})"
            " of a class"
        )
    return f"{len(examples)} ({sizes}); {made}"


def _clips(data: Data, inputs: SoundLike) -> str:
    """How long the clips are, against what the model hears."""
    heard, low, high = inputs.samples / inputs.sample_rate, min(data.lengths), max(data.lengths)
    said = f"{low:.3g} s" if f"{low:.3g}" == f"{high:.3g}" else f"{low:.3g} to {high:.3g} s"
    longer = sum(_in_windows(part) for part in data.parts.values())
    windows = f"; {longer} are longer, and are heard in windows" if longer else ""
    share = min(1.0, len(starts_of(high, heard)) * heard / high)
    windows += f" ({share:.0%} of the longest)" if share < 0.99 else ""
    return f"{said}; the model hears {heard:.4g} s at a time{windows}"


def _in_windows(examples: Examples) -> int:
    heard, clips = examples.windows()
    return sum(count > 1 for count in Counter(clips).values()) if len(heard) > len(examples) else 0


@dataclass(frozen=True)
class Costs:
    """Seconds for each example, as timed here.

    bare: a forward of the frozen model.
    prompted: one under the prompt.
    again: one of an input that was seen before.
    step: of training.
    kept: whether what enters the first prompted block is kept.
    """

    bare: float
    prompted: float
    again: float
    step: float
    kept: bool


def seconds_of_run(
    model: PromptedModel, data: Data, recipe: Recipe, views: int, anew: bool
) -> float:
    """How long `vpt.adapt` will take, from forwards and a training step timed here.

    views: of the training data, that the first probe sees. anew: whether training inputs are never
        the same twice.
    """
    parts = {name: len(part.windows()[0]) for name, part in data.parts.items()}
    every, train, val = sum(parts.values()), parts["train"], parts["val"]
    cost, processes = _timed(model, data.train, recipe, anew)
    once = every * (cost.bare + (cost.again if cost.kept else cost.prompted)) + train * cost.again
    once += (views - 1) * train * cost.prompted
    once += val * cost.bare * (views > 1)  # mirrored, to see whether that changes the class
    repeated = (recipe.epochs + 4) * val * cost.again + recipe.epochs * len(data.train) * cost.step
    return (once + repeated) / processes


def seconds_of_runs(model: PromptedModel, data: Data, recipe: Recipe, runs: int) -> float:
    """How long `vpt.reprogram` will take, which trains once for each point."""
    parts = {name: len(part.windows()[0]) for name, part in data.parts.items()}
    every, held = sum(parts.values()), sum(parts.values()) - parts["train"]
    cost, processes = _timed(model, data.train, recipe, recipe.augment != "none")
    each = (
        recipe.epochs * (len(data.train) * cost.step + parts["val"] * cost.again)
        + held * cost.again
    )
    return (every * cost.bare + runs * each) / processes


def _timed(
    model: PromptedModel, examples: Examples, recipe: Recipe, anew: bool
) -> tuple[Costs, int]:
    """What an example costs, and over how many processes that is shared. anew: whether training
    inputs are never seen again.
    """
    count = min(TRIED, len(examples))
    x = default_collate([examples[i][0] for i in range(count)])

    def learn() -> None:
        model.outputs(x).float().square().mean().backward()

    def forward() -> None:
        with torch.no_grad():
            model.outputs(x)

    accelerator = accelerator_in(recipe.precision)
    model.to(accelerator.device)
    learns = bool(model.trained_parameters()["prompt"])
    was = model.training
    model.eval()
    try:
        with torch.random.fork_rng(devices=[]), accelerator.autocast():
            with model.prompts_off():
                bare = bare_seconds(model.backbone, x)
            with late_features(
                model.backbone, model.attachment.sites, recipe.kept, lambda text: None
            ):
                kept = model.backbone.cache is not None
                prompted, _, again = (_clock(forward) for _ in range(3))
                with without_cache(model, anew):
                    step = _clock(learn if learns else forward)
    finally:
        model.train(was)
        model.zero_grad(set_to_none=True)
        model.backbone.bare_features.clear()
    return (
        Costs(bare / count, prompted / count, again / count, step / count, kept),
        accelerator.num_processes,
    )


def bare_seconds(backbone: Backbone, x: Raw) -> float:
    """Seconds of a forward with what is attached switched off, the second of two."""

    def forward() -> None:
        with torch.no_grad():
            backbone.run(x)

    _clock(forward)
    return _clock(forward)


def _clock(work: Callable[[], None]) -> float:
    started = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started
