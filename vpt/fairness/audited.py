"""The short form for an audit: from a classifier and a table with groups to how it serves each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from vpt.backbones import Backbone
from vpt.data import Examples, Source, load_data, look, read_parts
from vpt.errors import TrainingError, VptError
from vpt.fairness.auditing import audit_decisions, audit_model, suspicion
from vpt.fairness.choosing import GAP, Point, judged
from vpt.fairness.mending import Mending
from vpt.fairness.remedies import BUDGET, at_most, remedies
from vpt.fairness.strengths import objectives
from vpt.fairness.tradeoff import point_at
from vpt.model import PromptedModel
from vpt.readouts import Identity
from vpt.runs.opening import open_for
from vpt.runs.stored import stored
from vpt.sites import Config
from vpt.training.evaluation import grouped, scores

SEEN = (
    "if the prompt learned from some of these examples, it looks better here than it is; its own"
    " report counts examples that were held out"
)


def audit(
    data: Any,
    model: str | Path | Backbone | torch.nn.Module | PromptedModel,
    *,
    label: str | None = None,
    group: str | Sequence[str] | None = None,
    positive: str | None = None,
    split: str = "test",
    criterion: str = "eo",
    budget: float = BUDGET,
    store: str | Path | None = None,
    progress: bool = True,
) -> Config:
    """How a classifier, with a prompt or without, serves each group: an `Audit` as plain values,
    a "warning" where the model seems to know the group only, or nothing, and a "recommendation".
    Without a prompt that rests on what can be done about it, "remedies"
    (`vpt.fairness.remedies.Remedies`); with one, on the model without it on the same examples,
    "compared" (`vpt.fairness.choosing.Judged`), or "not_compared" says why not.

    Where the model has more classes than the data, it is asked to choose among those of the data
    only. Raises `DataError`.

    data: as for `vpt.load_data`, with a group for every example.
    model: a classifier as for `vpt.load_backbone`, or one with its prompt.
    label: the column of labels.
    group: the column of groups; of several, their combinations.
    positive: of two classes, the one whose rates count; the second by default.
    split: which part of the data, where they have parts; else all of them.
    criterion: whose gap a prompt is judged by, "eo" (equalized odds) or "dp" (demographic parity).
    budget: accuracy that a prompt may cost, in [0,1).
    store: without a prompt, a feature store (`vpt.features`), as for `vpt.adapt`.
    progress: whether to show how far it is.
    """
    objectives("penalty", criterion, None, budget, None)  # refuses what is none
    source = look(Path(data), label, group) if isinstance(data, (str, Path)) else data
    backbone = model.backbone if isinstance(model, PromptedModel) else open_for(source, model)
    with stored(store, backbone, source, queries=False):
        examples = _examples(source, backbone, label, group, split, progress)
        if not isinstance(model, PromptedModel):
            return _bare(backbone, examples, positive, progress)
    found = _with_and_without(model, examples, positive, progress, criterion, budget)
    if isinstance(source, Source) and not _apart(source, split):
        found["warning"] = " ".join(part for part in (found["warning"], SEEN) if part)
    return found


def _examples(
    source: Any,
    backbone: Backbone,
    label: str | None,
    group: str | Sequence[str] | None,
    split: str,
    progress: bool,
) -> Examples:
    """What is audited; the rest as for `audit`."""
    if isinstance(source, Source):
        return read_parts(source, backbone.inputs, split, progress)
    if isinstance(source, Examples):
        return source
    # so that nothing is held out
    given = source if isinstance(source, Mapping) else {"train": source, "val": source}
    wanted = load_data(given, backbone.inputs, label=label, group=group, progress=progress)
    return wanted.test or wanted.train


def _bare(backbone: Backbone, examples: Examples, positive: str | None, progress: bool) -> Config:
    """The audit of a model without a prompt, and what can be done about it, from one pass where the
    examples are few.
    """
    own = Identity.like(backbone, examples.classes)
    with PromptedModel(backbone, None, own) as prompted:
        examples = grouped(prompted, examples, "audited")
    mending, cannot = None, ""
    if len(set(examples.grouped or [])) > 1:
        few = at_most(examples)
        try:
            mending = Mending.of(backbone, own, few, "eo", progress=progress)
        except TrainingError as error:  # what was asked for can be said all the same
            cannot = str(error)
        finally:
            backbone.release()
    if mending is not None and mending.examples is examples:
        audited = audit_decisions(examples, mending.bare.argmax(1), positive)
    else:
        with PromptedModel(backbone, None, own) as prompted:
            audited = audit_model(prompted, examples, positive, progress)
    warning = " ".join(part for part in (suspicion(audited), cannot) if part)
    found = audited.as_dict() | {"warning": warning}
    if mending is None:
        return found
    said = remedies(mending, positive=positive)
    return found | {"remedies": said.as_dict(), "recommendation": said.recommendation}


def _apart(source: Source, split: str) -> bool:
    """Whether a part for testing was named, and is what is audited."""
    return split == "test" and any(item.split == split for item in source.listing.items)


def _with_and_without(
    model: PromptedModel,
    examples: Examples,
    positive: str | None,
    progress: bool,
    criterion: str,
    budget: float,
) -> Config:
    """The audit of a model with its prompt, and, where the classes are the model's own, whether the
    prompt is worth using: both are asked about the same examples.
    """
    examples = grouped(model, examples, "audited")

    def asked(name: str) -> Point:
        said = {"val": scores(model, examples, progress=progress, what=name)[0]}
        return point_at(name, None, said, {"val": examples}, positive)

    chosen = asked("with the prompt")
    found = chosen.val.as_dict() | {"warning": suspicion(chosen.val)}
    learned = model.prompt, model.readout
    try:
        own = learned[1]
        if not isinstance(own, Identity):
            own = Identity.like(model.backbone, examples.classes)
        model.swap(None, own)
    except VptError as error:  # classes that were learned, or that the model does not name
        return found | {"not_compared": str(error)}
    try:
        base = asked("bare model")
    finally:
        model.swap(*learned)
    if base.value("accuracy") <= 1 / len(base.val.cells) < chosen.value("accuracy"):
        why = (
            f"without the prompt it is right on {base.value('accuracy'):.1%}, no better than"
            " chance: its classes seem to be named in another order than it has them"
        )
        return found | {"not_compared": why}
    worth = judged(base, chosen, examples, GAP[criterion], budget, positive)
    return found | {"compared": asdict(worth), "recommendation": worth.recommendation}
