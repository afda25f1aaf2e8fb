"""The short form: from a run, or several on one model, to one file that runs without vpt."""

from __future__ import annotations

import importlib.util
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vpt.backbones import Backbone
from vpt.deploy.graph import SCORES, Graph
from vpt.deploy.targets import TARGETS, Target, Traced
from vpt.errors import ExportError, VptError
from vpt.errors.places import is_folder
from vpt.files import load
from vpt.model import PromptedModel
from vpt.sites import Config

SAME = 1e-4  # of the largest score, or of 1
BATCHES = (1, 2, 5)  # that are compared


@dataclass(frozen=True)
class Exported:
    """What `export` wrote.

    path: the file. to: its kind. outputs: their names. difference: the largest to the live model,
        over the largest score (or 1), on random inputs. facts: what travels with it.
    """

    path: Path
    to: str
    outputs: list[str]
    difference: float
    facts: Config


def export(
    model: PromptedModel | str | Path | Mapping[str, str | Path],
    path: str | Path,
    *,
    to: str = "onnx",
    backbone: Backbone | str | Path | None = None,
    dtype: str | None = None,
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
    to: "onnx", "pt2" (torch.export), or another of `vpt.deploy.TARGETS`.
    backbone, dtype: as for `vpt.load`.
    overwrite: give up what is there.
    say: is told what is done.

    Raises `ExportError` where the model cannot be traced, or the file says something else than the
    model; nothing is left then. Raises `PromptError` for prompts that cannot be baked.
    """
    target, place = _target(to), Path(path)
    if is_folder(place) or (place.exists() and not overwrite):
        what = "a folder" if is_folder(place) else "there already"
        raise ExportError(f"{place} is {what}; needed is a new file (or overwrite=True).")
    with _opened(model, backbone, dtype) as graph:
        say("tracing")
        traced = trace(graph)
        place.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(
            dir=place.parent, prefix=f".{place.name}.", suffix=target.ending
        )
        os.close(handle)
        try:
            say(f"writing {target.ending[1:]}")
            target.write(traced, Path(name))
            say("comparing with the live model")
            difference = _compared(graph, target, Path(name))
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
    return Exported(place, to, list(traced.outputs), difference, traced.facts)


def trace(graph: Graph) -> Traced:
    """The graph as torch.export sees it, with a free batch. Raises `ExportError`."""
    inputs = inputs_of(graph.backbone)
    names = [f"{SCORES}"] if graph.names == [SCORES] else list(graph.names)
    free = {name: {0: torch.export.Dim.DYNAMIC} for name in inputs}
    try:
        with torch.no_grad():
            program = torch.export.export(
                graph, tuple(inputs.values()), dynamic_shapes=tuple(free.values()), strict=False
            )
    except VptError:
        raise
    except Exception as error:
        raise ExportError(
            f"{type(graph.backbone.model).__name__} cannot be traced by torch.export:"
            f" {str(error).strip().splitlines()[0]}"
        ) from error
    return Traced(graph, program, inputs, names, facts_of(graph, list(inputs), names))


def inputs_of(backbone: Backbone, batch: int = 2, seed: int = 0) -> dict[str, Tensor]:
    """Random raw inputs by name, as a graph takes them: images `[B,C,H,W]` in [0,1]."""
    example = backbone.inputs.example(batch + seed)
    parts = example if isinstance(example, tuple) else (example,)
    return dict(zip(("x", "lengths"), (part[seed:] for part in parts), strict=False))


def facts_of(graph: Graph, inputs: list[str], outputs: list[str]) -> Config:
    """What travels with the file, in plain values."""
    backbone = graph.backbone
    return {
        "vpt": metadata.version("vpt"),
        "inputs": inputs,
        "outputs": outputs,
        "classes": dict(zip(outputs, graph.classes.values(), strict=True)),
        "preparation": backbone.inputs.describe(),
        "prompts": {
            name: prompt.describe()  # type: ignore[operator]
            for name, prompt in zip(outputs, graph.prompts, strict=True)
        },
        "backbone": {
            "identity": backbone.identity,
            "model": type(backbone.model).__name__,
            "fingerprint": backbone.fingerprint(),
        },
    }


def _target(to: str) -> Target:
    if to not in TARGETS.forms:
        known = ", ".join(
            f"{name} ({TARGETS.about[form.cls.__name__]})" for name, form in TARGETS.forms.items()
        )
        raise ExportError(f"Found to={to!r}; needed is one of {known}.")
    target = TARGETS.forms[to].cls()
    missing = [name for name in target.needs if importlib.util.find_spec(name) is None]
    if missing:
        raise ExportError(
            f"to={to!r} needs {', '.join(missing)}: pip install 'vpt[export]' brings them."
        )
    return target


@contextmanager
def _opened(
    model: PromptedModel | str | Path | Mapping[str, str | Path],
    backbone: Backbone | str | Path | None,
    dtype: str | None,
) -> Iterator[Graph]:
    """The graph of a model or of several runs, with what it needs attached."""
    with ExitStack() as undo:
        if isinstance(model, PromptedModel):
            graph = Graph.of(model)
        elif isinstance(model, (str, Path)):
            graph = Graph.of(undo.enter_context(load(model, backbone, dtype=dtype)))
        else:
            if not model:
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
            yield graph
        finally:
            for part in parts:
                part.to(device)


def _compared(graph: Graph, target: Target, path: Path) -> float:
    """The largest difference between file and live model. Raises `ExportError` where it is more
    than rounding.
    """
    most = 0.0
    for seed, batch in enumerate(BATCHES):
        inputs = inputs_of(graph.backbone, batch, seed)
        with torch.no_grad():
            live = graph(*inputs.values())
        found = target.run(path, inputs)
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
