"""The prompt forms: by class, as files name them, and by text ("deep:10", "border:8+deep:2")."""

from __future__ import annotations

import inspect
import re

from vpt.errors import PromptError
from vpt.errors.needs import did_you_mean
from vpt.prompts.base import Prompt
from vpt.sites import BackboneLike, Config, Registry

PROMPTS: Registry[Prompt] = Registry("prompt", PromptError)
register = PROMPTS.register


def build(name: str, config: Config) -> Prompt:
    """The prompt class called `name`, built from `config`. Raises `PromptError` for an unknown
    name or a bad config.
    """
    return PROMPTS.named(name).rebuild(config)


def parse_one(text: str, backbone: BackboneLike, seed: int = 0) -> Prompt:
    """ "deep:10" → `DeepTokens.like(backbone, count=10)`; "deep:10@5-7" → in these blocks only.
    Raises `PromptError`.
    """
    words, at, where = text.partition("@")
    name, _, number = words.partition(":")
    form = PROMPTS.forms.get(name)
    spans = [re.fullmatch(r"(\d+)(?:-(\d+))?", part) for part in where.split(",")]
    takes = inspect.signature(form.cls.like).parameters if form is not None else {}
    fits = not number or (number.isdecimal() and form is not None and form.word)
    placed = not at or (all(spans) and "blocks" in takes)
    if form is None or not fits or not placed:
        raise PromptError(
            f"Found prompt {text!r}; needed is one of {PROMPTS.usages()}, or several joined with"
            " +. Behind those that act inside blocks (but shallow), the blocks can follow:"
            f" deep:10@5-7, queries:4@6,9,11.{_meant(text)}"
        )
    given: Config = {form.word: int(number)} if number else {}
    if at:
        ends = [(int(span[1]), int(span[2] or span[1])) for span in spans if span]
        given["blocks"] = [block for first, last in ends for block in range(first, last + 1)]
    if "seed" in takes:
        given["seed"] = seed
    return form.cls.like(backbone, **given)


def _meant(text: str) -> str:
    """What somebody may have wanted who wrote "depe:10" or "deep=10"."""
    found = re.match(r"([a-z0-9]*[a-z])\W*(\d*)", text)
    if found is None:
        return ""
    name, number = found.groups()
    near = did_you_mean(name, PROMPTS.forms)
    return near.replace("?", f":{number}?") if number else near
