"""The short form for fairness: from a biased model and a table with groups to a learned border, its
trade-off and its report.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from vpt.backbones import Backbone
from vpt.data import Data, Examples, Source, load_data, look, read_parts
from vpt.errors import TrainingError
from vpt.errors.places import is_there
from vpt.fairness.tradeoff import Frontier, Point, audit_model, frontier, objectives, suspicion
from vpt.files import restore, save, write_atomically
from vpt.model import PromptedModel
from vpt.prompts import Prompt
from vpt.readouts import Readout
from vpt.report import pictures
from vpt.runs.adapting import make_prompt, make_readout, start_among
from vpt.runs.briefing import data_facts, say_before, seconds_of_runs
from vpt.runs.folder import count, draw_pixels
from vpt.runs.opening import open_for, opened
from vpt.runs.probe import fit_probe
from vpt.training.evaluation import scores
from vpt.training.folders import METRICS, PROMPT, run_folder
from vpt.training.recipe import Recipe, chosen

POINTS, BARS, TRADEOFF = "points", "groups.png", "frontier.png"


@dataclass
class Reprogrammed:
    """What `reprogram` made: the model with the chosen prompt, the whole trade-off, its numbers,
    and its files if written.
    """

    model: PromptedModel
    frontier: Frontier
    report: dict[str, Any]
    folder: Path | None = None
    file: Path | None = None


def reprogram(
    data: Any,
    model: str | Path | Backbone | torch.nn.Module,
    prompt: str | Prompt | Callable[[Backbone], Prompt] | None = None,
    *,
    label: str | None = None,
    group: str | Sequence[str] | None = None,
    split_by: str | None = None,
    method: str = "penalty",
    criterion: str = "eo",
    strengths: Sequence[float] | None = None,
    budget: float = 0.01,
    bound: float | None = None,
    positive: str | None = None,
    readout: str | Readout = "identity",
    out: str | Path | None = None,
    seed: int | None = None,
    val_share: float = 0.3,
    test_share: float = 0.2,
    skip_bad: bool = False,
    recipe: Recipe | None = None,
    resume: bool = False,
    overwrite: bool = False,
    progress: bool = True,
    say: Callable[[str], None] = lambda text: None,
    command: str | None = None,
    **settings: Any,
) -> Reprogrammed:
    """Learn a prompt that makes a frozen classifier err alike between groups, at little loss of
    accuracy.

    data: as for `vpt.load_data`, with a group for every example (several group columns: their
        combinations). split_by: a column whose values (persons, say) stay on one side when parts
        are held out. model: a classifier as for `vpt.load_backbone`. prompt: as for `vpt.adapt`; by
        default a border of 20 pixels in 224. readout: "identity", the model's own classes, matched
        by name (by number where it names none), or "linear", a probe to begin with.
    method, criterion, strengths, budget, bound: as for `vpt.frontier`. out: a folder for the prompt
        file, the numbers and pictures. Raises a `VptError` that says what to do, before training
        wherever that can be known.
    """
    started = time.monotonic()
    if isinstance(readout, str) and readout not in ("identity", "linear"):
        raise TrainingError(
            f"Found readout={readout!r}; needed is 'identity' (the model's own classes), 'linear',"
            " or a readout."
        )
    recipe = chosen(recipe, Recipe(), seed=seed, **settings)
    seed = recipe.seed
    data = look(data, label, group, split_by=split_by) if isinstance(data, (str, Path)) else data
    with run_folder(out, resume, overwrite) as folder, ExitStack() as undo:
        points = _points(folder, resume, overwrite)
        backbone = undo.enter_context(opened(model, data))
        made = make_prompt(_usual_border(backbone) if prompt is None else prompt, backbone, seed)
        wanted = load_data(
            data,
            backbone.inputs,
            label=label,
            group=group,
            split_by=split_by,
            seed=seed,
            skip_bad=skip_bad,
            progress=progress,
            val_share=val_share,
            test_share=test_share,
        )
        if prompt is None or isinstance(prompt, str):
            start_among(made, backbone, wanted.train, seed)
        prompted = PromptedModel(backbone, made, make_readout(readout, backbone, wanted, seed))
        undo.callback(prompted.close)  # whatever goes wrong: Ctrl-C, a disk that went away
        if progress and Accelerator().is_main_process:
            runs = 1 + len(objectives(method, criterion, strengths, budget, bound))
            say_before(
                wanted, backbone, made.describe(), seconds_of_runs(prompted, wanted, recipe, runs)
            )
        if readout == "linear":
            with prompted.prompts_off():
                features = scores(
                    prompted, wanted.train, outputs=True, progress=progress, what="features"
                )
            prompted.readout.load_state_dict(
                fit_probe(*features, classes=wanted.classes, seed=seed)[0].state_dict()
            )
        found = frontier(
            prompted,
            wanted.train,
            wanted.val,
            wanted.test,
            method=method,
            criterion=criterion,
            strengths=strengths,
            budget=budget,
            bound=bound,
            positive=positive,
            recipe=recipe,
            out=points,
            resume=resume,
            progress=progress,
            say=say,
        )
        report = _report(prompted, found) | {
            "method": method,
            "budget": budget,
            "bound": bound,
            "seed": seed,
            "recipe": asdict(recipe),
            "train_n": len(wanted.train),
            "skipped": wanted.skipped,
            "data": data_facts(wanted),
            "seconds": round(time.monotonic() - started, 1),
            "command": command,
        }
        result = Reprogrammed(prompted, found, report, folder)
        if folder is not None and Accelerator().is_main_process:
            result.file = _write(folder, prompted, found, report, wanted.val)
        undo.pop_all()
    return result


def audit(
    data: Any,
    model: str | Path | Backbone | torch.nn.Module | PromptedModel,
    *,
    label: str | None = None,
    group: str | Sequence[str] | None = None,
    positive: str | None = None,
    split: str = "test",
    progress: bool = True,
) -> dict[str, Any]:
    """How a classifier, with a prompt or without, serves each group: `vpt.metrics.groups.audit` of
    a split (of all without).

    Where the model has more classes than the data, it is asked to choose among those of the data
    only. A "warning" is added where the model seems to know the group only, or nothing. Raises
    `DataError`.
    """
    source = look(Path(data), label, group) if isinstance(data, (str, Path)) else data
    backbone = model.backbone if isinstance(model, PromptedModel) else open_for(source, model)
    if isinstance(source, Source):
        examples = read_parts(source, backbone.inputs, split, progress)
    elif isinstance(data, Examples):
        examples = data
    else:
        # so that nothing is held out
        given = data if isinstance(data, Mapping) else {"train": data, "val": data}
        wanted = load_data(given, backbone.inputs, label=label, group=group, progress=progress)
        examples = wanted.test or wanted.train
    if isinstance(model, PromptedModel):
        found = audit_model(model, examples, positive, progress)
    else:
        bare = make_readout(
            "identity", backbone, Data(examples, examples, None, examples.classes, []), 0
        )
        with PromptedModel(backbone, None, bare) as own:
            found = audit_model(own, examples, positive, progress)
    return found | {"warning": suspicion(found)}


def _points(folder: Path | None, resume: bool, overwrite: bool) -> Path | None:
    """Where the points of the trade-off are kept; emptied to begin again. Raises `TrainingError`
    where a run was stopped.
    """
    if folder is None or not is_there(folder / POINTS) or resume:
        return folder / POINTS if folder is not None else None
    if not overwrite:
        raise TrainingError(
            f"{folder} holds a run that was stopped. Go on with resume=True (--resume), begin again"
            " with overwrite=True (--overwrite), or choose another folder (out=…)."
        )
    if Accelerator().is_main_process:
        shutil.rmtree(folder / POINTS)
    return folder / POINTS


def _usual_border(backbone: Backbone) -> str:
    """A border that covers as much of an image as FairReprogram's does; 8 frames of sound."""
    size = getattr(backbone.inputs, "size", None)
    return f"border:{max(1, round(min(size) * 20 / 224)) if size else 8}"


