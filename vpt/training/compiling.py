"""A model whose forward is compiled while it trains."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from vpt.errors import TrainingError
from vpt.model import PromptedModel


@contextmanager
def compiled(model: PromptedModel, backend: str) -> Iterator[None]:
    """Inside, the model's forward is compiled by this backend of torch.compile ("": as it is).
    Raises `TrainingError`.
    """
    if not backend:
        yield
        return
    if model.attachment.wants_bare:
        raise TrainingError(
            "A prompt made from a query takes itself off and looks things up in every forward,"
            " which cannot be compiled. Train without compile=…, or make it with one_pass=True."
        )
    model.__dict__["outputs"] = torch.compile(model.outputs, backend=backend)
    try:
        yield
    except torch._dynamo.exc.TorchDynamoException as error:
        reason = " ".join(line for line in str(error).splitlines()[:2] if line)
        raise TrainingError(
            f"torch.compile ({backend}) failed on this model: {reason} Train without compile=…."
        ) from error
    finally:
        del model.__dict__["outputs"]
