"""Places where a prompt acts.

A prompt *says* where it acts by returning sites; a backbone *knows how* to reach such a place on
the model it holds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

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
class Tokens:
    """Tokens put in front of the sequence before block `first` and cut off again after block `last`
    (both included).

    make: the block's input `[B,N,D]` → tokens `[B,count,D]`. VPT-shallow is the span (0, L-1);
        VPT-deep is one span (i, i) for every block i (Jia et al., ECCV 2022, equations 4 to 6).
        whose: in a batch of several tasks `make` gives the tokens `[T,P,D]` of T prompts, as many
        as the longest has, and `whose` says which of them each sample has `[B]`, and which are only
        padding: a bias `[B,1,1,P]` for attention scores (0, or −inf), or None. `count` then says
        nothing.
    """

    first: int
    last: int
    count: int
    make: Callable[[Tensor], Tensor]
    whose: Callable[[], tuple[Tensor, Tensor | None]] | None = None


@dataclass(frozen=True)
class KeyValues:
    """Keys and values put beside a block's own inside its scaled dot-product attention (prefix
    tuning).

    make: the block's own (keys `[B,heads,N,d]`, values `[B,heads,N,d]`) → (keys
        `[B|1,heads,count,d]`, values of that shape, bias `[B|1,1,1,count]` added to the attention
        scores or None). It may give fewer or more than `count`.
    """

    block: int
    count: int
    make: Callable[[Tensor, Tensor], tuple[Tensor, Tensor, Tensor | None]]


@dataclass(frozen=True)
class Query:
    """Acts nowhere: asks what the model makes of the same input without any prompt, before each
    forward.

    receive: is given these features `[B,D]`, without gradient.
    """

    receive: Callable[[Tensor], None]


Site = Pixels | Tokens | KeyValues | Query
