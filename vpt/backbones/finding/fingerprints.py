"""What tells one set of weights from another."""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from torch import Tensor, nn


def fingerprint_of(model: nn.Module, inputs: Any) -> str:
    """That of a model and of the front end of its input, where it is a module."""
    front_end = getattr(inputs, "front_end", None)
    return fingerprint(model, *([front_end] if isinstance(front_end, nn.Module) else []))


def fingerprint(*modules: nn.Module) -> str:
    """SHA-256 over names, shapes, types and bytes of every weight and buffer; independent of
    device.
    """
    digest = hashlib.sha256()
    for number, module in enumerate(modules):
        for name, value in sorted(module.state_dict().items()):
            if isinstance(value, Tensor):
                digest.update(f"{number} {name} {tuple(value.shape)} {value.dtype}\n".encode())
                digest.update(
                    value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data
                )
    return digest.hexdigest()
