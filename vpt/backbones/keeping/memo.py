"""What a frozen model makes of an input is a constant of it: computed once, and kept by a hash of
the preprocessed input.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import torch
from torch import Tensor


class Memo:
    """One tensor per input, as many as have a place.

    budget: bytes that may be kept; what comes after is computed anew each time. half: keep bf16
        instead, half the size, rounded. keep: off for inputs that never come again. hits, misses:
        inputs so far. full: something had no place.
    """

    def __init__(self, budget: int, half: bool = False) -> None:
        self.budget = budget
        self.half = half
        self.keep = True
        self.kept: dict[bytes, Tensor] = {}
        self.bytes = 0
        self.hits = 0
        self.misses = 0
        self.full = False

    def recall(self, keys: list[bytes], compute: Callable[[list[int]], Tensor]) -> Tensor:
        """`[B,…]` for B inputs; `compute` is asked for those (by number) that are not there."""
        missing = [i for i, key in enumerate(keys) if key not in self.kept]
        self.hits += len(keys) - len(missing)
        self.misses += len(missing)
        fresh: dict[bytes, Tensor] = {}
        if missing:
            with torch.inference_mode(False):
                for i, row in zip(missing, compute(missing), strict=True):
                    fresh[keys[i]] = self._keep(keys[i], row.detach())
        return torch.stack([self.kept[key] if key in self.kept else fresh[key] for key in keys])

    def _keep(self, key: bytes, row: Tensor) -> Tensor:
        """The row as it is kept, whether or not it still has a place."""
        row = row.to(torch.bfloat16) if self.half else row
        if self.bytes + row.nbytes > self.budget:
            self.full = True
        elif self.keep and key not in self.kept:
            self.kept[key] = row.clone()
            self.bytes += row.nbytes
        return row

    def clear(self) -> None:
        """Forget everything."""
        self.kept = {}
        self.bytes = 0
        self.full = False

    def start_over(self) -> None:
        """Forget everything, and how often it was asked."""
        self.clear()
        self.hits = 0
        self.misses = 0

    def __getstate__(self) -> dict[str, object]:
        """A copy begins empty."""
        return self.__dict__ | {"kept": {}, "bytes": 0, "full": False}


def input_keys(dtype: torch.dtype, x: Tensor, lengths: Tensor | None) -> list[bytes]:
    """One hash per sample of preprocessed input `[B,…]`, of its bytes and of what else decides what
    a frozen model makes of it: dtypes, autocast, and the kind of device.
    """
    device = x.device.type
    autocast = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
    facts = repr((dtype, autocast, device, x.dtype, tuple(x.shape[1:])))
    if not len(x):
        return []
    rows = x.detach().contiguous().cpu().flatten(1).view(torch.uint8).numpy()
    ends = ["None"] * len(x) if lengths is None else [str(end) for end in lengths.tolist()]
    return [
        hashlib.sha256(f"{facts},{end},".encode() + row.tobytes()).digest()
        for row, end in zip(rows, ends, strict=True)
    ]
