"""A model's own final layer, for the classes of some data."""

from __future__ import annotations

import numpy as np
import torch

from vpt.backbones import Backbone
from vpt.errors import TrainingError
from vpt.readouts import Identity, Linear


@torch.no_grad()
def classifier_of(backbone: Backbone, own: Identity) -> tuple[np.ndarray, np.ndarray]:
    """(weights `[C,D]`, biases `[C]`) of the model's own final layer, for the data's classes.
    Raises `TrainingError` for a model whose scores are no linear function of its features.
    """
    x = backbone.inputs.example(4)
    out = backbone.run(x)
    layers = backbone.classifiers
    if len(layers) == 1 and out.logits is not None:
        every = layers[0].weight.double().cpu()
        rows = own.index if own.index is not None else list(range(len(every)))
        weight, bias = every[rows], torch.zeros(len(rows)).double()
        if layers[0].bias is not None:
            bias = layers[0].bias[rows].double().cpu()
        scores = out.features.double().cpu() @ weight.T + bias
        told = own(out.logits).double().cpu()
        rounding = 1e-3 if backbone.dtype == torch.float32 else 3e-2
        if float((scores - told).abs().max()) <= rounding * max(1.0, float(told.abs().max())):
            return weight.numpy(), bias.numpy()
    raise TrainingError(
        f"The scores of {type(backbone.model).__name__} are no linear function of what its"
        " classifier reads, so that they cannot be corrected there. Learn a prompt instead, for"
        " example --prompt border:6."
    )


def as_linear(backbone: Backbone, own: Identity) -> Linear:
    """The same scores as a readout of features. Raises `TrainingError`, as `classifier_of`."""
    weight, bias = classifier_of(backbone, own)
    readout = Linear(weight.shape[1], own.classes or len(weight))
    with torch.no_grad():
        readout.weight.copy_(torch.from_numpy(weight))
        readout.bias.copy_(torch.from_numpy(bias))
    return readout


def can_be_corrected(backbone: Backbone) -> bool:
    """Whether the model has a classifier of its own, which is linear in its features."""
    if not backbone.classes:
        return False
    try:
        classifier_of(backbone, Identity())
    except TrainingError:
        return False
    return True
