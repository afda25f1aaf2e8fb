"""What a run remembers of the examples that it learned from: means and second moments of what its
readout reads, and no example.

It is what `vpt correct` weighs a correction against: how often it would turn a right answer wrong.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import wraps
from pathlib import Path
from typing import ParamSpec

import torch
from torch import Tensor

from vpt.data import Examples
from vpt.errors import PromptFileError, TrainingError
from vpt.errors.places import is_file
from vpt.files.packing import file_bytes, pack, unpack, write_atomically
from vpt.model import PromptedModel
from vpt.readouts import Identity, Readout
from vpt.runs.kept import Kept
from vpt.runs.own_classifier import as_linear
from vpt.training.evaluation import scores

MEMORY = "memory.safetensors"
LOGGER = logging.getLogger(__name__)
RANK = 192  # directions of the spread that are kept
MOST_SCORE = 1e4
MOST = 1000  # examples that are looked at
DRAWN = 2000  # answers that are drawn
LEVEL = 1.0  # of the ridge, in the units of a standardised feature
P = ParamSpec("P")


@dataclass
class Moments:
    """Examples in a few numbers: normal about the mean of each class, with one spread for all.

    mean, scale: by which features are standardised `[F]`. y: class of each mean `[K]`. weight: its
        share of examples `[K]`. centre: means of standardised features `[K,F]`. scores: of class
        scores `[K,C]`. factor `[R,F]`, scores_factor `[R,C]`: of the spread within classes, the
        largest directions. rest: the spread of scores outside them `[C,C]`.
    """

    mean: Tensor
    scale: Tensor
    y: Tensor
    weight: Tensor
    centre: Tensor
    scores: Tensor
    factor: Tensor
    scores_factor: Tensor
    rest: Tensor

    @classmethod
    @torch.no_grad()
    def of(cls, features: Tensor, said: Tensor, y: Tensor) -> Moments:
        """Of examples with features `[n,F]`, scores `[n,C]` and labels `[n]`; of `MOST` of them,
        where there are more.
        """
        if len(y) > MOST:  # or it takes minutes, for nothing that more would say
            some = _some(len(y))
            features, said, y = features[some], said[some], y[some]
        x, said = features.double(), said.double()
        n = len(x)
        mean, spread = x.mean(0), x.std(0, correction=0)
        # a feature that hardly changes would outweigh all others where it does
        changes = spread > 1e-3 * spread.median().clamp(min=1e-6 * float(mean.abs().max()))
        scale = torch.where(changes, 1 / spread, 0.0)
        z = (x - mean) * scale
        kinds, place, counts = y.unique(return_inverse=True, return_counts=True)
        weights = torch.nn.functional.one_hot(place).double() / counts
        centre, middle = weights.T @ z, weights.T @ said
        z, rest = z - centre[place], said - middle[place]
        values, vectors = torch.linalg.eigh(z @ z.T)
        rank = min(RANK, max(1, int((values > 1e-9 * values.max().clamp(min=1e-9)).sum())))
        basis = vectors[:, -rank:]
        factor, scores_factor = (basis.T @ v / n**0.5 for v in (z, rest))
        left = rest - basis @ (basis.T @ rest)
        lesser, turned = torch.linalg.eigh(left.T @ left / n)
        return cls(
            mean.float(),
            scale.float(),
            kinds,
            (counts / n).float(),
            centre.float(),
            middle.float(),
            factor.float(),
            scores_factor.float(),
            (lesser.clamp(min=0).sqrt()[:, None] * turned.T).float(),
        )

    def standardised(self, features: Tensor) -> Tensor:
        """`[n,F]` → `[n,F]`."""
        return (features.float() - self.mean) * self.scale

    def drawn(self, directions: Tensor, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
        """(scores `[N,C]`, features along directions `[k,F]` as `[N,k]`, labels `[N]`) of examples
        that might have been, by the moments.
        """
        generator = torch.Generator().manual_seed(seed)
        which = torch.multinomial(self.weight, DRAWN, True, generator=generator)
        along = torch.randn(DRAWN, len(self.factor), generator=generator)
        other = torch.randn(DRAWN, len(self.rest), generator=generator)
        said = along @ self.scores_factor + other @ self.rest
        read = along @ (self.factor @ directions.T)
        means = self.centre @ directions.T
        return self.scores[which] + said, means[which] + read, self.y[which]

    def whitened(self, z: Tensor) -> Tensor:
        """(second moments + `LEVEL`)⁻¹ z, of standardised features `[k,F]`."""
        rows = torch.cat([self.weight.sqrt()[:, None] * self.centre, self.factor]).double()
        inner = rows @ rows.T + LEVEL * torch.eye(len(rows)).double()
        z = z.double()
        return ((z - torch.linalg.solve(inner, rows @ z.T).T @ rows) / LEVEL).float()

    def save(self, path: Path) -> None:
        """Write to a file. Raises `PromptFileError`."""
        tensors = {part.name: getattr(self, part.name) for part in fields(self)}
        small = {n: v.half() if n == "factor" else v for n, v in tensors.items()}
        write_atomically(path, pack(small, {"format": "vpt-memory", "version": 1}))

    @classmethod
    def load(cls, path: Path) -> Moments | None:
        """Of a file; None where there is none. Raises `PromptFileError` for a damaged one."""
        if not is_file(path):
            return None
        header, tensors = unpack(file_bytes(path), str(path))
        names = {part.name for part in fields(cls)}
        if header.get("format") != "vpt-memory" or set(tensors) != names:
            raise PromptFileError(f"{path} is not what a run remembers.")
        whole = ("y",)
        return cls(**{n: v if n in whole else v.float() for n, v in tensors.items()})


def _unless_it_fails(make: Callable[P, Moments | None]) -> Callable[P, Moments | None]:
    """The same, but None with a warning where it fails: moments are no reason to lose a run."""

    @wraps(make)
    def guarded(*args: P.args, **options: P.kwargs) -> Moments | None:
        try:
            return make(*args, **options)
        except Exception as error:
            LOGGER.warning(
                "What the run is to remember for vpt correct could not be said: %s", error
            )
            return None

    return guarded


def _some(count: int) -> Tensor:
    """Which of so many examples are looked at, in order: `MOST`, always the same."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(0))
    return order[:MOST].sort().values


