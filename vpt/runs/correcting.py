"""Corrections that arise later: a handful of mistakes with their right labels changes what a run
says, without the examples that it learned from, and can be undone.

What is learned is added to the scores by a `Corrected` readout; prompt and model stay as they are.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from torch import Tensor

from vpt.backbones import Backbone
from vpt.data import Examples
from vpt.errors import PromptFileError, TrainingError
from vpt.errors.needs import share
from vpt.errors.places import is_file
from vpt.files import load, save
from vpt.files import read as read_file
from vpt.files.naming import PROMPT, prompt_file
from vpt.model import PromptedModel
from vpt.report.page import draw_or_say
from vpt.runs.corrected import Checked, report_of
from vpt.runs.corrections import write_corrected
from vpt.runs.journal import BEFORE, carry, clear, digests_of, journal, log, refuse_contradictions
from vpt.runs.moments import MEMORY, Moments, read_features, said_of
from vpt.runs.shifting import Shift, shifts
from vpt.runs.to_correct import (
    correctable,
    moments_of_check,
    read_matched,
    remembered,
    to_be_right,
    without,
)
from vpt.sites import Config
from vpt.training.folders import run_folder

# What is drawn from the moments of examples that a readout was fitted on looks better told apart
# than others: more is lost than it says, by about this factor.
SAFE = 0.6


@dataclass
class Correction:
    """What `correct` made: the corrected model, what it changed in plain values, and its folder if
    written.
    """

    model: PromptedModel
    report: Config
    folder: Path | None = None


def correct(
    run: str | Path,
    data: str | Path | Examples,
    *,
    out: str | Path | None = None,
    check: str | Path | Examples | None = None,
    budget: float = 0.005,
    label: str | None = None,
    backbone: Backbone | str | Path | None = None,
    dtype: str | None = None,
    overwrite: bool = False,
    progress: bool = True,
) -> Correction:
    """Make a run right on a handful of examples that it had wrong, and on others of their kind, at
    little loss elsewhere. The run itself is left as it is.

    run: a run's folder (or a prompt file, with `check`).
    data: the examples with their right labels, as for `vpt.load_data`; they are all learned from.
    out: another folder, for the corrected prompt file, the journal, and what undoes it.
    check: labelled examples that show what else changes (those that are to be right are left out),
        and by which the strength is then chosen; by default it is chosen by the moments that the
        run remembers.
    budget: accuracy elsewhere that may be lost, in [0,1).
    label: the column of the label.
    backbone, dtype: as for `vpt.load`.
    overwrite: give up what `out` holds.
    progress: whether to show how far it is.

    Raises `DataError` for classes that the run does not have and for examples that contradict one
    another, now or earlier; `TrainingError` where there is nothing to correct, or nothing that can
    be corrected within the budget; `PromptFileError`.
    """
    share(TrainingError, budget=budget)
    place = prompt_file(run)
    _refuse_same(place, out)
    entries = journal(place.parent) if place.name == PROMPT else []
    with run_folder(out, False, overwrite) as folder:
        model = load(place, backbone, dtype=dtype)
        try:
            readout = correctable(model)
            model.readout = readout
            known = remembered(place, readout, check is not None)
            examples = to_be_right(model, data, label, progress)
            digests = digests_of(examples)
            refuse_contradictions(examples, digests, entries)
            checked = None
            if check is not None:
                others = without(read_matched(model, check, label, "test", progress), digests)
                checked = Checked.of(model, others, progress)
            moments = known or moments_of_check(checked)
            read, y = read_features(model, examples, progress, "what is to be right")
            said = said_of(model, read)
            chosen = _chosen(moments, read, said, y, examples, checked, budget)
            report: Config = {"number": len(entries) + 1}
            report |= report_of(examples, digests, said, chosen, budget)
            report["check"] = checked.changes(moments, chosen) if checked is not None else None
            weight = chosen.weight * moments.scale
            readout.add(weight, chosen.bias - weight @ moments.mean)
            after = chosen.remembered(moments, moments.standardised(read), y)
            if folder is not None:
                _write(folder, place, model, [*entries, report], moments, after)
                draw_or_say(folder, partial(write_corrected, folder))
        except BaseException:
            model.close()
            raise
    return Correction(model, report, folder)


def undo_correction(run: str | Path, out: str | Path, *, overwrite: bool = False) -> Path:
    """Write the run as it was before its last correction to another folder, bit for bit. Raises
    `TrainingError` where there is none.
    """
    file = prompt_file(run)
    place = file.parent
    entries = journal(place) if file.name == PROMPT else []
    if not entries:
        raise TrainingError(f"{file} has no correction that could be undone.")
    last = len(entries)
    kept = [place / BEFORE / f"{last}{ending}" for ending in (".vpt", ".safetensors")]
    if missing := [one for one in kept if not is_file(one)]:
        raise PromptFileError(f"{missing[0]} is not there, which would undo the last correction.")
    _refuse_same(place / PROMPT, out)
    with run_folder(out, False, overwrite) as folder:
        folder = folder or Path(out)
        clear(folder)
        carry(place, folder, last - 1)
        shutil.copyfile(kept[1], folder / MEMORY)
        if last > 1:
            log(folder, entries[:-1])
        shutil.copyfile(kept[0], folder / PROMPT)
        if last > 1:
            draw_or_say(folder, partial(write_corrected, folder))
    return Path(out) / PROMPT


def _refuse_same(place: Path, out: str | Path | None) -> None:
    if isinstance(out, (str, Path)) and Path(out).resolve() == place.parent.resolve():
        raise TrainingError(f"{out} is the run itself; needed is another folder (out=…).")


def _chosen(
    moments: Moments,
    read: Tensor,
    said: Tensor,
    y: Tensor,
    examples: Examples,
    checked: Checked | None,
    budget: float,
) -> Shift:
    """The correction that mends most of the mistakes when they are held out, of those within the
    budget, and of equals the weakest. Raises `TrainingError` for none.

    moments: of all else.
    read, said, y: features `[k,F]`, scores `[k,C]` and labels `[k]` of what is to be right.
    examples: they.
    checked: examples that show what else changes.
    budget: accuracy elsewhere that may be lost.
    """
    mistaken = (said.argmax(1) != y).numpy()
    if not mistaken.any():
        raise TrainingError(
            f"All {len(y)} examples are right already: there is nothing to correct."
        )
    found: list[tuple[float, Shift]] = []
    for shift in shifts(moments, moments.standardised(read), said, y, examples.together):
        lost = shift.lost / SAFE if checked is None else checked.lost(moments, shift)
        right = shift.held_out if shift.folds > 1 else shift.right
        if lost <= budget + 1e-9 and shift.right[mistaken].any():
            found.append((float(right[mistaken].mean()), shift))
        if checked is None and lost > 2 * budget:
            break  # a stronger one turns more
    if not found:
        raise TrainingError(
            f"None of the {int(mistaken.sum())} mistakes can be mended for at most {budget:.1%} of"
            " accuracy elsewhere: what the model sees of them is too much like what it has right."
            " Allow more (budget=…, --budget), or learn anew with more examples of their kind."
        )
    return max(found, key=lambda one: one[0])[1]


def _write(
    folder: Path,
    place: Path,
    model: PromptedModel,
    entries: list[Config],
    before: Moments,
    after: Moments,
) -> None:
    """What undoes the last correction first, then the journal, and the prompt file last.

    folder: for all of it.
    place: the prompt file that was corrected.
    model: the corrected one.
    entries: of the journal.
    before, after: what the run remembered, and remembers from now on.
    """
    header, _ = read_file(place)
    count = len(entries)
    clear(folder)
    carry(place.parent, folder, count - 1)
    (folder / BEFORE).mkdir(exist_ok=True)
    shutil.copyfile(place, folder / BEFORE / f"{count}.vpt")
    before.save(folder / BEFORE / f"{count}.safetensors")
    after.save(folder / MEMORY)
    log(folder, entries)
    scores = header["scores"].get("before_corrections", header["scores"])
    save(
        folder / PROMPT,
        model,
        trained_on=header["trained_on"] | {"corrections": count},
        scores={"before_corrections": scores},
    )
