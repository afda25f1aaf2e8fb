"""What every kind of exported file can do: be written, and be run again without vpt."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor
from torch.export import ExportedProgram

from vpt.errors import ExportError
from vpt.sites import Config, Registry

FACTS = "vpt"  # the name under which the facts stand in every file

Runs = Callable[[Mapping[str, Tensor]], dict[str, np.ndarray]]


@dataclass(frozen=True)
class Traced:
    """A graph that was traced. inputs: an example of each, by name. outputs: their names. facts:
    what travels with it, in plain values.
    """

    program: ExportedProgram
    inputs: Mapping[str, Tensor]
    outputs: Sequence[str]
    facts: Config


class Target(ABC):
    """A kind of file. ending: of its name. needs: packages beyond vpt's own, of the extra
    "export".
    """

    ending: str
    needs: tuple[str, ...] = ()

    @abstractmethod
    def write(self, traced: Traced, path: Path) -> None:
        """Write the file."""

    @abstractmethod
    def opened(self, path: Path) -> Runs:
        """The file as anybody would run it: inputs → scores by the name of the output."""


TARGETS: Registry[Target] = Registry("kind of file", ExportError)
register = TARGETS.register
