"""Ridge regression on random features: statistics that only add up, so that no order of classes
makes a difference.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from vpt.errors import PromptError
from vpt.readouts.base import Refresh
from vpt.readouts.features import _OnFeatures
from vpt.readouts.registry import register
from vpt.sites import Config

STRENGTHS = tuple(10.0**e for e in range(-2, 7))  # λ to choose among


@register("", "ridge regression on random features of them (RanPAC)")
class RandomRidge(_OnFeatures):
    """Scores h(x)ᵀ (G + λI)⁻¹ C with h(x) = relu(xW), W random and fixed, G = Σ h hᵀ and C = Σ h yᵀ
    (RanPAC, McDonnell et al., NeurIPS 2023, equations 6 and 7).

    Learns by `update` and `settle` only. projections: M, the width of h. strength: λ. seed: of W.
    of: which features, as for `Named`. A class that was never seen scores −inf.
    """

    trainable = False
    refresh: Refresh = "epoch"
    gram: Tensor
    sums: Tensor
    counts: Tensor
    solution: Tensor

    def __init__(
        self,
        features: int,
        classes: int | Sequence[str],
        projections: int = 1000,
        strength: float = 100.0,
        seed: int = 0,
        of: str = "cls",
    ) -> None:
        super().__init__(features, classes, of)
        if projections < 1 or strength <= 0:
            raise PromptError(
                f"Found projections={projections}, strength={strength}; needed are at least 1, and"
                " more than 0."
            )
        self.projections = projections
        self.strength = strength
        self.seed = seed
        count = self.size[0]
        self.register_buffer("gram", torch.zeros(projections, projections))
        self.register_buffer("sums", torch.zeros(projections, count))
        self.register_buffer("counts", torch.zeros(count))
        self.register_buffer("solution", torch.zeros(projections, count))

    def lifted(self, out: Tensor) -> Tensor:
        """Features `[B,D]` → relu of random projections `[B,M]`, of length one per feature."""
        generator = torch.Generator().manual_seed(self.seed)
        weight = (
            torch.randn(self.features, self.projections, generator=generator) / self.features**0.5
        )
        with torch.autocast(out.device.type, enabled=False):
            return F.relu(out.float() @ weight.to(out.device))

    def reset(self) -> None:
        """Forget all examples."""
        for buffer in (self.gram, self.sums, self.counts, self.solution):
            buffer.zero_()

    @torch.no_grad()
    def update(self, out: Tensor, y: Tensor) -> None:
        """Add features `[B,D]` of classes `[B]`."""
        lifted = self.lifted(out)
        one_hot = F.one_hot(y, self.size[0]).to(lifted)
        self.gram += lifted.T @ lifted
        self.sums += lifted.T @ one_hot
        self.counts += one_hot.sum(0)

    @torch.no_grad()
    def settle(self) -> None:
        """Solve for the weights."""
        eye = torch.eye(self.projections, device=self.gram.device, dtype=torch.float64)
        self.solution.copy_(
            torch.linalg.solve(self.gram.double() + self.strength * eye, self.sums.double())
        )

    @torch.no_grad()
    def choose_strength(self, out: Tensor, y: Tensor) -> None:
        """Take the λ of least squared error on held-out features `[n,D]` of classes `[n]`, over the
        classes seen so far; then settle.
        """
        needed, seen = F.one_hot(y, self.size[0]).to(self.gram), self.counts > 0

        def error(strength: float) -> float:
            self.strength = strength
            self.settle()
            return float((self(out)[:, seen] - needed[:, seen]).square().mean())

        self.strength = min(STRENGTHS, key=error)
        self.settle()

    def forward(self, out: Tensor) -> Tensor:
        """Features `[B,D]` → `[B,C]`. Raises `PromptError` before any update."""
        if not bool((self.counts > 0).any()):
            raise PromptError(
                "RandomRidge has seen no examples. Call readout.update(features, labels) and"
                " settle(), or vpt.fit."
            )
        with torch.autocast(out.device.type, enabled=False):
            return (self.lifted(out) @ self.solution).masked_fill(self.counts == 0, float("-inf"))

    def config(self) -> Config:
        """Width, classes, and what the random features are made of."""
        return {
            **super().config(),
            "projections": self.projections,
            "strength": self.strength,
            "seed": self.seed,
        }
