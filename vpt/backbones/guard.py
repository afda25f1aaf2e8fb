"""One forward at a time: what hooks share on a backbone belongs to the thread that runs it."""

from __future__ import annotations

import threading
from typing import Any

import torch


class Guard:
    """A lock that its own thread may take again, that copies and pickles to a new one, and that torch.compile does not see."""

    def __init__(self) -> None:
        self._lock = threading.RLock()

    def __enter__(self) -> None:
        if not torch.compiler.is_compiling():
            self._lock.acquire()

    def __exit__(self, *error: object) -> None:
        if not torch.compiler.is_compiling():
            self._lock.release()

    def __deepcopy__(self, memo: dict[int, Any]) -> Guard:
        return Guard()

    def __reduce__(self) -> tuple[type[Guard], tuple]:
        return Guard, ()
