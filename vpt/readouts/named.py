"""What a readout reads, by name: the model's own features, sums of its blocks, and what queries
read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor

from vpt.errors import PromptError
from vpt.sites import BackboneLike, Observe

KNOWN = "cls, mean, blocks, blocks:N (the last N) and queries"


class Named:
    """A list of features, several joined with +.

    "cls": what the model's own classifier reads. "mean": the mean of the last block's tokens but
    the class token. "blocks": class token and that mean of every block, or, of a model without a
    class token, mean and standard deviation over valid positions; "blocks:4": of the last four.
    "queries": what the prompt's queries read. Raises `PromptError` for another name, or one twice.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.names = text.split("+") if isinstance(text, str) else [str(text)]
        plain = [name.partition(":")[0] for name in self.names]
        if len(set(plain)) < len(plain) or not all(
            re.fullmatch(r"cls|mean|queries|blocks(:[1-9]\d*)?", name) for name in self.names
        ):
            raise PromptError(
                f"Found features {text!r}; needed are different ones of {KNOWN}, joined with +."
            )
        self._sums: dict[int, Tensor] = {}

    @property
    def plain(self) -> bool:
        """Whether it is the model's own features alone."""
        return self.names == ["cls"]

    @property
    def queries(self) -> bool:
        """Whether queries are among them."""
        return "queries" in self.names

    def sites(self, backbone: BackboneLike) -> tuple[Observe, ...]:
        """Where the model is looked at. Raises `PromptError`, or `BackboneError` for a model
        without blocks.
        """
        return tuple(
            Observe(place, summary=partial(self._take, place)) for place in self.places(backbone)
        )

    def _take(self, place: int, sums: Tensor) -> None:
        self._sums[place] = sums

    def __getstate__(self) -> dict[str, object]:
        """A copy has seen nothing."""
        return self.__dict__ | {"_sums": {}}

    def places(self, backbone: BackboneLike) -> list[int]:
        """The blocks before which sums are taken; the depth stands for behind the last."""
        places = set()
        for name in self.names:
            if name == "mean" or name.startswith("blocks"):
                places |= set(self._of(name, backbone))
        return sorted(places)

    def _of(self, name: str, backbone: BackboneLike) -> range:
        backbone.reach.need_blocks()
        depth = backbone.depth
        count = 1 if name == "mean" else int(name.partition(":")[2] or depth)
        if count > depth:
            raise PromptError(
                f"Found features {name!r} for a model of {depth} blocks; needed are at most"
                f" {depth}."
            )
        return range(depth - count + 1, depth + 1)

    def width(self, backbone: BackboneLike, reads: int) -> int:
        """How many numbers they are. reads: of the prompt's queries. Raises `PromptError` where
        queries are named and there are none, or the other way round.
        """
        if self.queries != bool(reads):
            found = "nothing reads them" if reads else "the prompt has none"
            raise PromptError(
                f"The readout reads {self.text!r}. About queries: {found}. Needed are both, for"
                " example vpt.QueryTokens.like(backbone) and vpt.Linear(prompt.reads, classes,"
                ' of="queries").'
            )
        widths = {"cls": backbone.out_features, "queries": reads}
        return sum(
            widths[name] if name in widths else self._width(name, backbone) for name in self.names
        )

    def check(self, backbone: BackboneLike, reads: int, found: int | None) -> None:
        """Raise `PromptError` for a readout made for another number of features than they are.
        found: what it was made for; None: it reads none.
        """
        width = self.width(backbone, reads)
        if found not in (None, width):
            raise PromptError(
                f"Found a readout of {found} features; {self.text!r} are {width} here."
            )

    def _width(self, name: str, backbone: BackboneLike) -> int:
        each = 1 if name == "mean" else 2
        widths = backbone.widths
        return sum(each * [*widths, widths[-1]][place] for place in self._of(name, backbone))

    def gather(self, features: Tensor, read: Tensor | None, backbone: BackboneLike) -> Tensor:
        """All of them side by side `[B,F]`, of the forward that has just run.

        features: the model's own `[B,D]`. read: what queries read `[B,Q]`.
        """
        found = self.of(features, self._sums, read, backbone)
        self._sums.clear()
        return found

    def of(
        self,
        features: Tensor,
        sums: Mapping[int, Tensor],
        read: Tensor | None,
        backbone: BackboneLike,
    ) -> Tensor:
        """The same from what a forward gave. sums: by place, `[B,2,D]`."""
        parts = []
        for name in self.names:
            if name == "cls":
                parts.append(features)
            elif name == "queries":
                parts += [read] if read is not None else []
            elif name == "mean":
                parts.append(sums[backbone.depth][:, -1 if backbone.class_token else 0])
            else:
                parts += [sums[place].flatten(1) for place in self._of(name, backbone)]
        return parts[0] if len(parts) == 1 else torch.cat([part.float() for part in parts], dim=1)
