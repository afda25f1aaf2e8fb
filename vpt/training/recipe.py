"""How to train: the settings of a run, checked before it starts."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from numbers import Real

from vpt.data import AUGMENTS
from vpt.errors import TrainingError
from vpt.errors.needs import one_of, whole
from vpt.sites import Config

MOST = 1e6  # of a rate; beyond it fp32 overflows within a step
MOST_WHOLE = (1 << 32) - 1


@dataclass(frozen=True)
class Recipe:
    """How to train. Raises `TrainingError` for settings that are none.

    epochs: passes over the training examples.
    batch_size: examples per update over all processes and accumulation steps.
    lr: of the prompt, at its peak, in units of the size (RMS) of its numbers at the start where
        that is above 1; it is cut where training leaves its start by far.
    readout_lr: the readout learns at readout_lr · lr.
    weight_decay: AdamW's.
    warmup: share of the updates in which the rate rises; then it falls as a cosine, per update.
    augment: "none", "crop" or "flip-crop" (images).
    seed: of the order of the examples and of all that is drawn in training.
    precision: "no" (fp32), "bf16" or "fp16".
    accumulate: micro-batches per update.
    cache: of what enters the first prompted block, where that is not block 0: "auto" (kept as it
        is), "bf16" (half the memory, rounded) or "off".
    compile: the backend of torch.compile ("inductor"), or "" for none.
    """

    epochs: int = 15
    batch_size: int = 32
    lr: float = 2e-2
    readout_lr: float = 0.02
    weight_decay: float = 1e-4
    warmup: float = 0.1
    augment: str = "none"
    seed: int = 0
    precision: str = "no"
    accumulate: int = 1
    cache: str = "auto"
    compile: str = ""

    @property
    def kept(self) -> str:
        """`cache`, but "off" for a compiled model, which runs all its blocks."""
        return "off" if self.compile else self.cache

    def __post_init__(self) -> None:
        counts = {"epochs": self.epochs, "batch_size": self.batch_size}
        counts["accumulate"] = self.accumulate
        whole(TrainingError, least=1, most=MOST_WHOLE, numpy=True, **counts)
        whole(TrainingError, least=0, most=MOST_WHOLE, numpy=True, seed=self.seed)
        rates = (self.lr, self.readout_lr, self.weight_decay, self.warmup)
        numbers = all(isinstance(value, Real) and math.isfinite(value) for value in rates)
        if (
            not numbers
            or not 0 < self.lr <= MOST
            or not 0 <= self.readout_lr <= MOST
            or min(rates) < 0
            or self.warmup >= 1
        ):
            raise TrainingError(
                f"Found lr={self.lr}, readout_lr={self.readout_lr},"
                f" weight_decay={self.weight_decay}, warmup={self.warmup}; needed are 0 < lr ≤"
                f" {MOST:g}, 0 ≤ readout_lr ≤ {MOST:g}, a weight_decay of at least 0 and a warmup"
                " in [0, 1)."
            )
        one_of(TrainingError, AUGMENTS, augment=self.augment)
        if self.precision not in ("no", "bf16", "fp16"):
            raise TrainingError(
                f"Found precision={self.precision!r}; needed is 'no' (fp32), 'bf16' or 'fp16'."
            )
        if self.cache not in ("auto", "bf16", "off"):
            raise TrainingError(f"Found cache={self.cache!r}; needed is 'auto', 'bf16' or 'off'.")
        if self.compile and self.compile not in backends():
            raise TrainingError(
                f"Found compile={self.compile!r}; needed is '' or one of {', '.join(backends())}."
            )


def backends() -> list[str]:
    """What torch.compile can compile with."""
    import torch

    return ["aot_eager", "eager", *torch.compiler.list_backends()]


def chosen(recipe: Recipe | None, usual: Recipe, **settings: object) -> Recipe:
    """The caller's recipe, else the usual one, with the settings that were given (None: not given)
    put over it.

    Raises `TrainingError` for an unknown field or a bad value.
    """
    if recipe is not None and not isinstance(recipe, Recipe):
        raise TrainingError(
            f"Found {type(recipe).__name__} as recipe; needed is vpt.Recipe(lr=…, epochs=…)."
        )
    given = {name: value for name, value in settings.items() if value is not None}
    return updated(recipe or usual, **given)


def updated(recipe: Recipe, **settings: object) -> Recipe:
    """A recipe with some fields changed. Raises `TrainingError` for an unknown field or a bad
    value.
    """
    fields: Config = asdict(recipe)
    unknown = sorted(settings.keys() - fields.keys())
    if unknown:
        raise TrainingError(f"Found settings {', '.join(unknown)}; known are {', '.join(fields)}.")
    return Recipe(**(fields | settings))
