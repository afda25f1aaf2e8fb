"""The journal of a run's corrections: what each was of, without a picture, and what undoes it."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

from torch import Tensor

from vpt.data import Examples
from vpt.errors import DataError, PromptFileError
from vpt.errors.places import is_file, is_folder
from vpt.files import write_atomically
from vpt.runs.moments import MEMORY, Moments
from vpt.sites import Config
from vpt.training.folders import METRICS

JOURNAL = "corrections.json"
OF_A_RUN = ("report.html", "predictions.csv", "shown.json")  # which a correction has none of
BEFORE = "before"  # the folder of what each correction changed


def journal(folder: Path) -> list[Config]:
    """The corrections of a run so far, the first one first. Raises `PromptFileError` for a damaged
    one.
    """
    if not is_file(folder / JOURNAL):
        return []
    try:
        entries = json.loads((folder / JOURNAL).read_text(encoding="utf-8"))
        if not all(one["number"] and one["examples"] for one in entries):
            raise ValueError("an entry is not whole")
    except (ValueError, TypeError, KeyError) as error:
        raise PromptFileError(f"{folder / JOURNAL} cannot be read: {error}.") from error
    return entries


def digests_of(examples: Examples) -> list[str]:
    """Of what the model is given, so that a picture is known again that is kept nowhere."""
    found = []
    for i in range(len(examples)):
        digest = hashlib.sha256()
        for part in _tensors(examples[i][0]):
            digest.update(part.contiguous().numpy().tobytes())
        found.append(digest.hexdigest()[:16])
    return found


def _tensors(x: object) -> Iterator[Tensor]:
    if isinstance(x, Tensor):
        yield x
    elif isinstance(x, (tuple, list)):
        for part in x:
            yield from _tensors(part)
    elif isinstance(x, dict):
        for name in sorted(x):
            yield from _tensors(x[name])


def refuse_contradictions(examples: Examples, digests: list[str], entries: list[Config]) -> None:
    """Raise `DataError` for an example that is given two labels, here or earlier."""
    known: dict[str, tuple[str, str]] = {}
    for entry in entries:
        for one in entry["examples"]:
            known[one["digest"]] = (one["label"], f"in correction {entry['number']}")
    for i, digest in enumerate(digests):
        name, wanted = examples.name(i), examples.classes[examples.targets[i]]
        label, where = known.get(digest, (wanted, ""))
        if label != wanted:
            raise DataError(
                f"{name} is to be {wanted}, and {where} the same is {label}. Leave one of them"
                " out; an earlier correction can be undone (--undo)."
            )
        known[digest] = (wanted, f"as {name}")


def clear(folder: Path) -> None:
    """Take away what an earlier run left that would be taken for a later one's."""
    for name in (JOURNAL, MEMORY, METRICS, *OF_A_RUN):
        (folder / name).unlink(missing_ok=True)
    if is_folder(folder / BEFORE):
        shutil.rmtree(folder / BEFORE)


def begin(folder: Path, moments: Moments | None) -> None:
    """Clear the folder of a run that is about to be written, and leave what it remembers."""
    clear(folder)
    if moments is not None:
        moments.save(folder / MEMORY)


def carry(source: Path, folder: Path, count: int) -> None:
    """Take along what undoes the first so many corrections."""
    for number in range(1, count + 1):
        (folder / BEFORE).mkdir(exist_ok=True)
        for ending in (".vpt", ".safetensors"):
            name = f"{number}{ending}"
            if is_file(source / BEFORE / name):
                shutil.copyfile(source / BEFORE / name, folder / BEFORE / name)


def log(folder: Path, entries: list[Config]) -> None:
    """Write the journal."""
    write_atomically(folder / JOURNAL, json.dumps(entries, indent=1).encode())
