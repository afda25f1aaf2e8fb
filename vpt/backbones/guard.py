"""One forward at a time: what hooks share on a backbone belongs to the thread that runs it."""

from __future__ import annotations

import os
import threading
import weakref


class Guard:
    """A lock that its own thread may take again, and that copies and pickles to a new one.

    renewed: this is a forked process, and another thread may have been inside when it was made: it
        left things half done here.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self.renewed = False
        _GUARDS.add(self)

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *error: object) -> None:
        self._lock.release()

    def __deepcopy__(self, memo: dict[int, object]) -> Guard:
        return Guard()

    def __reduce__(self) -> tuple[type[Guard], tuple[()]]:
        return Guard, ()


_GUARDS: weakref.WeakSet[Guard] = weakref.WeakSet()


def _renew() -> None:
    """In a forked child only the thread that forked lives on: a lock that another one held would
    never be free again.
    """
    for guard in list(_GUARDS):
        guard._lock, guard.renewed = threading.RLock(), True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)
