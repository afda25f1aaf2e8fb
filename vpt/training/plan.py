"""What happens at which update, as pure functions of seed and position: resuming needs nothing
else.
"""

from __future__ import annotations

import hashlib
import math

import numpy as np


def seed_for(*position: int) -> int:
    """A 63-bit seed for a place in a run (seed, epoch, update, process): the same there, unrelated
    elsewhere.
    """
    digest = hashlib.sha256(",".join(map(str, position)).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def batches(count: int, batch_size: int, seed: int, epoch: int) -> list[list[int]]:
    """The examples of each update of an epoch: a seeded permutation of `count`, cut; the last one
    may be smaller.
    """
    order = np.random.default_rng(seed_for(seed, epoch)).permutation(count).tolist()
    return [order[i : i + batch_size] for i in range(0, count, batch_size)]


def chunks(batch: list[int], process: int, processes: int, accumulate: int) -> list[list[int]]:
    """One process's micro-batches of an update: contiguous, nearly equal, some perhaps empty;
    together they are the batch.
    """
    cuts = np.array_split(np.array(batch), processes * accumulate)
    return [part.tolist() for part in cuts[process * accumulate : (process + 1) * accumulate]]


def schedule(update: int, total: int, warmup: float) -> float:
    """Factor on the learning rate: linear warm-up from above zero, then a cosine that reaches zero
    after the last update.
    """
    rising = math.ceil(warmup * total)
    if update < rising:
        return (update + 1) / (rising + 1)
    return 0.5 * (1 + math.cos(math.pi * (update - rising) / max(1, total - rising)))