def features_of(model: PromptedModel) -> Readout | None:
    """The model's readout as one of features: its own, or the classifier whose classes it takes;
    None where there is no such.
    """
    readout = model.readout
    if isinstance(readout, Identity):
        try:
            return as_linear(model.backbone, readout)
        except TrainingError:
            return None
    plain = readout.reads == "features" and not model.tasks
    return readout if plain and isinstance(getattr(readout, "features", None), int) else None


def read_features(
    model: PromptedModel, examples: Examples, progress: bool, what: str
) -> tuple[Tensor, Tensor]:
    """(What a readout of features reads `[n,F]`, labels `[n]`). what: it is called on the bar."""
    features, y = scores(model, examples, outputs=True, progress=progress, what=what)
    return features.float(), y


@torch.no_grad()
def said_of(model: PromptedModel, features: Tensor) -> Tensor:
    """What the model's readout says of features `[n,F]`: `[n,C]`."""
    said = model.readout(features.to(model.backbone.device)).float().cpu()
    return said.clamp(-MOST_SCORE, MOST_SCORE)  # a class that was never seen may score −inf


@_unless_it_fails
def moments_of_kept(kept: Kept, model: PromptedModel) -> Moments | None:
    """Moments of what one pass left, with what the model's queries read."""
    features = kept.of_examples(kept.named(model.readout.named.text, model.backbone))
    return Moments.of(features, said_of(model, features), kept.y)


@_unless_it_fails
def moments_of(model: PromptedModel, examples: Examples, progress: bool) -> Moments | None:
    """Moments of examples that a model learned from; None if it cannot be corrected.

    model: that learned.
    examples: matched to it; `MOST` of them pass through the model once more.
    progress: whether to show how far it is.
    """
    made, own = features_of(model), model.readout
    if made is None:
        return None
    some = examples.subset(_some(len(examples)).tolist())
    model.readout = made.to(model.backbone.device)
    try:
        features, y = read_features(model, some, progress, "what the run remembers")
        said = said_of(model, features)
    finally:
        model.readout = own
    return Moments.of(features, said, y)
