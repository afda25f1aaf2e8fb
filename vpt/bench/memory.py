"""How much memory a piece of work takes at its peak."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from pathlib import Path

import torch

STATM = Path("/proc/self/statm")


def peak_bytes(work: Callable[[], object], device: str = "cpu") -> int:
    """Bytes that `work()` takes at its peak beyond what is in use before: of the GPU's memory, or
    resident in this process.

    Use a fresh process for each piece of work: memory that was freed before is not given back. 0
    where the system does not tell.
    """
    gc.collect()
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        work()
        return torch.cuda.max_memory_allocated() - before
    if not STATM.exists():
        work()
        return 0
    before, peak, done = _resident(), 0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.is_set():
            peak = max(peak, _resident())
            done.wait(0.001)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        work()
    finally:
        done.set()
        watcher.join()
    return max(0, max(peak, _resident()) - before)


def _resident() -> int:
    import resource

    return int(STATM.read_text().split()[1]) * resource.getpagesize()
