"""An adversary that reads the group off the scores, and an update against it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vpt.objectives.base import Gradients, register
from vpt.objectives.by_group import ByGroup, given, rate
from vpt.sites import Config


@register("adversary", "FairReprogram")
class FairReprogram(ByGroup):
    """Cross-entropy against an adversary that reads the group off the scores (Zhang et al. 2022,
    equations 2 to 4).

    The adversary sees s = softmax(o · (1 + |c|)), c learned; for equalized odds also s on the
    label's place. With û = g_a/‖g_a‖ the update of the prompt (and of a new readout), each as one
    flat vector, is g_u − ⟨g_u, û⟩ û − λ g_a, where g_u and g_a are the gradients of cross-entropy
    and of the adversary's loss.

    strength: λ.
    criterion: "eo" (equalized odds) or "dp" (demographic parity).
    lr: of the adversary's own Adam.
    hidden: the adversary's width.
    seed: of the adversary's start.
    with_logits: whether it sees the scores o too, as in every command that the authors publish for
        images (with lr=0.05).
    """

    strengths = (0.02, 0.05, 0.1, 0.2, 0.5)
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
        super().__init__(strength, criterion)
        self.lr = rate("lr", lr)
        self.hidden = hidden
        self.seed = seed
        self.with_logits = bool(with_logits)

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
        guesses = self.adversary(torch.cat(seen, 1))
        return {
            "cross_entropy": F.cross_entropy(logits, y),
            "adversary": F.cross_entropy(guesses, given(group)),
        }

    def combine(self, gradients: Gradients) -> dict[str, Tensor]:
        """The projected update; the adversary itself descends its own loss."""
        utility, adverse = gradients["cross_entropy"], gradients["adversary"]
        combined = {}
        for part, gradient in utility.items():
            if part == "objective":
                combined[part] = adverse[part]
            else:
                combined[part] = projected(gradient, adverse[part], self.strength)
        return combined


@register("adversary-logits", "FairReprogram that sees the scores, as its authors ran it")
class FairReprogramOfScores(FairReprogram):
    """`FairReprogram` with the settings of every command that its authors publish for images: the
    adversary sees the scores too, and learns at 0.05.
    """

    strengths = (0.1, 0.2, 0.5, 1.0, 2.0)

    def __init__(self, strength: float = 0.5, criterion: str = "eo", seed: int = 0) -> None:
        super().__init__(strength, criterion, lr=0.05, seed=seed, with_logits=True)


def projected(utility: Tensor, adverse: Tensor, strength: float) -> Tensor:
    """g_u − ⟨g_u, û⟩ û − λ g_a of flat gradients `[P]`; nothing is projected off a zero g_a."""
    along = adverse / adverse.norm().clamp_min(torch.finfo(adverse.dtype).tiny)
    return utility - (utility @ along) * along - strength * adverse
