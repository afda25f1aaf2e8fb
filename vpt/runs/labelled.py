"""What a run that chooses by itself learns from, and what it refuses to be told."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vpt.data import Data, Examples, Source
from vpt.data.joining import appended
from vpt.errors import TrainingError
from vpt.errors.places import is_there, is_within
from vpt.prompts import HardQueries, QueryTokens
from vpt.readouts import Readout
from vpt.runs.choosing import folds_of
from vpt.runs.probe import Folds
from vpt.sites import Config
from vpt.training.recipe import Recipe

AUTO = "auto"


@dataclass
class Labelled:
    """Examples that are learned from, and their folds. joined: whether those for validation are
    among them. probe_only: whether a linear probe is all that is to be fitted. pruned: whether
    queries without which nothing is lost are left out. noisy: whether labels may be wrong.
    unlabelled: what is learned from besides. start: queries that were learned beforehand, if any.
    told: by what the same can be learned again.
    """

    examples: Examples
    folds: Folds
    joined: bool
    probe_only: bool = False
    pruned: bool = False
    noisy: bool = False
    unlabelled: Examples | None = None
    start: QueryTokens | None = None
    told: Config | None = None


def learned_from(
    data: Data,
    seed: int,
    *,
    val_apart: bool = False,
    probe_only: bool = False,
    prune: bool = False,
    noisy: bool = False,
) -> Labelled:
    """Training examples, and those for validation, unless these are to stay apart, or the training
    examples were to be few, or no folds could be made.

    data: with its parts.
    seed: of the folds.
    val_apart, probe_only, prune, noisy: as for `vpt.adapt`.
    """
    if not val_apart and "kept" not in data.made.get("train", ""):
        both = appended(data.train, data.val)
        if folds := folds_of(both, seed):
            return Labelled(both, folds, True, probe_only, prune, noisy)
    folds = folds_of(data.train, seed)
    return Labelled(data.train, folds, False, probe_only, prune, noisy)


def told_again(
    data: object,
    read: Config,
    learn: Config,
    store: str | Path | None,
    start: str | Path | None,
    unlabelled: object,
) -> Config:
    """By what the same can be learned again, in plain values.

    data: that was listed; None stands for what has no path.
    read: how it was read.
    learn: what it was told.
    store: of features.
    start: a file of queries.
    unlabelled: as for `vpt.adapt`; "" stands for what has no path.
    """
    path = str(data.path.resolve()) if isinstance(data, Source) else None
    place = str(Path(store).resolve()) if store is not None else None
    begun = str(start) if start is not None else None
    if start is not None and is_there(Path(start)):  # and not one of a hub
        begun = str(Path(start).resolve())
    besides = None if unlabelled is None else ""
    if isinstance(unlabelled, (str, Path)):
        besides = str(Path(unlabelled).resolve())
    again = {"data": path, "store": place, "start": begun, "unlabelled": besides}
    return again | {"read": read, "learn": learn}


def refuse_told(
    prompt: object,
    readout: str | Readout,
    features: str | None,
    augment: str | None,
    recipe: Recipe | None,
    settings: Config,
) -> None:
    """Raise `TrainingError` for what prompt="auto", and hard queries, decide by themselves.

    prompt, readout, features, augment, recipe, settings: as for `vpt.adapt`.
    """
    hard = isinstance(prompt, HardQueries) or (isinstance(prompt, str) and prompt[:4] == "hard")
    if prompt != AUTO and (not hard or "+" in str(prompt)):
        return
    said = sorted(settings.keys() - {"workers", "cache"})
    said += ["cache"] if settings.get("cache", "auto") != "auto" else []
    said += ["readout"] if readout != "linear" else []
    said += ["features"] if features is not None else []
    said += ["augment"] if augment not in (None, "auto") else []
    said += ["recipe"] if recipe is not None else []
    if said:
        named = "hard queries" if hard else "prompt='auto', the default"
        raise TrainingError(
            f"Found {', '.join(said)} with {named}, which choose and fit by themselves. Leave that"
            " out, or name a prompt that learns as it is told ('queries:4', 'deep:10')."
        )


def refuse_without_auto(prompt: object, **told: object) -> None:
    """Raise `TrainingError` for what only prompt="auto" can do. told: what was said, by name."""
    said = [name for name, value in told.items() if value is not None and value is not False]
    if prompt != AUTO and said:
        raise TrainingError(
            f"Found prompt={prompt!r} with {', '.join(said)}, which goes with 'auto' only."
        )


def refuse_start(probe_only: bool, start: object) -> None:
    """Raise `TrainingError` for queries to begin with where none are to be learned."""
    if probe_only and start is not None:
        raise TrainingError(
            "Found probe_only with start, which says where queries begin; a probe has none. Leave"
            " one of them out."
        )


def refuse_inside(out: str | Path | None, *data: object) -> None:
    """Raise `TrainingError` for a folder whose files would be read as examples: one inside some
    data, which are listed or a path.
    """
    places = [one.path if isinstance(one, Source) else one for one in data]
    for place in places:
        if out is None or not isinstance(place, (str, Path)) or not str(place):
            continue  # a path without a name is refused where it is read
        if is_within(out, place):
            raise TrainingError(
                f"{out} lies inside the data, {place}: the run's own files would be read as"
                " examples. Choose another out=…."
            )
