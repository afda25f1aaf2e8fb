"""What the bare model makes of inputs, for prompts that are made from it; kept, so that data that
come again cost nothing.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

BUDGET = 64 << 20  # bytes: 20,000 samples of 768 features


class Queries:
    """Features `[D]` of the bare model by a key of the preprocessed input, as many as have a place.

    keep: off for inputs that never come again.
    """

    def __init__(self) -> None:
        self.kept: dict[bytes, Tensor] = {}
        self.bytes = 0
        self.keep = True

    def answer(self, keys: list[bytes], compute: Callable[[list[int]], Tensor]) -> Tensor:
        """Features `[B,D]`; `compute` is asked for the samples (by number) that are not there."""
        missing = [i for i, key in enumerate(keys) if key not in self.kept]
        found = {key: self.kept[key] for key in keys if key in self.kept}
        if missing:
            with torch.inference_mode(False):
                for i, row in zip(missing, compute(missing), strict=True):
                    found[keys[i]] = row.detach().clone()
                    self._keep(keys[i], found[keys[i]])
        return torch.stack([found[key] for key in keys])

    def _keep(self, key: bytes, row: Tensor) -> None:
        if self.keep and key not in self.kept and self.bytes + row.nbytes <= BUDGET:
            self.kept[key] = row
            self.bytes += row.nbytes

    def __getstate__(self) -> dict[str, object]:
        """A copy begins empty."""
        return {"kept": {}, "bytes": 0, "keep": self.keep}

    def clear(self) -> None:
        """Forget everything."""
        self.kept, self.bytes = {}, 0
