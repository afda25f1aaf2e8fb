"""The short form: from a run, or several on one model, to one file that runs without vpt."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from vpt.backbones import Backbone, Images
from vpt.data import Examples, look, read_parts
from vpt.deploy.graph import Graph
from vpt.deploy.int8 import Quantised, in_eight_bits
from vpt.deploy.needs import needed
from vpt.deploy.targets import TARGETS, Target
from vpt.deploy.tracing import facts_of, inputs_of
from vpt.errors import ExportError, PromptError, VptError
from vpt.errors.places import is_folder
from vpt.files import load
from vpt.model import PromptedModel
from vpt.sites import Config
from vpt.training.evaluation import matched

SAME = 1e-4  # of the largest score, or of 1
BATCHES = (1, 2, 5)  # that are compared


@dataclass(frozen=True)
class Exported:
    """What `export` wrote.

    path: the file. to: its kind. outputs: their names. difference: the largest to the live model,
        over the largest score (or 1), on random inputs. facts: what travels with it. int8: what
        eight bits cost, where they were asked for.
    """

    path: Path
    to: str
    outputs: list[str]
    difference: float
    facts: Config
    int8: Quantised | None = None


def export(
    model: PromptedModel | str | Path | Mapping[str, str | Path],
    path: str | Path,
    *,
    to: str | None = None,
    backbone: Backbone | str | Path | None = None,
    dtype: str | None = None,
    int8: str | Path | Examples | None = None,
    label: str | None = None,
    overwrite: bool = False,
    say: Callable[[str], None] = lambda text: None,
) -> Exported:
    """Write a prompted model to a file that runs without vpt, and see that it says the same.

    Raw input goes in: images `[B,C,H,W]` in [0,1], of the model's size (how a picture gets there
    stands in the facts); what the model itself subtracts and divides by is in the graph. Scores
    `[B,C]` come out; their softmax is what `vpt predict` says. Names of classes, the preparation,
    the version and the fingerprint of the model travel with it.

    model: a model with its prompt, a run's folder or prompt file; or several of these by the name
        of their task, on one backbone, whose prompts only read (queries): one forward, and an
        output of each name.
    path: the file.
    to: "onnx", "pt2" (torch.export), "safetensors" (the constants of prompt and readout alone, for
        a runtime of one's own), or another of `vpt.deploy.TARGETS`; by default what the ending of
        the path says, or "onnx".
    backbone, dtype: as for `vpt.load`.
    int8: labelled data, as for `vpt.load_data`: the weights are then kept in eight bits ("onnx",
        one task), and the accuracy on these before and after is said.
    label: the column of their label.
    overwrite: give up what is there.
    say: is told what is done.

    Raises `ExportError` where the model cannot be traced, or the file says something else than the
    model; nothing is left then. Raises `PromptError` for prompts that cannot be baked.
    """
    place = Path(path)
    to = _kind(to, place)
    target = _target(to)
    if is_folder(place):
        raise ExportError(f"{place} is a folder; needed is a file.")
    if place.exists() and not overwrite:
        raise ExportError(
            f"{place} is there already; needed is a new file, or overwrite=True (--overwrite)."
        )
    with _opened(model, backbone, dtype) as (graph, single):
        examples = _to_compare(single, int8, label, to) if int8 is not None else None
        place.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(
            dir=place.parent, prefix=f".{place.name}.", suffix=target.ending
        )
        os.close(handle)
        try:
            say(f"writing {target.ending[1:]}")
            target.write(graph, Path(name))
            say("comparing with the live model")
            difference = _compared(graph, target, Path(name))
            quantised = None
            if examples is not None:
                say("keeping weights in eight bits")
                quantised = in_eight_bits(target, Path(name), examples, graph)
            os.chmod(name, 0o644)
            os.replace(name, place)
        except VptError:
            raise
        except Exception as error:
            raise ExportError(
                f"{type(graph.backbone.model).__name__} could not be written as {to}: {error}"
            ) from error
        finally:
            Path(name).unlink(missing_ok=True)
        facts = facts_of(graph)
    return Exported(place, to, graph.names, difference, facts, quantised)


def _to_compare(
    model: PromptedModel | None, data: str | Path | Examples, label: str | None, to: str
) -> Examples:
    """Examples on which weights in eight bits are compared. Raises `ExportError`, `DataError`."""
    if to != "onnx" or model is None or not isinstance(model.backbone.inputs, Images):
        raise ExportError("Eight bits are for ONNX, for one task, and for images.")
    if isinstance(data, (str, Path)):
        data = read_parts(look(data, label), model.backbone.inputs)
    return matched(model, data)


def _kind(to: str | None, path: Path) -> str:
    """Which kind of file is meant. Raises `ExportError` where the ending says another."""
    endings = {form.cls.ending: name for name, form in TARGETS.forms.items()}
    said = endings.get(path.suffix.lower())
    if to is not None and said is not None and said != to and to in TARGETS.forms:
        raise ExportError(
            f"Found to={to!r} and a file {path.name}, which is {said}; say one of them."
        )
    return to or said or "onnx"


def _target(to: str) -> Target:
    if to not in TARGETS.forms:
        known = ", ".join(
            f"{name} ({TARGETS.about[form.cls.__name__]})" for name, form in TARGETS.forms.items()
        )
        raise ExportError(f"Found to={to!r}; needed is one of {known}.")
    target = TARGETS.forms[to].cls()
    needed("export", *target.needs)
    return target


@contextmanager
def _opened(
    model: PromptedModel | str | Path | Mapping[str, str | Path],
    backbone: Backbone | str | Path | None,
    dtype: str | None,
) -> Iterator[tuple[Graph, PromptedModel | None]]:
    """(The graph of a model or of several runs, with what it needs attached; the model, if it is
    one).
    """
    with ExitStack() as undo:
        single = model if isinstance(model, PromptedModel) else None
        if isinstance(model, (str, Path)):
            single = undo.enter_context(load(model, backbone, dtype=dtype))
        if single is not None:
            if single.backbone.attachment is not single.attachment:
                raise PromptError(
                    "This model was closed, or its backbone now carries another prompt. Export it"
                    " before that, or from its prompt file."
                )
            graph = Graph.of(single)
        else:
            if not isinstance(model, Mapping) or not model:
                raise ExportError("Found no task; needed is a run, or several by name.")
            tasks = {}
            for name, run in model.items():
                one = load(run, backbone, dtype=dtype)
                backbone = one.backbone
                tasks[str(name)] = (one.prompt, one.readout)
                one.close()
            graph = Graph(one.backbone, tasks)
        undo.enter_context(graph.attached())
        parts = (graph.backbone, *graph.prompts, *graph.readouts)
        device = graph.backbone.device
        try:
            for part in parts:  # a graph belongs to no device of ours
                part.to(torch.device("cpu"))
            yield graph, single
        finally:
            for part in parts:
                part.to(device)


def _compared(graph: Graph, target: Target, path: Path) -> float:
    """The largest difference between file and live model. Raises `ExportError` where it is more
    than rounding.
    """
    most, run = 0.0, target.opened(path, graph)
    for seed, batch in enumerate(BATCHES):
        inputs = inputs_of(graph.backbone, batch, seed)
        with torch.no_grad():
            live = graph(*inputs.values())
        found = run(inputs)
        for name, scores, said in zip(graph.names, live, found.values(), strict=True):
            scale = max(1.0, float(scores.abs().max()))
            apart = float(np.abs(said - scores.numpy()).max()) / scale
            if not apart <= SAME:
                raise ExportError(
                    f"The file says something else than the model: {name} differ by {apart:.1e} of"
                    f" the largest score on {batch} random inputs (at most {SAME:g}). Nothing was"
                    " kept."
                )
            most = max(most, apart)
    return most
