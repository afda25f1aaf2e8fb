"""The vocabulary of places where a prompt acts, and what it may ask of a model. Nothing here knows
one.

A prompt *says* where it acts by returning sites; a backbone *knows how* to reach such a place on
the model it holds. Prompts, readouts and data never import a backbone: they take anything that
answers the Protocols at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from torch import Tensor

if TYPE_CHECKING:
    from typing_extensions import TypeIs

Raw = Tensor | tuple[Tensor, Tensor]  # images `[B,C,H,W]`, or (waveforms `[B,T]`, lengths `[B]`)
Config = dict[str, Any]  # plain values that JSON can hold: what rebuilds a part from a file


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


class _AnyInputs(Protocol):
    """What may be asked of any backbone's inputs."""

    @property
    def kind(self) -> str:
        """ "image" or "sound"."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one prepared example: `(C,H,W)`, `(frames,bins)` or `(samples,1)`."""

    @property
    def base(self) -> float:
        """The value of nothing: black, or silence."""

    @property
    def unit(self) -> float:
        """One standard deviation of sound, or 1 for images, in which bounds are said."""


class ImagesLike(_AnyInputs, Protocol):
    """What may be asked of inputs that are images."""

    @property
    def channels(self) -> int:
        """3 for colour, 1 for grey."""

    @property
    def frames(self) -> int | None:
        """Pictures in a video; None for single ones."""

    def picture(self, image: Any) -> Tensor:
        """A PIL picture → uint8 `[C,H,W]` as the model wants it."""


class SoundLike(_AnyInputs, Protocol):
    """What may be asked of inputs that are sound."""

    @property
    def sample_rate(self) -> int:
        """Hz."""

    @property
    def samples(self) -> int:
        """Of a full clip."""


InputsLike = ImagesLike | SoundLike  # of backbones: `Images`; `Sound` and `Waveform`


def takes_images(inputs: InputsLike) -> TypeIs[ImagesLike]:
    """Whether these are inputs of images; they are of sound otherwise."""
    return inputs.kind == "image"


class ReachLike(Protocol):
    """Which places of a model can be reached; each method raises a `VptError` that says why not."""

    def need_blocks(self, *indices: int) -> None:
        """Transformer blocks, and these among them."""

    def need_prefix(self, blocks: Sequence[int]) -> None:
        """Attention in these blocks that takes keys and values of a prompt."""


class BackboneLike(Protocol):
    """What a prompt or a readout may ask of a backbone."""

    @property
    def depth(self) -> int:
        """Number of transformer blocks."""

    @property
    def widths(self) -> list[int]:
        """Of each block's tokens."""

    @property
    def heads(self) -> list[tuple[int, int] | None]:
        """(heads, head_dim) of each block's attention, where it is known."""

    @property
    def patch_dim(self) -> int:
        """Fan-in of the patch embedding."""

    @property
    def classes(self) -> int:
        """K, the number of logits; 0 without a classifier."""

    @property
    def inputs(self) -> InputsLike:
        """What raw input looks like."""

    @property
    def reach(self) -> ReachLike:
        """Which places can be reached."""

    @property
    def class_names(self) -> list[str] | None:
        """Of the logits, where they are known."""

    out_features: int  # D of the features that a final classifier reads

    def record(self, x: Raw) -> list[dict[str, Tensor]]:
        """What each block sees on raw input, prompts off: `tokens`, `keys` and `values`."""
