"""Where passes may come from besides the model: what has seen the same inputs before."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from vpt.backbones import Backbone
from vpt.data import Examples
from vpt.data.files import Files
from vpt.prompts import Prompt

if TYPE_CHECKING:
    from vpt.runs.kept import Kept


class Begun(Protocol):
    """How a prompt begins among some examples."""

    def load(self) -> bool:
        """Let the prompt begin as it did before; whether that is known."""

    def keep(self) -> None:
        """Remember how it begins."""


class Passes(Protocol):
    """What has the most of what a model makes of examples already."""

    def missing(self, examples: Examples) -> int:
        """How many inputs the model would have to see."""

    def knows(self, files: Files, index: int) -> bool:
        """Whether a file was read before, and found to be sound."""

    def begun(self, prompt: Prompt, examples: Examples, seed: int) -> Begun:
        """How a prompt begins among these examples, with this seed."""

    def kept(
        self,
        examples: Examples,
        blocks: Sequence[int],
        prompt: Prompt | None,
        logits: bool,
        budget: int,
        progress: bool,
        what: str,
    ) -> Kept | None:
        """As `vpt.runs.kept.keep`, but for drawn tokens; None where it is of no use for this."""


# of backbones that have such (`vpt.runs.stored`)
SOURCES: weakref.WeakKeyDictionary[Backbone, Passes] = weakref.WeakKeyDictionary()
