"""The short way to a fairer model: corrections of its own scores, of several strengths, all
cross-fitted on one pass over the data.

Every tuned example is held out once, so that all of them choose, and not a part; then each
correction is fitted on all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vpt.backbones import Backbone
from vpt.data import Examples
from vpt.errors import TrainingError
from vpt.fairness.heads import Cells, Head
from vpt.objectives import METHODS
from vpt.readouts import Identity, Linear
from vpt.report.progress import progress_bar
from vpt.runs.kept import Kept, keep
from vpt.runs.own_classifier import classifier_of
from vpt.runs.probe import Folds

FOLDS = 5
MOST = 20_000_000  # numbers in a set of features
FEWEST = 10  # examples, or persons where they belong together
STRENGTHS = METHODS["penalty"].strengths  # that are tried
SETS = ("cls+mean", "blocks")  # of features: a correction on each, and their mean is taken


@dataclass
class Mending:
    """What corrections say of examples.

    classifier: the model's own, as `classifier_of` has it. examples: with groups, matched to the
        model. kept: of them. bare: the model's own scores of their classes `[n,C]`. heads: a
        correction on each set of features. folds: by which they are cross-fitted.
    """

    classifier: tuple[np.ndarray, np.ndarray]
    examples: Examples
    kept: Kept
    bare: Tensor
    heads: list[Head]
    folds: Folds

    @classmethod
    def of(
        cls,
        backbone: Backbone,
        own: Identity,
        examples: Examples,
        criterion: str,
        seed: int = 0,
        progress: bool = False,
    ) -> Mending:
        """Run the model once over examples, and prepare corrections.

        backbone: with nothing attached, and a classifier.
        own: its classes, bound to it.
        examples: as for it, with groups.
        criterion: "eo" or "dp".
        seed: of the folds.
        progress: whether to show how far it is.

        Raises `TrainingError`, before that, for a model that cannot be corrected and for too few
        examples.
        """
        classifier = classifier_of(backbone, own)
        y, group = np.array(examples.targets), np.array(examples.grouped)
        folds = folds_by_cell(y, group, examples.together, seed)
        kept = keep(backbone, examples, logits=True, progress=progress)
        bare = scores_of(own, kept)
        cells = Cells(y if criterion == "eo" else np.zeros_like(y), group)
        heads: list[Head] = []
        sets = SETS if backbone.depth else ("cls",)
        with progress_bar(progress) as bar:
            for text in bar.track(sets, description="corrections on frozen features"):
                x = kept.of_examples(kept.named(text, backbone)).double().numpy()
                if heads and x.size > MOST:  # hours, for what the first set does nearly as well
                    continue
                heads.append(Head(text, x, bare.double().numpy(), y, cells, folds))
        return cls(classifier, examples, kept, bare, heads, folds)

    def held_out(self, strength: float) -> Tensor:
        """Scores `[n,C]` of examples that were not learned from. Strengths are to rise."""
        found = np.mean([head.held_out(strength) for head in self.heads], axis=0)
        return torch.from_numpy(found).float()

    def fit(self, strength: float) -> Linear:
        """The corrected classifier, as one linear readout."""
        weight, bias = self.classifier
        texts = [head.text for head in self.heads]
        parts = [head.fit(strength) for head in self.heads]
        mean = np.concatenate([scaler.mean_ for _, _, scaler in parts])
        scale = np.concatenate([1 / scaler.scale_ for _, _, scaler in parts])
        weights = np.concatenate([found for found, _, _ in parts], axis=1) / len(parts)
        biases = np.mean([found for _, found, _ in parts], axis=0)
        first = weight.shape[1]  # cls comes first: the model's own classifier, on the same features
        weights[:, :first] += weight / scale[:first]
        biases = biases + bias + weight @ mean[:first]
        readout = Linear(weights.shape[1], self.examples.classes, "+".join(texts))
        with torch.no_grad():
            if readout.standardised:
                readout.mean.copy_(torch.from_numpy(mean))
                readout.scale.copy_(torch.from_numpy(scale))
                weights = weights * weights.shape[1] ** 0.5
            else:
                biases = biases - weights @ (mean * scale)
                weights = weights * scale
            readout.weight.copy_(torch.from_numpy(weights))
            readout.bias.copy_(torch.from_numpy(biases))
        return readout


def scores_of(own: Identity, kept: Kept) -> Tensor:
    """The model's own scores of the data's classes `[m,C]`."""
    if kept.logits is None:
        raise TrainingError("This model has no classifier of its own that could be corrected.")
    return kept.of_examples(own(kept.logits))


def folds_by_cell(
    y: np.ndarray,
    group: np.ndarray,
    together: Sequence[int] | None,
    seed: int,
    count: int = FOLDS,
) -> Folds:
    """(what is kept, what is held out) of each fold; each label × group cell is spread evenly over
    the folds, but what belongs together stays on one side. Raises `TrainingError` for too few.
    """
    units = np.arange(len(y)) if together is None else np.array(together)
    names, unit = np.unique(units, return_inverse=True)
    if len(names) < FEWEST:
        raise TrainingError(
            f"Found {len(y)} examples"
            + (f" of {len(names)} that belong together" if len(names) < len(y) else "")
            + f"; needed are {FEWEST} at least, to hold some out."
        )
    # units, the largest first, go one by one to the fold that has the least of their cells
    cells = np.unique(y * (group.max() + 1) + group, return_inverse=True)[1]
    table = np.zeros((len(names), cells.max() + 1))
    np.add.at(table, (unit, cells), 1)
    rare = table.sum(0)
    order = np.random.default_rng(seed).permutation(len(names))
    order = order[np.argsort(-table[order].sum(1), kind="stable")]
    folds, number = np.zeros((count, table.shape[1])), np.empty(len(names), int)
    for one in order:
        fold = int(np.lexsort((folds.sum(1), folds @ (table[one] / rare)))[0])
        folds[fold] += table[one]
        number[one] = fold
    of = number[unit]
    return [(np.flatnonzero(of != f), np.flatnonzero(of == f)) for f in range(count)]
