"""From a backbone's two outputs to the classes that are wanted. A readout declares which of the two it reads."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import Any, Literal

import torch
from torch import Tensor, nn

from vpt.errors import DataError, PromptError


class Readout(nn.Module):
    """Base of all readouts: `reads` is "features" `[B,D]` or "logits" `[B,K]`; forward gives `[B,C]`.

    classes: the C class names, or None while they are unknown. trainable: whether its parameters learn by gradient.
    learns_statistics: whether `fit` gives it passes of `update` over the training data.
    """

    reads: Literal["features", "logits"] = "features"
    trainable = True
    learns_statistics = False

    def __init__(self, classes: int | Sequence[str] | None) -> None:
        super().__init__()
        self.count, self.classes = _count_and_names(classes)

    def bind(self, backbone: Any) -> None:
        """Check against, and take what is needed from, the backbone it is joined to. Raises `PromptError`."""

    def update(self, out: Tensor, y: Tensor) -> None:
        """Learn from statistics of outputs `[B,D|K]` and labels `[B]`; readouts that learn by gradient do nothing."""

    def reset(self) -> None:
        """Forget what `update` learned."""

    def config(self) -> dict[str, Any]:
        """Plain values that rebuild an unfitted readout of the same shape."""
        return {"classes": self.classes if self.classes is not None else self.count}


def _count_and_names(classes: int | Sequence[str] | None) -> tuple[int | None, list[str] | None]:
    if classes is None:
        return None, None
    if isinstance(classes, Integral):
        if classes < 1:
            raise PromptError(f"Found classes={classes}; needed is a number of at least 1, or a list of names.")
        return int(classes), None
    names = [] if isinstance(classes, str) else [str(name) for name in classes]  # type: ignore[union-attr]
    if not names or len(set(names)) != len(names):
        raise PromptError(f"Found classes={classes!r}; needed is a list of one or more names, all different, or their number.")
    return len(names), names


class Identity(Readout):
    """The model's own classes. Wanted classes are matched by name, or by an explicit index; never by their order.

    classes: names among the model's own, or None for all of them. index: for each wanted class, the model's logit.
    """

    reads = "logits"
    trainable = False

    def __init__(self, classes: Sequence[str] | None = None, index: Sequence[int] | None = None) -> None:
        super().__init__(classes)
        if index is not None and classes is not None and len(index) != len(classes):
            raise PromptError(f"Found {len(index)} indices for {len(classes)} classes; needed is one index per class.")
        if index is not None and not len(index):
            raise PromptError("Found an empty index; needed is the number of a logit for each class.")
        self._given = (self.classes, [int(i) for i in index] if index is not None else None)
        self.index = self._given[1]

    def bind(self, backbone: Any) -> None:
        """Find each class among the model's own by name. Raises `PromptError` naming those that are not there."""
        if not backbone.classes:
            raise PromptError("Identity reads the model's own classifier, and this model has none. Use vpt.Linear.")
        own = backbone.class_names
        (names, index), count = self._given, backbone.classes
        if index is None and names is not None:
            index = [_only_place(name, own) for name in _known(names, own)]
        if index is not None and not (min(index) >= 0 and max(index) < count):
            raise PromptError(f"Found index={index}; the model has logits 0 to {count - 1}.")
        self.index = index
        self.classes = names if index is not None else (own if own is None or len(set(own)) == len(own) else None)
        self.count = len(index) if index is not None else count

    def forward(self, out: Tensor) -> Tensor:
        """Logits `[B,K]` → `[B,C]`."""
        return out if self.index is None else out[:, self.index]

    def config(self) -> dict[str, Any]:
        """Names and index, as they were given."""
        return {"classes": self._given[0], "index": self._given[1]}


