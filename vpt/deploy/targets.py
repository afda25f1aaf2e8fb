"""What every kind of exported file can do: be written, and be run again without vpt."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from torch import Tensor

from vpt.deploy.graph import Graph
from vpt.errors import ExportError
from vpt.sites import Registry

FACTS = "vpt"  # the name under which the facts stand in every file

Runs = Callable[[Mapping[str, Tensor]], dict[str, np.ndarray]]


class Target(ABC):
    """A kind of file. ending: of its name. needs: packages beyond vpt's own, of the extra
    "export".
    """

    ending: str
    needs: tuple[str, ...] = ()

    @abstractmethod
    def write(self, graph: Graph, path: Path) -> None:
        """Write the file."""

    @abstractmethod
    def opened(self, path: Path, graph: Graph) -> Runs:
        """The file as anybody would run it: inputs → scores by the name of the output."""


TARGETS: Registry[Target] = Registry("kind of file", ExportError)
register = TARGETS.register
