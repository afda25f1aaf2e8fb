"""Real tokens of training examples, among which hard queries are chosen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from vpt.errors import PromptError
from vpt.runs.kept import Kept

ROWS = 4096  # of a bank


@dataclass
class Bank:
    """Real tokens of training inputs, among which hard queries are chosen.

    rows: that enter each block `[R,D]`. inputs: of which input each is `[R]`. places: where it
    stands among the places of that input `[R]`, row by row.
    """

    rows: list[Tensor]
    inputs: Tensor
    places: Tensor

    @classmethod
    def of(cls, kept: Kept, blocks: Sequence[int], extra: int, count: int) -> Bank:
        """Of what was kept of a pass (`keep(each=…)`). Raises `PromptError` for a bank smaller
        than the prompt.

        extra: tokens before those that have a place. count: queries of a block.
        """
        if kept.places is None:
            raise PromptError("Nothing was kept to choose hard queries from: keep(each=…).")
        real = kept.places >= extra
        valid = kept.memories[blocks[0]].valid
        if valid is not None:  # padding is nothing to look at
            real &= valid.gather(1, kept.places)
        inputs, columns = real.nonzero(as_tuple=True)
        if len(inputs) < count:
            raise PromptError(
                f"Found {len(inputs)} tokens to choose from for {count} queries; needed are more"
                " examples, or fewer queries."
            )
        rows = [kept.tokens[block][inputs, columns] for block in blocks]
        return cls(rows, inputs, kept.places[inputs, columns] - extra)
