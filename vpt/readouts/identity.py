"""The model's own classes."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from vpt.errors import PromptError
from vpt.readouts.base import Readout
from vpt.readouts.registry import register
from vpt.sites import BackboneLike, Config


@register("identity", "the model's own classes, by name")
class Identity(Readout):
    """The model's own classes. Wanted classes are matched by name, or by an explicit index; never
    by their order.

    classes: names among the model's own, or None for all of them. index: for each wanted class, the
        model's logit.
    """

    reads = "logits"
    trainable = False

    def __init__(
        self, classes: Sequence[str] | None = None, index: Sequence[int] | None = None
    ) -> None:
        super().__init__(classes)
        if index is not None and classes is not None and len(index) != len(classes):
            raise PromptError(
                f"Found {len(index)} indices for {len(classes)} classes; needed is one index per"
                " class."
            )
        if index is not None and not len(index):
            raise PromptError(
                "Found an empty index; needed is the number of a logit for each class."
            )
        if index is not None and len(set(index)) < len(index):
            raise PromptError(
                f"Found index={list(index)}, which gives two classes one logit; needed are"
                " different numbers."
            )
        self._given = (self.classes, [int(i) for i in index] if index is not None else None)
        self.index = self._given[1]

    @classmethod
    def like(
        cls, backbone: BackboneLike, classes: Sequence[str], how: str = "", seed: int = 0
    ) -> Identity:
        """The classes of the data among the model's own: by name, or, where the model has none, by
        the number that they are called.
        """
        numbered = backbone.class_names is None and all(name.isdecimal() for name in classes)
        return cls(classes, [int(name) for name in classes] if numbered else None)

    def bind(self, backbone: BackboneLike) -> None:
        """Find each class among the model's own by name. Raises `PromptError` naming those that are
        not there.
        """
        if not backbone.classes:
            raise PromptError(
                "Identity reads the model's own classifier, and this model has none. Use"
                " vpt.Linear."
            )
        own = backbone.class_names
        (names, index), count = self._given, backbone.classes
        if index is None and names is not None:
            index = [_only_place(name, own or []) for name in _known(names, own)]
        if index is not None and not (min(index) >= 0 and max(index) < count):
            raise PromptError(f"Found index={index}; the model has logits 0 to {count - 1}.")
        self.index = index
        self.classes = (
            names
            if index is not None
            else (own if own is None or len(set(own)) == len(own) else None)
        )
        self.count = len(index) if index is not None else count

    def forward(self, out: Tensor) -> Tensor:
        """Logits `[B,K]` → `[B,C]`."""
        return out if self.index is None else out[:, self.index]

    def config(self) -> Config:
        """Names and index, as they were given."""
        return {"classes": self._given[0], "index": self._given[1]}


def _known(names: list[str], own: list[str] | None) -> list[str]:
    """`names`, all of which the model knows. Raises `PromptError`."""
    if own is None:
        raise PromptError(
            "This model does not name its classes; name them in its order, load_backbone(model,"
            " classes=[…]) (--classes), or say which logit is which: Identity(classes, index=[…])."
        )
    missing = [name for name in names if name not in own]
    if missing:
        raise PromptError(
            f"{len(missing)} of {len(names)} classes are not among the model's own:"
            f" {', '.join(missing[:5])}. The model's are"
            f" {', '.join(own[:5])}{', …' if len(own) > 5 else ''} ({len(own)} in all). Rename them"
            " in your data, pass index=[…], or train a new classifier: vpt.Linear (--readout"
            " linear)."
        )
    return names


def _only_place(name: str, own: list[str]) -> int:
    """Where the model has a class. Raises `PromptError` for a name that it has twice."""
    if own.count(name) > 1:
        raise PromptError(
            f"The model has {own.count(name)} classes called {name!r}; say which by number:"
            " Identity(classes, index=[…])."
        )
    return own.index(name)
