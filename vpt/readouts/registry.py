"""The readouts: by class, as files name them, and by text ("linear", "map:bayes")."""

from __future__ import annotations

import re
from collections.abc import Sequence

from vpt.errors import PromptError, TrainingError
from vpt.errors.needs import did_you_mean
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
            f"{_meant(text)}"
        )
    return form.cls.like(backbone, classes, **({"how": how} if how else {}), seed=seed)


def _meant(text: str) -> str:
    """What somebody may have wanted who wrote "liner", or "bayes" without its "map:"."""
    for name, form in READOUTS.forms.items():
        if form.word and text in re.findall(r"[a-z+]+", READOUTS.about[form.cls.__name__]):
            return f" Did you mean {name}:{text}?"
    return did_you_mean(text, READOUTS.forms)
