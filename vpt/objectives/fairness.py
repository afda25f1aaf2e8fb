"""Objectives that make a model's errors alike between groups: an adversary, a penalty on the gap,
the worst group first.

Which to use: `GapPenalty` first, it is the simplest and says directly what is wanted.
`FairReprogram` where the gap of means is closed but the group can still be read off the scores, or
to repeat the paper. `WorstGroup` where some label × group cell is served badly and the rates need
not be equal.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vpt.errors import TrainingError
from vpt.objectives.base import Gradients, Objective
from vpt.sites import Config

CRITERIA = {"dp": "demographic parity", "eo": "equalized odds"}


class _ByGroup(Objective):
    """What these have in common: groups, of which at least two are compared, within each label (eo)
    or over all (dp).

    A group that does not occur with a label is left out of that label's comparison, as long as two
    others are there.
    """

    keeps_best = False  # the epoch of least cross-entropy would be the least fair one
    needs_cells = True  # whether every label needs examples of two groups
    shares: Tensor

    def __init__(self, criterion: str, strength: float) -> None:
        super().__init__()
        if criterion not in CRITERIA:
            raise TrainingError(
                f"Found criterion={criterion!r}; needed is 'dp' (demographic parity) or 'eo'"
                " (equalized odds)."
            )
        self.criterion, self.strength = criterion, _rate("strength", strength)

    def config(self) -> Config:
        """Criterion and strength."""
        return {"criterion": self.criterion, "strength": self.strength}

    def bind(
        self,
        y: Sequence[int],
        group: Sequence[int] | None,
        classes: Sequence[str],
        group_names: Sequence[str] | None,
    ) -> None:
        """Count the examples of every stratum × group. Raises `TrainingError` for missing groups
        and empty cells.
        """
        if group is None or group_names is None:
            raise TrainingError(
                "The training examples have no groups; this objective needs the group of every"
                " example (a group column in the CSV, or items of (input, label, group))."
            )
        if min(group) < 0:
            raise TrainingError(
                f"{sum(g < 0 for g in group)} of {len(group)} training examples have no group;"
                " needed is one each."
            )
        present = sorted(set(group))
        if len(present) < 2:
            raise TrainingError(
                f"All training examples are of one group, {group_names[present[0]]!r}; needed are"
                " two."
            )
        strata = len(classes) if self.criterion == "eo" else 1
        counts = torch.zeros(strata, len(group_names))
        for label, g in zip(y, group, strict=True):
            counts[label if self.criterion == "eo" else 0, g] += 1
        empty = [
            (classes[s], group_names[g])
            for s in range(strata)
            if (counts[s] > 0).sum() == 1
            for g in present
            if not counts[s, g]
        ]
        if empty and self.needs_cells:
            cells = ", ".join(f"label {label!r} in group {name!r}" for label, name in empty[:5])
            raise TrainingError(
                f"No training examples with {cells}: equalized odds is not defined there. Add some,"
                " merge groups, or use demographic parity (criterion='dp')."
            )
        self.register_buffer("shares", counts / counts.sum(), persistent=False)
        self.classes, self.groups = len(classes), len(group_names)

    def _stratum(self, y: Tensor) -> Tensor:
        return y if self.criterion == "eo" else torch.zeros_like(y)


class FairReprogram(_ByGroup):
    """Cross-entropy against an adversary that reads the group off the scores (Zhang et al. 2022,
    equations 2 to 4).

    The adversary sees s = softmax(o · (1 + |c|)), c learned; for equalized odds also s on the
    label's place. with_logits: it sees the scores o too, as in every command that the authors
    publish for images (with lr=0.05). With û = g_a/‖g_a‖ the update of the prompt (and of a new
    readout), each as one flat vector, is g_u − ⟨g_u, û⟩ û − λ g_a, where g_u and g_a are the
    gradients of cross-entropy and of the adversary's loss, and λ = `strength`. lr: of the
    adversary's own Adam. hidden: its width.
    """

    temperature: nn.Parameter
    adversary: nn.Module

    def __init__(
        self,
        strength: float = 0.5,
        criterion: str = "eo",
        lr: float = 0.01,
        hidden: int = 512,
        seed: int = 0,
        with_logits: bool = False,
    ) -> None:
        super().__init__(criterion, strength)
        self.lr, self.hidden, self.seed, self.with_logits = (
            _rate("lr", lr),
            hidden,
            seed,
            bool(with_logits),
        )

    def config(self) -> Config:
        """Everything it was made with."""
        return super().config() | {
            "lr": self.lr,
            "hidden": self.hidden,
            "seed": self.seed,
            "with_logits": self.with_logits,
        }

    def bind(
        self,
        y: Sequence[int],
        group: Sequence[int] | None,
        classes: Sequence[str],
        group_names: Sequence[str] | None,
    ) -> None:
        """Make the adversary, the same on every process."""
        super().bind(y, group, classes, group_names)
        width = len(classes) * (1 + (self.criterion == "eo") + self.with_logits)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            self.adversary = nn.Sequential(
                nn.Linear(width, self.hidden), nn.ReLU(), nn.Linear(self.hidden, self.groups)
            )
        self.temperature = nn.Parameter(torch.ones(()))

    def optimizer(self) -> torch.optim.Optimizer:
        """Adam, for the adversary and its temperature."""
        return torch.optim.Adam(self.parameters(), lr=self.lr)

    def losses(self, logits: Tensor, y: Tensor, group: Tensor | None = None) -> dict[str, Tensor]:
        """Scores `[B,C]`, labels `[B]`, groups `[B]` → {"cross_entropy", "adversary"}."""
        soft = torch.softmax(logits * (1 + self.temperature.abs()), 1)
        seen = [logits] if self.with_logits else []
        seen += [soft, soft * F.one_hot(y, self.classes)] if self.criterion == "eo" else [soft]
        said = self.adversary(torch.cat(seen, 1))
        return {
            "cross_entropy": F.cross_entropy(logits, y),
            "adversary": F.cross_entropy(said, _given(group)),
        }

    def combine(self, gradients: Gradients) -> dict[str, Tensor]:
        """The projected update; the adversary itself descends its own loss."""
        utility, adverse = gradients["cross_entropy"], gradients["adversary"]
        return {
            part: (
                adverse[part]
                if part == "objective"
                else projected(utility[part], adverse[part], self.strength)
            )
            for part in utility
        }


def projected(utility: Tensor, adverse: Tensor, strength: float) -> Tensor:
    """g_u − ⟨g_u, û⟩ û − λ g_a of flat gradients `[P]`; nothing is projected off a zero g_a."""
    along = adverse / adverse.norm().clamp_min(torch.finfo(adverse.dtype).tiny)
    return utility - (utility @ along) * along - strength * adverse


class GapPenalty(_ByGroup):
    """Cross-entropy plus `strength` times the squared gap between the groups' mean soft
    predictions.

    With m[s,z,c] the mean probability of class c over the examples of stratum s (each label for
    equalized odds, all for demographic parity) and group z: Σ_s Σ_{z<z'} Σ_c (m[s,z,c] −
    m[s,z',c])² / C. A batch says little about small groups, so the gap comes from a running
    estimate over about 1 / (1 − memory) updates; its gradient, 2 · gap · ∇m, is a mean over
    examples, and the same however an update is cut into micro-batches and processes.
    """

    seen: Tensor
    counted: Tensor

    def __init__(self, strength: float = 1.0, criterion: str = "eo", memory: float = 0.9) -> None:
        super().__init__(criterion, strength)
        if not 0 <= memory < 1:
            raise TrainingError(f"Found memory={memory}; needed is a number in [0, 1).")
        self.memory = memory

    def config(self) -> Config:
        """Everything it was made with."""
        return super().config() | {"memory": self.memory}

    def bind(
        self,
        y: Sequence[int],
        group: Sequence[int] | None,
        classes: Sequence[str],
        group_names: Sequence[str] | None,
    ) -> None:
        """Start without an estimate: the first update is one of cross-entropy alone."""
        super().bind(y, group, classes, group_names)
        # probabilities summed by stratum and group, and (last) how many; over the past, and in this
        # update
        self.register_buffer("seen", torch.zeros(*self.shares.shape, self.classes + 1))
        self.register_buffer("counted", torch.zeros_like(self.seen))

    def statistics(self) -> list[Tensor]:
        """The sums of this update."""
        return [self.counted]

    def losses(self, logits: Tensor, y: Tensor, group: Tensor | None = None) -> dict[str, Tensor]:
        """Scores `[B,C]`, labels `[B]`, groups `[B]` → {"cross_entropy", "gap"}; "gap" has the
        penalty's gradient and size.
        """
        soft, cell = torch.softmax(logits, 1), (self._stratum(y), _given(group))
        if self.training:
            row = torch.cat([soft.detach(), torch.ones_like(soft[:, :1])], 1)
            self.counted.index_put_(cell, row.to(self.counted), accumulate=True)
        gaps = self.gaps()
        # of the penalty, in this example's probabilities
        slope = 2 * gaps.sum(2)[cell] / self.shares[cell][:, None]
        penalty = (soft * slope).sum(1).mean() - gaps.square().sum() / 2
        return {
            "cross_entropy": F.cross_entropy(logits, y),
            "gap": self.strength / self.classes * penalty,
        }

    def gaps(self) -> Tensor:
        """The running estimate of m[s,z,c] − m[s,z',c] as `[S,Z,Z,C]`; 0 where either is not
        known.
        """
        sums, counts = self.seen[..., :-1], self.seen[..., -1:]
        known, mean = counts > 0, sums / counts.clamp_min(1e-12)
        return (mean[:, :, None] - mean[:, None]) * (known[:, :, None] & known[:, None])

    def combine(self, gradients: Gradients) -> dict[str, Tensor]:
        """The sum of both; what was counted in this update joins the estimate."""
        self.seen.mul_(self.memory).add_(self.counted)
        self.counted.zero_()
        return super().combine(gradients)


class WorstGroup(_ByGroup):
    """The worst label × group cell first: group DRO (Sagawa et al. 2020, algorithm 1).

    Cross-entropy in which cell k weighs q[k]; after each update q[k] grows by exp(step · its mean
    loss) and is made to sum to 1. Examples are weighted by q over their cell's share, which is
    balanced sampling in expectation; step 0 is that alone. The mean loss is over the number of
    examples that a cell has in an update on average, so that rare cells do not fall behind for
    being absent from most.
    """

    needs_cells = False
    weights: Tensor
    counted: Tensor

    def __init__(self, step: float = 0.05) -> None:
        super().__init__("eo", 0.0)
        self.step = _rate("step", step)

    def config(self) -> Config:
        """The step."""
        return {"step": self.step}

    def bind(
        self,
        y: Sequence[int],
        group: Sequence[int] | None,
        classes: Sequence[str],
        group_names: Sequence[str] | None,
    ) -> None:
        """Start with equal weights for the cells that there are."""
        super().bind(y, group, classes, group_names)
        present = (self.shares > 0).float()
        self.register_buffer("weights", present / present.sum())
        # loss summed, and how many, in this update
        self.register_buffer("counted", torch.zeros(*present.shape, 2))

    def statistics(self) -> list[Tensor]:
        """The sums of this update."""
        return [self.counted]

    def losses(self, logits: Tensor, y: Tensor, group: Tensor | None = None) -> dict[str, Tensor]:
        """Scores `[B,C]`, labels `[B]`, groups `[B]` → {"cross_entropy"}, weighted."""
        each, cell = F.cross_entropy(logits, y, reduction="none"), (y, _given(group))
        if self.training:
            self.counted.index_put_(
                cell, torch.stack([each.detach(), torch.ones_like(each)], 1), accumulate=True
            )
        return {
            "cross_entropy": (each * (self.weights / self.shares.clamp_min(1e-12))[cell]).mean()
        }

    def combine(self, gradients: Gradients) -> dict[str, Tensor]:
        """The gradient as it is; then the cells are weighed anew."""
        loss = self.counted[..., 0] / (self.shares * self.counted[..., 1].sum()).clamp_min(1e-12)
        grown = self.weights * torch.exp(self.step * loss)
        self.weights.copy_(grown / grown.sum())
        self.counted.zero_()
        return super().combine(gradients)


def _given(group: Tensor | None) -> Tensor:
    if group is None:
        raise TrainingError("This objective needs the group of every example.")
    return group


def _rate(name: str, value: float) -> float:
    if (
        isinstance(value, bool)
        or not isinstance(value, (int, float))
        or not (math.isfinite(value) and value >= 0)
    ):
        raise TrainingError(f"Found {name}={value!r}; needed is a finite number of at least 0.")
    return float(value)
