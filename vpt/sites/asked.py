"""What prompts, readouts and data may ask of a backbone and of its inputs.

They never import a backbone: they take anything that answers these Protocols.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

if TYPE_CHECKING:  # or the command line would wait for torch
    from torch import Tensor
    from typing_extensions import TypeIs

# images `[B,C,H,W]`, or (waveforms `[B,T]`, lengths `[B]`)
Raw: TypeAlias = "Tensor | tuple[Tensor, Tensor]"
Config = dict[str, Any]  # plain values that JSON can hold: what rebuilds a part from a file
Settings = dict[tuple[str, str], object]  # (path of a module, its attribute) → value


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

    def need_queries(self, indices: Sequence[int], through: bool = True) -> None:
        """Attention in these blocks that queries can read; `through`: and the rest of the block."""

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
    def class_token(self) -> bool:
        """Whether the first of its tokens is a class token."""

    @property
    def class_names(self) -> list[str] | None:
        """Of the logits, where they are known."""

    out_features: int  # D of the features that a final classifier reads

    def record(self, x: Raw) -> list[dict[str, Tensor]]:
        """What each block sees on raw input, prompts off: `tokens`, `keys` and `values`."""
