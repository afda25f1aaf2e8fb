"""The guard of a backbone: one thread at a time, the same thread again and again, and copies of their own."""

from __future__ import annotations

import copy
import pickle
import threading

from vpt.backbones.guard import Guard


def test_another_thread_waits_and_the_own_one_does_not() -> None:
    guard, order = Guard(), []

    def other() -> None:
        with guard:
            order.append("other")

    with guard, guard:
        thread = threading.Thread(target=other)
        thread.start()
        thread.join(0.05)
        order.append("own")
    thread.join()
    assert order == ["own", "other"]


def test_copies_have_their_own_lock() -> None:
    guard = Guard()
    with guard:
        for twin in (copy.deepcopy(guard), pickle.loads(pickle.dumps(guard))):
            assert twin._lock is not guard._lock
            thread = threading.Thread(target=twin.__enter__)
            thread.start()
            thread.join(1)
            assert not thread.is_alive()
