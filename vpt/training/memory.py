"""Keys and values of many inputs, kept, and what queries read of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from vpt.sites import Attended


@dataclass
class Memory:
    """What a block's attention sees of n inputs: keys and values `[n,W,heads,N,d]` of W windows (1
    where it cuts none), and which are valid `[n,N]`. project, scale: as for `Attended`. device: of
    the model, where queries are projected and all is computed.
    """

    keys: Tensor
    values: Tensor
    valid: Tensor | None
    project: Callable[[Tensor], Tensor]
    scale: float | None
    device: torch.device
    _places: dict[str, Tensor] = field(default_factory=dict, repr=False)

    @classmethod
    def empty(cls, seen: Attended, count: int, batch: int, half: bool) -> Memory:
        """Place for `count` inputs like those of a batch. half: in fp16."""
        shape = (count, len(seen.keys) // batch, *seen.keys.shape[1:])
        dtype = torch.float16 if half else seen.keys.dtype
        valid = None
        if seen.valid is not None:
            valid = torch.ones(count, seen.keys.shape[2], dtype=torch.bool)
        keys, values = (torch.empty(shape, dtype=dtype) for _ in range(2))
        return cls(keys, values, valid, seen.project, seen.scale, seen.keys.device)

    def write(self, start: int, seen: Attended, batch: int) -> None:
        """Keep a batch from input `start` on."""
        here = slice(start, start + batch)
        most = torch.finfo(self.keys.dtype).max
        for own, new in ((self.keys, seen.keys), (self.values, seen.values)):
            own[here] = new.detach().clamp(-most, most).cpu().view(batch, -1, *new.shape[1:])
        if self.valid is not None and seen.valid is not None:
            self.valid[here] = seen.valid.flatten(0, -2).expand(batch, -1).cpu()

    def take(self, rows: Tensor) -> Memory:
        """Of these inputs alone."""
        valid = self.valid[rows] if self.valid is not None else None
        keys, values = self.keys[rows], self.values[rows]
        return replace(self, keys=keys, values=values, valid=valid, _places={})

    def halved(self) -> Memory:
        """The same in fp16, what is too large for it cut off."""
        most = torch.finfo(torch.float16).max
        keys, values = (part.clamp(-most, most).half() for part in (self.keys, self.values))
        return replace(self, keys=keys, values=values, _places={})

    def joined(self, other: Memory) -> Memory:
        """Of these inputs, and then those of another; in fp16, if one of them is."""
        parts = (self, other)
        if torch.float16 in (self.keys.dtype, other.keys.dtype):
            parts = (self.halved(), other.halved())
        keys = torch.cat([part.keys for part in parts])
        values = torch.cat([part.values for part in parts])
        valid = None
        if self.valid is not None and other.valid is not None:
            valid = torch.cat([self.valid, other.valid])
        return replace(self, keys=keys, values=values, valid=valid, _places={})

    def _some(self, name: str, index: Tensor) -> Tensor:
        """Keys or values of some inputs, in fp32, in a place that the next call takes again: fresh
        ones for each step cost as much as the computing.
        """
        part: Tensor = getattr(self, name)
        if self.device.type != "cpu":
            return part[index].to(self.device).float()
        if len(self._places.get(name, ())) < len(index):
            self._places[name] = torch.empty(len(index), *part.shape[1:])
        place = self._places[name][: len(index)]
        for row, number in zip(place, index.tolist(), strict=True):
            row.copy_(part[number])
        return place

    def read(self, queries: Tensor, index: Tensor) -> Tensor:
        """What queries `[E,M,D]` of E members read of some inputs: `[b,E,M·heads·d]`. A backward
        pass through it must come before the next reading.
        """
        members, count, _ = queries.shape
        out = self.attend(self.projected(queries.flatten(0, 1)), index)
        return out.unflatten(1, (members, count)).flatten(2)

    def projected(self, rows: Tensor) -> Tensor:
        """What attention makes of rows `[R,D]`: `[heads,R,d]`."""
        return self.project(rows[None])[0].float()

    def attend(self, rows: Tensor, index: Tensor) -> Tensor:
        """What projected rows `[heads,R,d]` read of some inputs: `[b,R,heads·d]`."""
        shares = self._shares(rows, index)
        out = (shares @ self._some("values", index)).mean(1)
        return out.transpose(1, 2).flatten(2)

    def looks(self, queries: Tensor, index: Tensor) -> Tensor:
        """How much queries `[M,D]` look at each token of some inputs: `[b,heads,M,N]`; where a
        block cuts windows, of each window in turn.
        """
        shares = self._shares(self.projected(queries.to(self.device)), index)
        return (shares.permute(0, 2, 3, 1, 4).flatten(3) / shares.shape[1]).cpu()

    def _shares(self, rows: Tensor, index: Tensor) -> Tensor:
        """How much projected rows `[heads,R,d]` look at each token `[b,W,heads,R,N]`."""
        keys = self._some("keys", index)
        scale = self.scale if self.scale is not None else rows.shape[-1] ** -0.5
        scores = (rows * scale) @ keys.mT  # [b, W, heads, R, N]
        if self.valid is not None:
            shut = ~self.valid[index][:, None, None, None].to(self.device)
            scores = scores.masked_fill(shut, float("-inf"))
        return torch.softmax(scores, dim=-1)


def read_all(memories: Sequence[Memory], queries: Sequence[Tensor], index: Tensor) -> Tensor:
    """What queries `[E,M,D]` read of some inputs, all blocks side by side: `[b,E,F]`."""
    parts = [memory.read(rows, index) for memory, rows in zip(memories, queries, strict=True)]
    return torch.cat(parts, dim=2)
