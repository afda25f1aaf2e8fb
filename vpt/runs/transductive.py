"""Classifying files with what learns from these very files, too: transductive, and said to be."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from vpt.backbones import Backbone
from vpt.data import Data, Examples, load_data
from vpt.data.joining import appended
from vpt.errors import DataError, PromptFileError, TrainingError
from vpt.errors.places import is_file, is_there
from vpt.files import load
from vpt.files.beforehand import load_queries
from vpt.files.naming import prompt_file
from vpt.report.progress import notice
from vpt.runs.automatic import learn_automatically
from vpt.runs.labelled import learned_from
from vpt.runs.predicting import Prediction, predict
from vpt.runs.stored import stored
from vpt.runs.unlabelled import MOST, read_unlabelled
from vpt.sites import Config, InputsLike
from vpt.training.folders import METRICS


def predict_adapted(
    run: str | Path,
    inputs: object,
    top_k: int | None = None,
    *,
    backbone: Backbone | str | Path | None = None,
    seconds: float | None = None,
    dtype: str | None = None,
    progress: bool = False,
) -> list[Prediction]:
    """Classify files with what the run chose, learned again from its labelled data, from these
    files, and from what it had without labels besides. The run itself stays as it is.

    run: a run's folder of prompt "auto", whose data are still where they were.
    inputs: as for `vpt.predict`; at least a few dozen, of the classes of the run.
    top_k: as for `vpt.predict`.
    backbone, seconds, dtype: as for `vpt.load`.
    progress: whether to say what is done, and how far it is.

    The answers to a file depend on the other files: a transductive setting, not to be compared with
    the accuracy of the run. Raises `PromptFileError` for a run that does not say how it learned,
    `DataError` where its data are gone.
    """
    told = _told(run)
    inputs = list(inputs) if isinstance(inputs, Iterator) else inputs  # it is gone through twice
    model = load(run, backbone, seconds=seconds, dtype=dtype)
    classes = model.classes
    opened = model.backbone
    model.close()
    with stored(told["store"], opened):
        data = _data(told, opened, classes, progress)
        source = learned_from(data, told["read"]["seed"], **told["learn"])
        if told["start"] is not None:
            source.start = load_queries(told["start"], opened)
        parts = {name: part for name, part in data.parts.items() if name != "test"}
        found = read_unlabelled(inputs, opened.inputs, parts, progress=progress)
        for note in [*found.notes, *found.careful]:
            notice(f"noted: {note}.", shown=progress)
        notice(
            "Transductive: it learns again from the labelled data and from the files that are"
            f" classified ({len(found.examples):,} to learn from).",
            shown=progress,
        )
        source.unlabelled = found.examples
        if told.get("unlabelled") is not None:  # of the run itself
            parts = data.parts | {"": found.examples}  # a test file in there is not asked for
            seed = told["read"]["seed"]
            source.unlabelled, note = _besides(told["unlabelled"], opened.inputs, parts, seed)
            notice(f"noted: {note}.", shown=progress)
        data.test = None
        learned = learn_automatically(opened, data, source, told["read"]["seed"], progress)
    try:
        return predict(learned.model, inputs, top_k, progress=progress)
    finally:
        learned.model.close()


def _besides(
    place: str, inputs: InputsLike, parts: dict[str, Examples], seed: int
) -> tuple[Examples, str]:
    """(The files that are classified, and what the run learned from without labels, as far as it is
    still there and there is room; a sentence on that.)

    place: where that was; "" for what was handed over.
    parts: the labelled examples by part, and as "" the files that are classified.
    """
    files, own = parts[""], "what the run itself learned from without labels"
    if not place or not is_there(Path(place)):
        return files, f"{own} is not there any more, and left out"
    room = MOST - len(files)
    if room <= 0:
        return files, f"{own} is left out: the files are enough"
    try:
        found = read_unlabelled(
            place, inputs, parts, seed=seed, most=room, skip_bad=True, progress=False
        )
    except DataError:  # nothing is new, or nothing can be read any more
        return files, f"{own} has nothing beside these files"
    both = appended(files, found.examples)
    return both, f"{own} is learned from again, too ({len(found.examples):,})"


def _data(told: Config, backbone: Backbone, classes: list[str] | None, progress: bool) -> Data:
    """The labelled data, as they were read then. Raises `DataError` where they have changed."""
    try:
        data = load_data(told["data"], backbone.inputs, progress=progress, **told["read"])
    except DataError as error:
        raise DataError(
            f"The labelled data in {told['data']} cannot be read as the run read them: {error}"
        ) from error
    if classes != data.classes:
        raise DataError(f"The data in {told['data']} have other classes now than the run has.")
    return data


def _told(run: str | Path) -> Config:
    """By what a run learned. Raises `PromptFileError`, `DataError`, `TrainingError`."""
    metrics = prompt_file(run).parent / METRICS
    try:
        told = json.loads(metrics.read_text(encoding="utf-8"))["told"] if is_file(metrics) else None
    except (ValueError, KeyError) as error:
        raise PromptFileError(f"{metrics} does not say how the run learned.") from error
    if told is None:
        raise TrainingError(
            f"{run} does not say how it learned; needed is the folder of a run of vpt adapt with"
            " prompt 'auto'. Others: vpt adapt … --unlabelled FOLDER."
        )
    if told["data"] is None:
        raise DataError(
            f"{run} learned from examples that were handed over, not from a folder, and cannot"
            " learn from them again: vpt.adapt(data, unlabelled=files)."
        )
    if not is_there(Path(told["data"])):
        raise DataError(
            f"The labelled data of {run} are not at {told['data']} any more: learn again with vpt"
            " adapt DATA --unlabelled FOLDER."
        )
    return dict(told)
