"""In what precision weights are held, and what that costs on this machine."""

from __future__ import annotations

import logging
import os
import time
from functools import cache

import torch
from torch import nn

from vpt.errors import BackboneError

LOGGER = logging.getLogger("vpt")
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
NAMES = {dtype: name for name, dtype in DTYPES.items()}
HALF = (torch.float16, torch.bfloat16)
SIDE = 192  # of the square matrices that are multiplied to see; some milliseconds where it is slow
SLOWER = 1.2  # times; what is less is noise


def wanted_dtype(name: str | None) -> torch.dtype | None:
    """The dtype of a name. Raises `BackboneError` for another name."""
    if name is not None and name not in DTYPES:
        raise BackboneError(
            f"Found dtype={name!r}; needed is one of {', '.join(DTYPES)}, or None for what suits"
            " the checkpoint and this machine."
        )
    return DTYPES[name] if name is not None else None


def suited_dtype(model: nn.Module, called: str) -> torch.dtype | None:
    """Where a checkpoint is in half precision and will run on a CPU: fp32, and a line that says so.
    None: as it is.
    """
    half = half_of(model)
    if half is None or not runs_on_cpu():
        return None
    name = NAMES[half]
    LOGGER.warning(
        "The weights of %s are in %s; on this CPU they are held in fp32, the same numbers%s."
        " dtype='%s' (--dtype %s) keeps them.",
        called,
        name,
        _how_much(half),
        name,
        name,
    )
    return torch.float32


def half_of(model: nn.Module) -> torch.dtype | None:
    """The half precision that a model's weights are in, if they are."""
    return next((p.dtype for p in model.parameters() if p.dtype in HALF), None)


def say_if_slow(dtype: torch.dtype | None, what: str) -> None:
    """Once: that a precision is slower than fp32 here, for people who took it to save time."""
    if dtype in HALF and runs_on_cpu() and cost_on_cpu(dtype) > SLOWER:
        _say(
            f"{what} {NAMES[dtype]}, for which this CPU has no products of its own: they take"
            f" {_times(dtype)} as long as in fp32."
        )


@cache
def _say(text: str) -> None:
    LOGGER.warning(text)


def _how_much(dtype: torch.dtype) -> str:
    return (
        f", whose products are {_times(dtype)} faster here" if cost_on_cpu(dtype) > SLOWER else ""
    )


def _times(dtype: torch.dtype) -> str:
    return f"{cost_on_cpu(dtype):.2g} times"


@cache
def cost_on_cpu(dtype: torch.dtype) -> float:
    """How much longer one small product takes in this precision than in fp32, timed once; below 1
    where it is faster.
    """
    found = {}
    for kind in (torch.float32, dtype):
        a = torch.ones(SIDE, SIDE, dtype=kind)
        found[kind] = min(_seconds(a) for _ in range(4))  # the first one also prepares
    return found[dtype] / found[torch.float32]


def _seconds(a: torch.Tensor) -> float:
    start = time.perf_counter()
    _ = a @ a
    return time.perf_counter() - start


def runs_on_cpu() -> bool:
    """Whether models run on the CPU here: there is nothing else, or accelerate is told so."""
    if os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes"):
        return True
    return not (torch.cuda.is_available() or torch.backends.mps.is_available())
