"""One forward at a time: what hooks share on a backbone belongs to the thread that runs it."""

from __future__ import annotations

import threading
from typing import Any


class Guard:
    """A lock that its own thread may take again, and that copies and pickles to a new one."""

    def __init__(self) -> None:
        self._lock = threading.RLock()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *error: object) -> None:
        self._lock.release()

    def __deepcopy__(self, memo: dict[int, Any]) -> Guard:
        return Guard()

    def __reduce__(self) -> tuple[type[Guard], tuple]:
        return Guard, ()