def _report(model: PromptedModel, found: Frontier) -> dict[str, Any]:
    """Everything in plain values: the bare model, every point, the choice and its verdict."""
    (part, words), gap = found.shown, found.gap
    accuracy = [100 * point.value("accuracy", part) for point in (found.base, found.chosen)]
    gaps = [point.value(gap, part) for point in (found.base, found.chosen)]
    worst = [
        100 * point.value("worst_group_accuracy", part) for point in (found.base, found.chosen)
    ]
    return {
        "verdict": (
            f"on {words}, {gap.replace('_', ' ')} {gaps[0]:.3f} → {gaps[1]:.3f}, worst group"
            f" {worst[0]:.1f} → {worst[1]:.1f} %, accuracy {accuracy[0]:.1f} → {accuracy[1]:.1f} %"
        ),
        "rule": found.rule,
        "chosen": found.chosen.name,
        "criterion": found.criterion,
        "gap": gap,
        "notes": found.notes,
        "base": _plain(found.base),
        "points": [_plain(point) for point in found.points],
        "thresholds": _plain(found.thresholds) if found.thresholds is not None else None,
        "prompt": model.prompt.describe(),
        "parameters_trained": {
            "prompt": count(model.prompt),
            "readout": count(model.readout) if model.readout.trainable else 0,
        },
        "backbone": model.backbone.identity,
        "classes": model.classes,
    }


def _plain(point: Point) -> dict[str, Any]:
    kept = ("name", "strength", "note", "val", "test", "rows")
    return {name: getattr(point, name) for name in kept}


def _write(
    folder: Path, model: PromptedModel, found: Frontier, report: dict[str, Any], val: Any
) -> Path:
    """Pictures first, then every point's prompt file, the numbers, and last the chosen prompt,
    whose path is returned.
    """
    part, words = found.shown
    before, after = getattr(found.base, part), getattr(found.chosen, part)
    title = f"{report['prompt']}; {found.chosen.called}, on {before['n']} {words} examples"
    write_atomically(folder / BARS, pictures.group_bars(before, after, title))
    write_atomically(folder / TRADEOFF, found.picture(report["prompt"]))
    draw_pixels(model, val, folder)
    (folder / POINTS).mkdir(exist_ok=True)
    facts: dict[str, Any] = {
        "trained_on": {
            "examples": report["train_n"],
            "seed": report["seed"],
            "recipe": report["recipe"],
        }
    }
    for point in found.points:
        restore(model, point.learned or {})
        save(folder / POINTS / f"{point.name}.vpt", model, scores=_kept(point), **facts)
    restore(model, found.chosen.learned or {})
    write_atomically(folder / METRICS, json.dumps(report, indent=1).encode())
    file = save(folder / PROMPT, model, scores=_kept(found.chosen), **facts)
    for checkpoint in (folder / POINTS).iterdir():
        if checkpoint.is_dir():
            shutil.rmtree(checkpoint)
    return file


def _kept(point: Point) -> dict[str, Any]:
    """The numbers that travel with a prompt file."""
    return {
        name: part["metrics"]
        for name, part in (("val", point.val), ("test", point.test))
        if part is not None
    }
