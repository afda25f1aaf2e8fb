"""The guard of a backbone: one thread at a time, the same thread again and again, and copies of
their own.
"""

from __future__ import annotations

import copy
import os
import pickle
import threading
import time

import pytest
import torch
from families import open_tiny

import vpt
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


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no processes of this kind here")
def test_a_fork_with_a_busy_thread_does_not_hang_its_child() -> None:
    """The child had the lock as held, by a thread that it does not have."""
    backbone = open_tiny("timm Swin")
    model = vpt.PromptedModel(backbone, vpt.DeepTokens.like(backbone, 2), vpt.Identity()).eval()
    x, inside, done = backbone.inputs.example(1), threading.Event(), threading.Event()
    with torch.no_grad():
        needed = model(x)
    attention = backbone.blocks[1].attention

    def slow(*args: object) -> None:
        inside.set()
        done.wait(20)

    # in the midst of an attention, others' keys and values at hand
    handle = attention.qkv.register_forward_hook(slow)
    thread = threading.Thread(target=lambda: model(x))
    thread.start()
    assert inside.wait(20)
    child = os.fork()
    if child == 0:
        try:
            done.set()
            handle.remove()
            with torch.no_grad():
                os._exit(0 if torch.allclose(model(x), needed, atol=1e-6) else 3)
        finally:
            os._exit(4)
    done.set()
    thread.join()
    status, end = None, time.monotonic() + 20
    while status is None and time.monotonic() < end:
        found, code = os.waitpid(child, os.WNOHANG)
        status = os.waitstatus_to_exitcode(code) if found else None
        time.sleep(0.02)
    if status is None:
        os.kill(child, 9)
        os.waitpid(child, 0)
    assert status == 0
