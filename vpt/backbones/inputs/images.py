"""Images as a backbone wants them: checked, and given their mean and standard deviation. Sound has
its own files.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from numbers import Real
from typing import Literal

import torch
from PIL import Image
from torch import Tensor

from vpt.backbones.inputs.checking import channels, check_range, floats, shape_hint
from vpt.backbones.inputs.fitting import FITS, LIBRARIES, RESAMPLES, fitted
from vpt.errors import InputError
from vpt.sites import Config

Raw = Tensor | tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Images:
    """Images `[B,C,H,W]` with values in [0,1], or videos `[B,frames,C,H,W]` where frames is given.

    size: (height, width) in pixels, as the model is given it. mean, std: per channel, in units of
        [0,1]. The rest says how a picture of another shape is brought to that size when a file is
        read. interpolation: of PIL, "bicubic", "bilinear", "lanczos", "nearest", "box" or
        "hamming". fit: "cover" (resized until it covers, aspect ratio kept, centre cut out),
        "squash" (each side resized for itself), "border" (resized until it fits in, the rest filled
        with the mean) or "crop" (not resized). crop_pct: the share of the resized picture that the
        centre crop keeps; or resize_to: (height, width) before the crop. like: the library whose
        resizing and rounding it is, "timm" or "transformers". Raises `InputError`.
    """

    size: tuple[int, int]
    mean: tuple[float, ...] | float = 0.0
    std: tuple[float, ...] | float = 1.0
    channels: int = 3
    crop_pct: float = 1.0
    interpolation: str = "bicubic"
    frames: int | None = None
    fit: str = "cover"
    resize_to: tuple[int, int] = (0, 0)  # 0: by crop_pct
    like: str = "timm"
    kind: Literal["image"] = field(default="image", init=False)
    # what a pixel prompt needs to know: the level of "nothing there", and the unit of its bound
    base: float = field(default=0.0, init=False)
    unit: float = field(default=1.0, init=False)

    def __post_init__(self) -> None:
        size = (
            (self.size, self.size)
            if isinstance(self.size, int)
            else tuple(int(s) for s in self.size)
        )
        if len(size) != 2 or min(size) < 1:
            raise InputError(f"Found size={self.size!r}; needed is (height, width) in pixels.")
        if not isinstance(self.crop_pct, Real) or not 0 < self.crop_pct <= 1:
            raise InputError(
                f"Found crop_pct={self.crop_pct!r}; needed is a share above 0 and up to 1."
            )
        for name, known in (
            ("interpolation", tuple(RESAMPLES)),
            ("fit", FITS),
            ("like", LIBRARIES),
        ):
            if getattr(self, name) not in known:
                raise InputError(
                    f"Found {name}={getattr(self, name)!r}; needed is one of {', '.join(known)}."
                )
        to = (
            (self.resize_to, self.resize_to)
            if isinstance(self.resize_to, int)
            else tuple(int(s) for s in self.resize_to)
        )
        if len(to) != 2 or min(to) < 0:
            raise InputError(
                f"Found resize_to={self.resize_to!r}; needed is (height, width) in pixels."
            )
        by_share = tuple(math.floor(side / self.crop_pct) for side in size)
        if min(to) == 0:
            to = by_share
        elif to != by_share:  # what both say must be one thing
            object.__setattr__(
                self,
                "crop_pct",
                min(1.0, *(side / whole for side, whole in zip(size, to, strict=True))),
            )
        object.__setattr__(self, "resize_to", to)
        object.__setattr__(self, "size", size)
        object.__setattr__(self, "mean", channels(self.mean, self.channels, "mean"))
        object.__setattr__(self, "std", channels(self.std, self.channels, "std"))

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one prepared input: `(C, H, W)`, or `(frames, C, H, W)`."""
        return (*((self.frames,) if self.frames else ()), self.channels, *self.size)

    def prepare(self, x: Raw) -> tuple[Tensor, None]:
        """Check raw images `[B,C,H,W]`; half and double precision become float32. Raises
        `InputError`.
        """
        expected = (
            f"{'videos' if self.frames else 'images'} [B,{','.join(map(str, self.shape))}] in [0,1]"
        )
        x = floats(x, "images", expected)
        if tuple(x.shape[1:]) != self.shape:
            hint = shape_hint(x, self.channels) or (
                "Add a batch dimension: x[None]."
                if tuple(x.shape) == self.shape or (x.ndim == 3 and not self.frames)
                else (
                    "Resize them (torchvision.transforms.v2.functional.resize), and repeat a grey"
                    " channel three times."
                )
            )
            raise InputError(
                f"Found images of shape {list(x.shape)}; needed are {expected}. {hint}"
            )
        check_range(
            x,
            0.0,
            1.0,
            "images",
            "Divide 0–255 images by 255; do not subtract mean and std: the backbone does.",
        )
        return x, None

    def standardize(self, x: Tensor) -> Tensor:
        """(x − mean) / std per channel, `[B,C,H,W]`; differentiable, and defined outside [0,1]
        too.
        """
        mean, std = (
            torch.tensor(v, dtype=x.dtype, device=x.device).view(-1, 1, 1)
            for v in (self.mean, self.std)
        )
        return (x - mean) / std

    def arguments(self, x: Tensor, lengths: Tensor | None) -> tuple[Tensor, dict[str, Tensor]]:
        """Prepared input → the model's first argument and its named ones."""
        return self.standardize(x), {}

    def normalize(self, x: Raw) -> Tensor:
        """Raw input → what the model itself wants. Raises `InputError`."""
        return self.standardize(self.prepare(x)[0])

    def example(self, batch: int = 2) -> Tensor:
        """Random raw images `[batch,C,H,W]` of the right shape, the same on every call."""
        return torch.rand(batch, *self.shape, generator=torch.Generator().manual_seed(0))

    def witness(self) -> Tensor:
        """One fixed raw image, of which a model's answer shows what it computes."""
        return self.example(1)

    def picture(self, image: Image.Image) -> Tensor:
        """A picture of mode RGB (L for one channel) and of any shape → uint8 `[C,H,W]`, as the
        model is given it.
        """
        return fitted(image, self)

    def describe(self) -> Config:
        """Plain values for a file's header."""
        names = (
            "channels",
            "crop_pct",
            "interpolation",
            "fit",
            "like",
            *(("frames",) if self.frames else ()),
        )
        lists = ("size", "mean", "std", "resize_to")
        return (
            {"kind": "image"}
            | {n: getattr(self, n) for n in names}
            | {n: list(getattr(self, n)) for n in lists}
        )

    @classmethod
    def described(cls, values: Config) -> Images:
        """What `describe` gave, of this version or an earlier one (which covered and knew no
        more).
        """
        return cls(**{name: value for name, value in values.items() if name != "kind"})

    def __str__(self) -> str:
        """For people: size, how a picture gets there, and its statistics."""
        how = {
            "cover": "covered",
            "squash": "squashed",
            "border": "inside a border of the mean",
            "crop": "not resized",
        }[self.fit]
        by = "" if self.fit == "crop" else f", {self.interpolation}"
        through = (
            f" through {_pixels(self.resize_to)}"
            if self.resize_to != self.size and self.fit != "crop"
            else ""
        )
        alike = lambda values: values[:1] if len(set(values)) == 1 else values  # noqa: E731
        mean, std = (
            ", ".join(f"{v:.3g}" for v in alike(values)) for values in (self.mean, self.std)
        )
        return f"{_pixels(self.size)} pixels ({how}{through}{by}), mean {mean}, std {std}"


def _pixels(size: tuple[int, int]) -> str:
    return f"{size[0]} × {size[1]}"