def _known(names: list[str], own: list[str] | None) -> list[str]:
    """`names`, all of which the model knows. Raises `PromptError`."""
    if own is None:
        raise PromptError("This model does not name its classes; say which logit is which: Identity(classes, index=[…]).")
    missing = [name for name in names if name not in own]
    if missing:
        raise PromptError(
            f"{len(missing)} of {len(names)} classes are not among the model's own: {', '.join(missing[:5])}. The model's are "
            f"{', '.join(own[:5])}, … ({len(own)} in all). Rename them, pass index=[…], or use vpt.Linear."
        )
    return names


def _only_place(name: str, own: list[str]) -> int:
    """Where the model has a class. Raises `PromptError` for a name that it has twice."""
    if own.count(name) > 1:
        raise PromptError(
            f"The model has {own.count(name)} classes called {name!r}; say which by number: Identity(classes, index=[…])."
        )
    return own.index(name)


class _OnFeatures(Readout):
    """What readouts of features `[B,D]` share: the width D and its check."""

    def __init__(self, features: int, classes: int | Sequence[str]) -> None:
        super().__init__(classes)
        if self.count is None or features < 1:
            raise PromptError(
                f"Found features={features}, classes={classes}; needed are a width and the classes' number or names."
            )
        self.features = features
        self.size = (self.count, features)

    def bind(self, backbone: Any) -> None:
        """Raise `PromptError` if the backbone's features have another width."""
        if backbone.out_features != self.features:
            name = type(self).__name__
            raise PromptError(
                f"Found {name}({self.features}, …) for features of width {backbone.out_features}; use "
                f"vpt.{name}(backbone.out_features, classes)."
            )

    def config(self) -> dict[str, Any]:
        """Width and classes."""
        return {"features": self.features, **super().config()}


class Linear(_OnFeatures):
    """A new linear classifier on the features.

    features: D. classes: how many, or their names. Starts at zero, so that the first prediction favours no class.
    """

    def __init__(self, features: int, classes: int | Sequence[str]) -> None:
        super().__init__(features, classes)
        self.weight = nn.Parameter(torch.zeros(self.size))
        self.bias = nn.Parameter(torch.zeros(self.size[0]))

    def forward(self, out: Tensor) -> Tensor:
        """Features `[B,D]` → `[B,C]`."""
        return nn.functional.linear(out, self.weight, self.bias)


class NearestMean(_OnFeatures):
    """Scores a class by minus the squared distance to the mean of its features: −‖x − μ_c‖² (nearest class mean).

    Learns by `update` only. A class that was never seen scores −inf.
    """

    trainable = False
    learns_statistics = True
    sums: Tensor
    counts: Tensor

    def __init__(self, features: int, classes: int | Sequence[str]) -> None:
        super().__init__(features, classes)
        self.register_buffer("sums", torch.zeros(self.size))
        self.register_buffer("counts", torch.zeros(self.size[0]))

    def reset(self) -> None:
        """Forget all examples."""
        self.sums.zero_()
        self.counts.zero_()

    @torch.no_grad()
    def update(self, out: Tensor, y: Tensor) -> None:
        """Add features `[B,D]` of classes `[B]` to the running means. Raises `DataError` for a label out of range."""
        if len(y) and not (int(y.min()) >= 0 and int(y.max()) < len(self.counts)):
            raise DataError(f"Found labels from {int(y.min())} to {int(y.max())}; there are {len(self.counts)} classes.")
        self.sums.index_add_(0, y, out.detach().to(self.sums.dtype))
        self.counts.index_add_(0, y, torch.ones_like(y, dtype=self.counts.dtype))

    def forward(self, out: Tensor) -> Tensor:
        """Features `[B,D]` → `[B,C]`. Raises `PromptError` before any update."""
        if not bool((self.counts > 0).any()):
            raise PromptError("NearestMean has seen no examples. Call readout.update(features, labels), or vpt.fit.")
        means = self.sums / self.counts.clamp(min=1).unsqueeze(1)
        scores = -torch.cdist(out.float(), means, compute_mode="donot_use_mm_for_euclid_dist").square()
        return scores.masked_fill(self.counts == 0, float("-inf"))


READOUTS: dict[str, type[Readout]] = {cls.__name__: cls for cls in (Identity, Linear, NearestMean)}
