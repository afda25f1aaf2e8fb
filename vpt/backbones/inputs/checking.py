"""What raw input must be, of any kind: floats in a range."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch._C._functorch import is_functorch_wrapped_tensor

from vpt.errors import InputError


def floats(x: object, what: str, expected: str) -> Tensor:
    """The tensor itself as floats; half precision and float64 become float32, integers are
    refused.
    """
    if not isinstance(x, Tensor):
        raise InputError(f"Found {type(x).__name__} where {what} should be; needed is {expected}.")
    if not x.is_floating_point():
        scale = {torch.uint8: "255", torch.int16: "32768"}.get(
            x.dtype, "the largest value it can hold"
        )
        raise InputError(
            f"Found {what} of type {x.dtype}; needed are floats, {expected}. Divide by {scale}"
            " first."
        )
    return x.float()


def shape_hint(x: Tensor, channels: int) -> str:
    """What to do with images in another common shape."""
    if x.ndim == 4 and x.shape[-1] == channels and x.shape[1] != channels:
        return "Put the channels first: x.permute(0, 3, 1, 2)."
    if x.ndim == 4 and x.shape[1] == 4 and channels == 3:
        return "Leave the alpha channel out: x[:, :3]."
    return ""


def check_range(x: Tensor, low: float, high: float, what: str, hint: str) -> None:
    """Refuse values outside `[low, high]`, NaN included (skipped inside torch.compile and vmap,
    which cannot look at values).
    """
    if torch.compiler.is_compiling() or is_functorch_wrapped_tensor(x) or x.numel() == 0:
        return
    found = [float(v) for v in torch.aminmax(x.detach())]
    if not (found[0] >= low - 1e-3 and found[1] <= high + 1e-3):
        raise InputError(
            f"Found {what} with values from {found[0]:.4g} to {found[1]:.4g}; needed are finite"
            f" values in [{low:g}, {high:g}]. {hint}"
        )


def channels(values: Any, channels: int, what: str) -> tuple[float, ...]:
    """One number per channel, from one for all or a list. Raises `InputError`."""
    try:
        given = tuple(float(v) for v in (values if isinstance(values, Iterable) else (values,)))
    except (TypeError, ValueError):
        given = ()
    given = given * channels if len(given) == 1 else given
    if (
        len(given) != channels
        or not all(math.isfinite(v) for v in given)
        or (what == "std" and min(given) <= 0)
    ):
        sign = "positive " if what == "std" else ""
        raise InputError(
            f"Found {what}={values!r}; needed is one {sign}number per channel ({channels})."
        )
    return given
