"""What every readout is: it declares which of the backbone's two outputs it reads, and how it
learns.
"""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import Literal

from torch import Tensor, nn

from vpt.errors import PromptError
from vpt.readouts.named import Named
from vpt.sites import BackboneLike, Config

Refresh = Literal["never", "once", "epoch", "reuse"]


class Readout(nn.Module):
    """Base of all readouts: `reads` is "features" `[B,D]` or "logits" `[B,K]`; forward gives
    `[B,C]`.

    classes: the C class names, or None while they are unknown. trainable: whether its parameters
        learn by gradient.
    refresh: when `fit` gives it the training data to learn statistics from by `update`, and then
        calls `settle`: "never", "once" (before training), "epoch" (a pass over the data then and
        after each epoch), or "reuse" (a pass before training, and then each update's own outputs,
        which cost nothing, settled after each epoch).
    """

    reads: Literal["features", "logits"] = "features"
    named = Named("cls")  # which features; `PromptedModel` gathers them
    trainable = True
    refresh: Refresh = "never"

    @property
    def task_names(self) -> list[str]:
        """Names of the tasks among which each sample's must be told; empty for readouts that ask
        nothing.
        """
        return []

    def __init__(self, classes: int | Sequence[str] | None) -> None:
        super().__init__()
        self.count, self.classes = _count_and_names(classes)

    @classmethod
    def like(
        cls, backbone: BackboneLike, classes: Sequence[str], how: str = "", seed: int = 0
    ) -> Readout:
        """A readout for a backbone and the classes of the data. how: what follows the colon in a
        text.
        """
        raise PromptError(f"{cls.__name__} cannot be made for a backbone from text.")

    def bind(self, backbone: BackboneLike) -> None:
        """Check against, and take what is needed from, the backbone it is joined to. Raises
        `PromptError`.
        """

    def update(self, out: Tensor, y: Tensor) -> None:
        """Learn from statistics of outputs `[B,D|K]` and labels `[B]`; readouts that learn by
        gradient do nothing.
        """

    def reset(self) -> None:
        """Forget what `update` learned."""

    def settle(self) -> None:
        """Put what `update` learned to use; for readouts that do not do so at once."""

    def statistics(self) -> list[Tensor]:
        """The buffers that `update` adds to, so that several processes can add up what they saw."""
        return []

    def config(self) -> Config:
        """Plain values that rebuild an unfitted readout of the same shape."""
        return {"classes": self.classes if self.classes is not None else self.count}


def _count_and_names(classes: int | Sequence[str] | None) -> tuple[int | None, list[str] | None]:
    if classes is None:
        return None, None
    if isinstance(classes, Integral):
        if classes < 1:
            raise PromptError(
                f"Found classes={classes}; needed is a number of at least 1, or a list of names."
            )
        return int(classes), None
    names = [] if isinstance(classes, str) else [str(name) for name in classes]  # type: ignore[union-attr]
    if not names or len(set(names)) != len(names):
        raise PromptError(
            f"Found classes={classes!r}; needed is a list of one or more names, all different, or"
            " their number."
        )
    return len(names), names
