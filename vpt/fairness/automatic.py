"""prompt="auto" of `vpt reprogram`: corrections of the model's own scores, chosen out of fold."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from vpt.backbones import Backbone
from vpt.data import CALLED, Data, Examples
from vpt.data.examples import same_groups
from vpt.data.joining import appended
from vpt.errors import TrainingError
from vpt.fairness.auditing import few_in_cells, suspicion
from vpt.fairness.choosing import GAP, Point
from vpt.fairness.mending import STRENGTHS, Mending, scores_of
from vpt.fairness.outcome import Frontier
from vpt.fairness.thresholds import cross_fitted_thresholds, decided_by_group, point_of
from vpt.fairness.tradeoff import ALONE, point_at, refuse_undefined
from vpt.files import learned_copy, restore
from vpt.model import PromptedModel
from vpt.readouts import Identity
from vpt.runs.kept import Kept, keep
from vpt.runs.labelled import AUTO
from vpt.runs.moments import moments_of_kept
from vpt.runs.own_classifier import can_be_corrected
from vpt.runs.timing import time_pass
from vpt.sites import Config
from vpt.training.evaluation import grouped

METHOD = "penalty"  # whose gap it is
SECONDS = 0.04  # to cross-fit corrections, for each example: a guess


def mended(
    backbone: Backbone,
    data: Data,
    *,
    criterion: str = "eo",
    strengths: Sequence[float] | None = None,
    budget: float = 0.01,
    bound: float | None = None,
    positive: str | None = None,
    seed: int = 0,
    progress: bool = True,
    say: Callable[[str], None] = lambda text: None,
) -> tuple[PromptedModel, Frontier]:
    """(The model with the chosen correction, the trade-off): what "val" is there was said out of
    fold, of all examples that are not for testing.

    backbone: a classifier with nothing attached.
    data: with groups.
    criterion, strengths, budget, bound, positive: as for `vpt.frontier`, of the penalty.
    seed: of the folds.
    progress: whether to show how far it is.
    say: is told what is done.

    Raises `TrainingError`, `DataError`.
    """
    own = Identity.like(backbone, data.classes)
    parts = _parts(backbone, own, data)
    tuned = parts["val"]
    mending = Mending.of(backbone, own, tuned, criterion, seed, progress)
    kept = {"val": mending.kept}
    if "test" in parts:
        what = "one pass over the test data"
        kept["test"] = keep(backbone, parts["test"], logits=True, progress=progress, what=what)
    bare = {name: scores_of(own, one) for name, one in kept.items() if name != "val"}
    bare["val"] = mending.bare
    base = point_at("bare model", None, bare, parts, positive)
    refuse_undefined(base, GAP[criterion], str(len(tuned)))
    notes = [note for note in (suspicion(base.val), few_in_cells(base.val)) if note]
    model = PromptedModel(backbone, None, mending.fit(0.0))
    points = []
    try:
        for strength in (0.0, *sorted(strengths or STRENGTHS)):
            say(f"strength {strength:g}" if strength else "accuracy alone")
            if strength:  # the model begins with the other
                model.readout.load_state_dict(mending.fit(strength).state_dict())
            said = {"val": mending.held_out(strength)}
            if "test" in kept:
                said["test"] = _said(model, kept["test"])
            name, of = (repr(float(strength)), strength) if strength else (ALONE, None)
            points.append(point_at(name, of, said, parts, positive))
            points[-1].learned = learned_copy(model)
    except BaseException:
        model.close()
        raise
    found = Frontier.settled(
        base,
        points,
        tuned,
        notes,
        _thresholds(mending, bare, parts, criterion, positive),
        criterion=criterion,
        budget=budget,
        bound=bound,
        positive=positive,
        seed=seed,
        out_of_fold=True,
    )
    restore(model, found.chosen.learned or {})
    found.moments = moments_of_kept(mending.kept, model)
    return model, found


def decides(method: str, readout: object, settings: Config) -> list[str]:
    """What is said of a training, which prompt="auto" has none of."""
    said = [f"method={method!r}"] if method != METHOD else []
    said += ["readout"] if readout != "identity" else []
    return said + sorted(settings)


def refuse_told(method: str, readout: object, settings: Config) -> None:
    """Raise `TrainingError` for what prompt="auto" decides by itself."""
    said = decides(method, readout, settings)
    if said:
        raise TrainingError(
            f"Found {', '.join(said)} with prompt='auto', which corrects the model's own scores by"
            " a penalty on the gap, and trains nothing by epochs. Leave that out, or name a prompt"
            " (border:6, prefix:4)."
        )


def usual(backbone: Backbone, trained: bool) -> str:
    """What is done where no prompt is named: "auto", or, where something is `trained` or the model
    cannot be corrected, a border that covers as much of an image as FairReprogram's does; 8 frames
    of sound.
    """
    if not trained and can_be_corrected(backbone):
        return AUTO
    size = getattr(backbone.inputs, "size", None)
    return f"border:{max(1, round(min(size) * 20 / 224)) if size else 8}"


def seconds_to_mend(backbone: Backbone, data: Data) -> float:
    """About how long it will take, from a few examples timed here."""
    tuned = sum(len(part) for name, part in data.parts.items() if name != "test")
    return time_pass(backbone, data, ())[1] + SECONDS * tuned


def _parts(backbone: Backbone, own: Identity, data: Data) -> dict[str, Examples]:
    """What is tuned on, as "val" (all of it is held out once), and "test", matched to the model.
    Raises `DataError`.
    """
    with PromptedModel(backbone, None, own) as bare:
        found = {name: grouped(bare, part, CALLED[name]) for name, part in data.parts.items()}
    found = same_groups(found)  # before two of them are joined, whose groups go by number
    parts = {"val": appended(found["train"], found["val"])}
    return parts | ({"test": found["test"]} if "test" in found else {})


@torch.no_grad()
def _said(model: PromptedModel, kept: Kept) -> Tensor:
    """Scores of a corrected model, of what was kept `[m,C]`."""
    features = kept.named(model.readout.named.text, model.backbone)
    return kept.of_examples(model.readout(features.to(model.backbone.device)).cpu())


def _thresholds(
    mending: Mending,
    bare: dict[str, Tensor],
    parts: dict[str, Examples],
    criterion: str,
    positive: str | None,
) -> Point | None:
    """Thresholds by group, of which each fold's are learned from the others."""
    tuned = parts["val"]
    decided = cross_fitted_thresholds(bare["val"], tuned, mending.folds, criterion, positive)
    if decided is None:
        return None
    every = {"train": tuned} | {name: parts[name] for name in parts if name != "val"}
    scores = {"train": bare["val"]} | {name: bare[name] for name in parts if name != "val"}
    others = decided_by_group(scores, every, criterion, positive)
    if others is None:  # a group that only the test examples have
        return None
    return point_of({"val": decided} | others, parts, positive)
