"""Readouts of features: a linear classifier, and nearest class means."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vpt.errors import DataError, PromptError
from vpt.readouts.base import Readout, Refresh
from vpt.readouts.named import Named
from vpt.readouts.registry import register
from vpt.sites import BackboneLike, Config


class _OnFeatures(Readout):
    """What readouts of features `[B,D]` share: the width D and its check, and which features they
    are (`of`, as for `Named`).
    """

    def __init__(self, features: int, classes: int | Sequence[str], of: str = "cls") -> None:
        super().__init__(classes)
        self.named = Named(of)
        if self.count is None or features < 1:
            raise PromptError(
                f"Found features={features}, classes={classes}; needed are a width and the classes'"
                " number or names."
            )
        self.features = features
        self.size = (self.count, features)

    @classmethod
    def like(
        cls, backbone: BackboneLike, classes: Sequence[str], how: str = "", seed: int = 0
    ) -> Readout:
        """For the width of a backbone's features."""
        return cls(backbone.out_features, classes)

    def bind(self, backbone: BackboneLike) -> None:
        """Raise `PromptError` if the backbone's features have another width."""
        if self.named.plain and backbone.out_features != self.features:
            name = type(self).__name__
            raise PromptError(
                f"Found {name}({self.features}, …) for features of width {backbone.out_features};"
                f" use vpt.{name}(backbone.out_features, classes)."
            )

    def config(self) -> Config:
        """Width and classes, and which features where they are not the model's own."""
        of = {} if self.named.plain else {"of": self.named.text}
        return {"features": self.features, **super().config(), **of}


@register("linear", "a new classifier on the features")
class Linear(_OnFeatures):
    """A new linear classifier on the features.

    features: D. classes: how many, or their names. Starts at zero, so that the first prediction
        favours no class. of: which features, as for `Named`. Other than the model's own, they are
        standardised, with `mean` and `scale` `[D]` of the training data before training, and scores
        are divided by √D.
    """

    mean: Tensor
    scale: Tensor
    sums: Tensor

    def __init__(self, features: int, classes: int | Sequence[str], of: str = "cls") -> None:
        super().__init__(features, classes, of)
        self.weight = nn.Parameter(torch.zeros(self.size))
        self.bias = nn.Parameter(torch.zeros(self.size[0]))
        self.standardised = not self.named.plain
        if self.standardised:
            self.refresh = "once"
            self.register_buffer("mean", torch.zeros(features))
            self.register_buffer("scale", torch.ones(features))
            # of 1, x and x²: float64, as squares of large numbers are subtracted
            sums = torch.zeros(3, features, dtype=torch.float64)
            self.register_buffer("sums", sums, persistent=False)

    def forward(self, out: Tensor) -> Tensor:
        """Features `[B,D]` → `[B,C]`."""
        if self.standardised:
            out = (out - self.mean) * (self.scale * self.features**-0.5)
        return nn.functional.linear(out, self.weight, self.bias)

    @torch.no_grad()
    def multiply(self, slope: float) -> None:
        """Multiply all scores, now and later."""
        self.weight.mul_(slope)
        self.bias.mul_(slope)

    @torch.no_grad()
    def update(self, out: Tensor, y: Tensor) -> None:
        """Add features `[B,D]` to the statistics by which they are standardised."""
        if self.standardised:
            x = out.double()
            self.sums += torch.stack([torch.ones_like(x), x, x.square()]).sum(1)

    def reset(self) -> None:
        """Forget what `update` saw."""
        if self.standardised:
            self.sums.zero_()

    def statistics(self) -> list[Tensor]:
        """What `update` adds to."""
        return [self.sums] if self.standardised else []

    @torch.no_grad()
    def settle(self) -> None:
        """Standardise by what `update` saw. Raises `DataError` for a single example, which has no
        spread.
        """
        if not self.standardised:
            return
        count, total, squares = self.sums
        if int(count[0]) < 2:
            raise DataError(
                f"Found {int(count[0])} example to standardise features by; needed are 2 or more."
            )
        mean = total / count
        self.mean.copy_(mean)
        self.scale.copy_(scale_of(mean, squares / count))


def scale_of(mean: Tensor, squares: Tensor) -> Tensor:
    """1/std from the means of x and of x², in float64; 0 for a feature that never changes, which
    says nothing, now or later.
    """
    variance = (squares - mean.square()).clamp(min=0)
    still = variance <= 1e-12 * mean.square().clamp(min=1e-12)
    return torch.where(still, 0.0, variance.clamp(min=1e-24).rsqrt())


@register("", "the nearest class mean of the features")
class NearestMean(_OnFeatures):
    """Scores a class by minus the squared distance to the mean of its features: −‖x − μ_c‖²
    (nearest class mean).

    Learns by `update` only. A class that was never seen scores −inf.
    """

    trainable = False
    refresh: Refresh = "epoch"
    sums: Tensor
    counts: Tensor

    def __init__(self, features: int, classes: int | Sequence[str], of: str = "cls") -> None:
        super().__init__(features, classes, of)
        self.register_buffer("sums", torch.zeros(self.size))
        self.register_buffer("counts", torch.zeros(self.size[0]))

    def reset(self) -> None:
        """Forget all examples."""
        self.sums.zero_()
        self.counts.zero_()

    @torch.no_grad()
    def update(self, out: Tensor, y: Tensor) -> None:
        """Add features `[B,D]` of classes `[B]` to the running means. Raises `DataError` for a
        label out of range.
        """
        if len(y) and not (int(y.min()) >= 0 and int(y.max()) < len(self.counts)):
            raise DataError(
                f"Found labels from {int(y.min())} to {int(y.max())}; there are {len(self.counts)}"
                " classes."
            )
        self.sums.index_add_(0, y, out.detach().to(self.sums.dtype))
        self.counts.index_add_(0, y, torch.ones_like(y, dtype=self.counts.dtype))

    def forward(self, out: Tensor) -> Tensor:
        """Features `[B,D]` → `[B,C]`. Raises `PromptError` before any update."""
        if not bool((self.counts > 0).any()):
            raise PromptError(
                "NearestMean has seen no examples. Call readout.update(features, labels), or"
                " vpt.fit."
            )
        means = self.sums / self.counts.clamp(min=1).unsqueeze(1)
        scores = -torch.cdist(
            out.float(), means, compute_mode="donot_use_mm_for_euclid_dist"
        ).square()
        return scores.masked_fill(self.counts == 0, float("-inf"))
