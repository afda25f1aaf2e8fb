"""The readouts: by class, as files name them, and by text ("linear", "map:bayes")."""

from __future__ import annotations

from collections.abc import Sequence

from vpt.errors import PromptError, TrainingError
from vpt.readouts.base import Readout
from vpt.sites import BackboneLike, Config, Registry

READOUTS: Registry[Readout] = Registry("readout", PromptError)
register = READOUTS.register


def build(name: str, config: Config) -> Readout:
    """The readout class called `name`, built from `config`. Raises `PromptError` for an unknown
    name or a bad config.
    """
    return READOUTS.named(name)(**config)


def parse(text: str, backbone: BackboneLike, classes: Sequence[str], seed: int = 0) -> Readout:
    """The readout that a text means, for a backbone and the classes of the data. Raises
    `TrainingError` for none, and `PromptError`.
    """
    name, _, how = text.partition(":")
    form = READOUTS.forms.get(name)
    if form is None or (how and not form.word):
        raise TrainingError(
            f"Found readout={text!r}; needed is one of {READOUTS.usages()}, or a readout."
        )
    return form.cls.like(backbone, classes, **({"how": how} if how else {}), seed=seed)
