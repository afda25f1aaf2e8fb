"""The prompt forms. A new form is a file here and a line in `PROMPTS`."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from vpt.errors import PromptError
from vpt.prompts.base import Prompt, Stack
from vpt.prompts.border import Border
from vpt.prompts.coda import CODAPrompt
from vpt.prompts.dual import DualPrompt
from vpt.prompts.full import Full
from vpt.prompts.l2p import L2P
from vpt.prompts.multi_task import MultiTask
from vpt.prompts.patch import Patch
from vpt.prompts.pixels import PixelPrompt
from vpt.prompts.prefix import Prefix
from vpt.prompts.queried import Queried
from vpt.prompts.sample_mask import SampleMask
from vpt.prompts.tokens import DeepTokens, ShallowTokens
from vpt.sites import BackboneLike, Config

# the short name on the command line → (the class, what the number after the colon means, if there
# is one)
PROMPTS: dict[str, tuple[type[Prompt], str]] = {
    "shallow": (ShallowTokens, "count"),
    "deep": (DeepTokens, "count"),
    "prefix": (Prefix, "count"),
    "border": (Border, "width"),
    "patch": (Patch, "size"),
    "full": (Full, ""),
    "smm": (SampleMask, "pools"),
    "l2p": (L2P, "pool"),
    "dual": (DualPrompt, "length"),
    "coda": (CODAPrompt, "components"),
}

WITH_BLOCKS = (DeepTokens, Prefix, Queried)

__all__ = [
    "L2P",
    "PROMPTS",
    "Border",
    "CODAPrompt",
    "DeepTokens",
    "DualPrompt",
    "Full",
    "MultiTask",
    "Patch",
    "PixelPrompt",
    "Prefix",
    "Prompt",
    "Queried",
    "SampleMask",
    "ShallowTokens",
    "Stack",
    "build",
    "parse",
]


def build(name: str, config: Config) -> Prompt:
    """The prompt class called `name`, built from `config`. Raises `PromptError` for an unknown name
    or a bad config.
    """
    classes: dict[str, Callable[..., Prompt]] = {cls.__name__: cls for cls, _ in PROMPTS.values()}
    if name == "Stack":
        return Stack([build(part["name"], part["config"]) for part in config["prompts"]])
    if name == "MultiTask":
        return MultiTask(**config)
    if name not in classes:
        raise PromptError(
            f"Found a prompt called {name!r}; known are {', '.join(classes)} and Stack."
        )
    return classes[name](**config)


def parse(text: str, backbone: BackboneLike, **options: Any) -> Prompt:
    """ "deep:10" → `DeepTokens.like(backbone, count=10)`; "deep:10@9-11" → in these blocks only;
    "border:8+deep:2" → a `Stack` of both. Raises `PromptError`.
    """
    prompts = [_parse_one(part.strip(), backbone, options) for part in text.split("+")]
    return prompts[0] if len(prompts) == 1 else Stack(prompts)


def _parse_one(text: str, backbone: BackboneLike, options: Config) -> Prompt:
    form, at, where = text.partition("@")
    name, _, number = form.partition(":")
    cls, word = PROMPTS.get(name, (Prompt, ""))
    span = re.fullmatch(r"(\d+)(?:-(\d+))?", where)
    if (
        cls is Prompt
        or (number and not (number.isdecimal() and word))
        or (at and not (span and issubclass(cls, WITH_BLOCKS)))
    ):
        forms = ", ".join(
            f"{key}:{word.upper()}" if word else key for key, (_, word) in PROMPTS.items()
        )
        raise PromptError(
            f"Found prompt {text!r}; needed is one of {forms}, or several joined with +. Behind"
            " those that act inside blocks (but shallow), the blocks can follow: deep:10@9-11."
        )
    given: Config = {word: int(number)} if number else {}
    if span:
        given["blocks"] = list(range(int(span[1]), int(span[2] or span[1]) + 1))
    if issubclass(cls, (PixelPrompt, Queried)):  # they have no init to choose
        kept = () if issubclass(cls, PixelPrompt) else ("seed",)
        options = {
            key: value
            for key, value in options.items()
            if key in kept or key not in ("init", "examples", "seed", "dropout")
        }
    return cls.like(backbone, **given, **options)  # type: ignore[attr-defined]
