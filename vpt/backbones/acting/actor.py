"""What all that acts on a model answers to: hooks it installs, and the beginning and end of a
forward.
"""

from __future__ import annotations

from typing import Protocol

from torch.utils.hooks import RemovableHandle

from vpt.backbones.finding.reach import Reach


class Actor(Protocol):
    """One thing at work on a block."""

    def install(self) -> list[RemovableHandle]:
        """Hook the model."""

    def begin(self, narrow: bool) -> None:
        """A forward begins. narrow: whether the last block may leave out what nobody reads."""

    @property
    def silent(self) -> bool:
        """Whether it should have acted in this forward, and did not."""

    def silence(self, reach: Reach) -> str:
        """What is said then."""

    def end(self) -> None:
        """A forward is over, or failed: let go of everything that was its own."""


def reached_nothing(what: str, reach: Reach) -> str:
    """The sentence for hooks that were never called."""
    return (
        f"{what} of {reach.model} reached nothing: the blocks were not called (compiled, or"
        " skipped)."
    )
