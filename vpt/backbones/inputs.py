"""Images as a backbone wants them: checked, and given their mean and standard deviation. Sound has its own files."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor
from torch._C._functorch import is_functorch_wrapped_tensor

from vpt.errors import InputError

Raw = Tensor | tuple[Tensor, Tensor]


def floats(x: object, what: str, expected: str) -> Tensor:
    """The tensor itself as floats; half precision and float64 become float32, integers are refused."""
    if not isinstance(x, Tensor):
        raise InputError(f"Found {type(x).__name__} where {what} should be; needed is {expected}.")
    if not x.is_floating_point():
        scale = {torch.uint8: "255", torch.int16: "32768"}.get(x.dtype, "the largest value it can hold")
        raise InputError(f"Found {what} of type {x.dtype}; needed are floats, {expected}. Divide by {scale} first.")
    return x.float()


def _shape_hint(x: Tensor, channels: int) -> str:
    """What to do with images in another common shape."""
    if x.ndim == 4 and x.shape[-1] == channels and x.shape[1] != channels:
        return "Put the channels first: x.permute(0, 3, 1, 2)."
    if x.ndim == 4 and x.shape[1] == 4 and channels == 3:
        return "Leave the alpha channel out: x[:, :3]."
    return ""


def check_range(x: Tensor, low: float, high: float, what: str, hint: str) -> None:
    """Refuse values outside `[low, high]`, NaN included (skipped inside torch.compile and vmap, which cannot look at values)."""
    if torch.compiler.is_compiling() or is_functorch_wrapped_tensor(x) or x.numel() == 0:
        return
    found = [float(v) for v in torch.aminmax(x.detach())]
    if not (found[0] >= low - 1e-3 and found[1] <= high + 1e-3):
        raise InputError(
            f"Found {what} with values from {found[0]:.4g} to {found[1]:.4g}; needed are finite values in "
            f"[{low:g}, {high:g}]. {hint}"
        )


def _channels(values: Any, channels: int, what: str) -> tuple[float, ...]:
    try:
        given = tuple(float(v) for v in (values if isinstance(values, Iterable) else (values,)))
    except (TypeError, ValueError):
        given = ()
    given = given * channels if len(given) == 1 else given
    if len(given) != channels or not all(math.isfinite(v) for v in given) or (what == "std" and min(given) <= 0):
        sign = "positive " if what == "std" else ""
        raise InputError(f"Found {what}={values!r}; needed is one {sign}number per channel ({channels}).")
    return given


@dataclass(frozen=True)
class Images:
    """Images `[B,C,H,W]` with values in [0,1], or videos `[B,frames,C,H,W]` where frames is given.

    size: (height, width) in pixels. mean, std: per channel, in units of [0,1]. crop_pct: the share of the resized image
    that the centre crop keeps when a file is read. interpolation: "bicubic" or "bilinear". Raises `InputError` on use.
    """

    size: tuple[int, int]
    mean: tuple[float, ...] | float = 0.0
    std: tuple[float, ...] | float = 1.0
    channels: int = 3
    crop_pct: float = 1.0
    interpolation: str = "bicubic"
    frames: int | None = None
    kind: Literal["image"] = field(default="image", init=False)
    # what a pixel prompt needs to know: the level of "nothing there", and the unit of its bound
    base: float = field(default=0.0, init=False)
    unit: float = field(default=1.0, init=False)

    def __post_init__(self) -> None:
        size = (self.size, self.size) if isinstance(self.size, int) else tuple(int(s) for s in self.size)
        if len(size) != 2 or min(size) < 1:
            raise InputError(f"Found size={self.size!r}; needed is (height, width) in pixels.")
        if self.interpolation not in ("bicubic", "bilinear") or not 0 < self.crop_pct <= 1:
            raise InputError(f"Found interpolation={self.interpolation!r}, crop_pct={self.crop_pct}; needed are 'bicubic' or "
                             "'bilinear', and a share above 0 and up to 1.")  # fmt: skip
        object.__setattr__(self, "size", size)
        object.__setattr__(self, "mean", _channels(self.mean, self.channels, "mean"))
        object.__setattr__(self, "std", _channels(self.std, self.channels, "std"))

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one prepared input: `(C, H, W)`, or `(frames, C, H, W)`."""
        return (*((self.frames,) if self.frames else ()), self.channels, *self.size)

    def prepare(self, x: Raw) -> tuple[Tensor, None]:
        """Check raw images `[B,C,H,W]`; half and double precision become float32. Raises `InputError`."""
        expected = f"{'videos' if self.frames else 'images'} [B,{','.join(map(str, self.shape))}] in [0,1]"
        x = floats(x, "images", expected)
        if tuple(x.shape[1:]) != self.shape:
            hint = _shape_hint(x, self.channels) or (
                "Add a batch dimension: x[None]."
                if tuple(x.shape) == self.shape or (x.ndim == 3 and not self.frames)
                else ("Resize them (torchvision.transforms.v2.functional.resize), and repeat a grey channel three times.")
            )
            raise InputError(f"Found images of shape {list(x.shape)}; needed are {expected}. {hint}")
        check_range(x, 0.0, 1.0, "images", "Divide 0–255 images by 255; do not subtract mean and std: the backbone does.")
        return x, None

    def standardize(self, x: Tensor) -> Tensor:
        """(x − mean) / std per channel, `[B,C,H,W]`; differentiable, and defined outside [0,1] too."""
        mean, std = (torch.tensor(v, dtype=x.dtype, device=x.device).view(-1, 1, 1) for v in (self.mean, self.std))
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

    def describe(self) -> dict[str, Any]:
        """Plain values for a file's header."""
        names = ("channels", "mean", "std", "crop_pct", "interpolation", *(("frames",) if self.frames else ()))
        values = {name: getattr(self, name) for name in names}
        return {"kind": "image", "size": list(self.size), **values, "mean": list(values["mean"]), "std": list(values["std"])}
