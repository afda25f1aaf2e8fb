"""Examples without labels, to be learned from beside those that have some: which of them count."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch

from vpt.data import CALLED, Data, Examples
from vpt.data.files import Files
from vpt.data.given import Given, all_given, examples_of
from vpt.data.readers import reader
from vpt.errors import BadFilesError, DataError
from vpt.errors.places import is_within
from vpt.report.progress import progress_bar
from vpt.runs.digests import alike_keys
from vpt.sites import InputsLike

MOST = 2000  # of which more would say little, and take long


@dataclass(frozen=True)
class Unlabelled:
    """Examples without labels (all are of one class, "unknown"). notes: on which they are; careful:
    what is odd about them. skipped: files that cannot be used, as (path, reason).
    """

    examples: Examples
    notes: list[str] = field(default_factory=list)
    careful: list[str] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)


def read_unlabelled(
    source: object,
    inputs: InputsLike,
    parts: Mapping[str, Examples],
    *,
    seed: int = 0,
    most: int | None = None,
    skip_bad: bool = False,
    progress: bool = True,
) -> Unlabelled:
    """Read what is to be learned from without labels, or as many as `most`, drawn by the seed.

    source: a folder (all files in it, whatever their folders are called), or anything else that
        `vpt.predict` takes; of `Examples` the labels are not looked at.
    inputs: what the backbone takes.
    parts: the labelled examples, by part. What is among them already, byte for byte, is left out.
    seed: of the draw.
    most: how many; `MOST` by default.
    skip_bad: go on without files that cannot be used.
    progress: whether a bar is shown.

    Raises `DataError` where nothing is left, `BadFilesError` listing all files that cannot be used,
    unless `skip_bad`.
    """
    most = MOST if most is None else most
    if isinstance(source, Examples):
        skipped: list[tuple[str, str]] = []
        found, there = _bare(source), len(source)
        found = found.subset(_some(there, seed, most))
    else:
        things = list(all_given(source, inputs))
        there = len(things)
        things = [things[i] for i in _some(there, seed, most)]
        found, skipped = _read(things, inputs, skip_bad, progress)
    notes = []
    if there > most:
        notes.append(
            f"of {there:,} unlabelled examples {most:,}, drawn with seed {seed}, are learned from"
        )
    fresh, met = _fresh(found, parts)
    careful = _of_test(met)
    if labelled := met["train"] + met["val"]:
        notes.append(f"unlabelled files that have a label already, and are left out: {labelled}")
    if met[""]:
        notes.append(f"unlabelled files that are copies of others, and are left out: {met['']}")
    if not there:
        raise DataError("Found nothing without labels; needed are a few dozen files or examples.")
    if not fresh:
        raise DataError(
            "Found no unlabelled example that is not among the labelled ones; needed are others."
            f"{''.join(f' {one.capitalize()}.' for one in careful)}"
        )
    return Unlabelled(found.subset(fresh), notes, careful, skipped)


def beside(
    source: object, inputs: InputsLike, data: Data, seed: int, skip_bad: bool, progress: bool
) -> Examples:
    """The unlabelled examples to be learned from beside `data`, which notes what they are. source,
    inputs, seed, skip_bad, progress: as for `read_unlabelled`.
    """
    if isinstance(source, (str, Path)):
        _refuse_class(Path(source), data)
    found = read_unlabelled(
        source, inputs, data.parts, seed=seed, skip_bad=skip_bad, progress=progress
    )
    data.notes += [*found.notes, f"{len(found.examples):,} examples without labels"]
    data.careful += found.careful
    data.skipped += found.skipped
    return found.examples


def _refuse_class(folder: Path, data: Data) -> None:
    """Raise `DataError` for a folder among those of the labelled data that was read as a class."""
    within: set[int] = set()
    for part in data.parts.values():
        y = part.targets
        within |= {y[i] for i in range(len(part)) if is_within(part.name(i), folder)}
    if len(within) == 1 and len(data.classes) > 1:
        raise DataError(
            f"{folder} is read as the class {data.classes[within.pop()]!r} of the labelled data."
            " Move it out of their folder."
        )


def _some(count: int, seed: int, most: int) -> list[int]:
    """Which of so many: all, or as many as `most`, in order."""
    if count <= most:
        return list(range(count))
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    return sorted(order[:most].tolist())


def _bare(examples: Examples) -> Examples:
    """The same without their labels."""
    names = [examples.name(i) for i in range(len(examples))]
    known = dict(zip(examples.indices, names, strict=True))
    every = [known.get(i, "") for i in range(len(examples.labels))]
    return Examples(
        examples.get,
        [0] * len(examples.labels),
        ["unknown"],
        named=False,
        names=every,
        sample_rate=examples.sample_rate,
        indices=examples.indices,
    )


def _read(
    things: list[Given], inputs: InputsLike, skip_bad: bool, progress: bool
) -> tuple[Examples, list[tuple[str, str]]]:
    """(Examples of what was handed over, files that cannot be used and why)."""
    if not all(isinstance(thing.value, Path) for thing in things):
        return _handed(things, inputs, skip_bad)
    paths = [Path(thing.name) for thing in things]
    files, bad, good = Files(paths, reader(inputs)), [], []
    with progress_bar(progress) as bar:
        task = bar.add_task("reading the unlabelled files", total=len(paths))
        for i, path in enumerate(paths):
            reason = files.reason(i)
            bad += [(str(path), reason)] if reason else []
            good += [] if reason else [i]
            bar.advance(task)
    if bad and (not skip_bad or not good):
        raise BadFilesError(bad, len(paths))
    rate = getattr(inputs, "sample_rate", None)
    found = Examples(
        files,
        [0] * len(paths),
        ["unknown"],
        named=False,
        names=[str(path) for path in paths],
        sample_rate=rate,
        indices=good,
    )
    return found, bad


def _handed(
    things: list[Given], inputs: InputsLike, skip_bad: bool
) -> tuple[Examples, list[tuple[str, str]]]:
    """The same of things that are not all files."""
    try:
        return examples_of(things, inputs), []
    except BadFilesError as error:
        bad = dict(error.bad)
        good = [thing for thing in things if thing.name not in bad]
        if not skip_bad or not good:
            raise
        return examples_of(good, inputs), error.bad


def _fresh(found: Examples, parts: Mapping[str, Examples]) -> tuple[list[int], Counter[str]]:
    """(Which are new, how many are there already by part, "" for copies among themselves)."""
    own, *others = alike_keys(found, *parts.values())
    known = {key: part for part, keys in zip(parts, others, strict=True) for key in keys}
    met: Counter[str] = Counter()
    fresh: list[int] = []
    for i, key in enumerate(own):
        if key in known:
            met[known[key]] += 1
            continue
        known[key] = ""
        fresh.append(i)
    return fresh, met


def _of_test(met: Counter[str]) -> list[str]:
    if not met["test"]:
        return []
    are = "1 unlabelled file is" if met["test"] == 1 else f"{met['test']} unlabelled files are"
    return [
        f"{are} among the {CALLED['test']} data, byte for byte, and left out (vpt predict --adapt"
        " learns from the very files that it classifies, and says so)"
    ]
