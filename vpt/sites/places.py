"""Places where a prompt acts.

A prompt *says* where it acts by returning sites; a backbone *knows how* to reach such a place on
the model it holds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # or the command line would wait for torch
    from torch import Tensor


@dataclass(frozen=True)
class Pixels:
    """Acts on the model's raw input, before mean and standard deviation.

    apply: (x, lengths) → (x, lengths) of the same shapes. Images `[B,C,H,W]` in [0,1] with lengths
        None; spectrograms `[B,frames,bins]` in the front end's own units with lengths `[B]`, the
        number of valid frames of each clip.
    """

    apply: Callable[[Tensor, Tensor | None], tuple[Tensor, Tensor | None]]


@dataclass(frozen=True)
class Rows:
    """Learned rows for one batch, where samples may have different ones.

    rows: `[T,P,D]` of T prompts, as many as the longest has. index: which of them each sample has
        `[B]`. bias: added to the scores of attention, `[B,1,1,P]`: 0, or −inf for what is only
        padding; None where all are equally long.
    """

    rows: Tensor
    index: Tensor
    bias: Tensor | None = None


@dataclass(frozen=True)
class Tokens:
    """Tokens put in front of the sequence before block `first` and cut off again after block `last`
    (both included).

    count: None where it differs from batch to batch.
    make: the block's input `[B,N,D]` → tokens `[B,count,D]`. VPT-shallow is the span (0, L-1);
        VPT-deep is one span (i, i) for every block i (Jia et al., ECCV 2022, equations 4 to 6).
    mixed: whether samples of a batch may have different prompts; `make` then gives `Rows`.
    """

    first: int
    last: int
    count: int | None
    make: Callable[[Tensor], Tensor | Rows]
    mixed: bool = False


@dataclass(frozen=True)
class KeyValues:
    """Keys and values put beside a block's own inside its scaled dot-product attention (prefix
    tuning).

    make: the block's own (keys `[B,heads,N,d]`, values `[B,heads,N,d]`) → (keys
        `[B|1,heads,count,d]`, values of that shape, bias `[B|1,1,1,count]` added to the attention
        scores or None). It may give fewer or more than `count`.
    count: None where it differs from batch to batch.
    """

    block: int
    count: int | None
    make: Callable[[Tensor, Tensor], tuple[Tensor, Tensor, Tensor | None]]


@dataclass(frozen=True)
class Attended:
    """What a block's attention sees of a batch.

    keys, values: of its own tokens `[B,heads,N,d]`; where it cuts windows `[B·windows,heads,n,d]`.
    valid: which of them are no padding `[B|1,1,1,N]`; None: all.
    project: rows `[1|B,R,D]` that would enter the block → their queries `[1|B,heads,R,d]`, which
        SDPA takes. scale: by which it multiplies scores; None: 1/√d.
    """

    keys: Tensor
    values: Tensor
    valid: Tensor | None
    project: Callable[[Tensor], Tensor]
    scale: float | None = None


@dataclass(frozen=True)
class Observe:
    """Sees what a block is given, and changes nothing.

    block: its number; the depth stands for what leaves the last block.
    tokens: is told the tokens `[B,N,D]` before the block.
    summary: is told two sums of them `[B,2,D]`: the class token and the mean of the others, or,
        where there is no class token, mean and standard deviation over valid positions.
    attention: is told what its attention sees.
    """

    block: int
    tokens: Callable[[Tensor], None] | None = None
    summary: Callable[[Tensor], None] | None = None
    attention: Callable[[Attended], None] | None = None


@dataclass(frozen=True)
class Bare:
    """Acts nowhere: asks what the model makes of the same input without any prompt, before each
    forward.

    receive: is given these features `[B,D]`, without gradient.
    """

    receive: Callable[[Tensor], None]


@dataclass(frozen=True)
class Queries:
    """Learned rows that read a block and are read by nobody (visual query tuning, Tu, Mai and Chao,
    CVPR 2023): the model's own tokens stay as they are, bit for bit.

    A row goes through the block's norm and query projection, and attends to the keys and values of
    the block's own valid tokens: not to itself, nor to another prompt.

    count: None where it differs from batch to batch; there may be none at all.
    make: the block's input `[B,N,D]` → rows `[1|B,count,D]`.
    receive: is given what the rows came to.
    through: as tokens behind the block `[B,count,D]`, through its output projection, its residuals
        and its MLP; otherwise as what the attention's heads give, side by side,
        `[B,count,heads·d]`.
    """

    block: int
    count: int | None
    make: Callable[[Tensor], Tensor]
    receive: Callable[[Tensor], None]
    through: bool = True


Site = Pixels | Tokens | KeyValues | Queries | Observe | Bare
