"""Models of several towers (CLIP, SigLIP, CLAP, Whisper): the one that fits the input is opened."""

from __future__ import annotations

import logging
from typing import Any

from torch import nn

from vpt.errors import BackboneError

TOWERS = {
    "image": ("vision_model", "visual", "vision_tower"),
    "sound": ("audio_model", "audio_tower"),
}
TEXT = ("text_model", "text", "text_tower", "transformer", "token_embedding")
LOGGER = logging.getLogger("vpt")


def open_tower(model: nn.Module, kind: str | None) -> tuple[nn.Module, str | None]:
    """(The tower that takes input of `kind`, its name in the model), or (model, None) where there
    is only one.

    kind: "image", "sound", or None where the caller says nothing. Says what was opened through the
        "vpt" logger. Raises `BackboneError` where two towers fit, or none.
    """
    name = _encoder(model) or _tower(model, kind)
    if name is None:
        return model, None
    LOGGER.warning("%s holds several towers: %s was opened.", type(model).__name__, name)
    return model.get_submodule(name), name


def _encoder(model: nn.Module) -> str | None:
    """The encoder of a model that also decodes."""
    config: Any = getattr(model, "config", None)
    if (
        not getattr(config, "is_encoder_decoder", False)
        or not hasattr(model, "get_encoder")
        or _classifies(model)
    ):
        return None
    encoder = model.get_encoder()  # type: ignore[operator]
    return next(
        (
            name
            for name, module in model.named_modules()
            if module is encoder and module is not model
        ),
        None,
    )


def _classifies(model: nn.Module) -> bool:
    return type(model).__name__.endswith("Classification")


def _tower(model: nn.Module, kind: str | None) -> str | None:
    children = dict(model.named_children()) | dict(model.named_parameters(recurse=False))
    if not any(name in children for name in TEXT) or _classifies(model):
        return None
    found = {k: name for k, names in TOWERS.items() for name in names if name in children}
    if not found:
        return None
    if kind is None and len(found) > 1:
        raise BackboneError(
            f"{type(model).__name__} has towers for {' and '.join(found)}. Pass the one you mean:"
            f" model.{next(iter(found.values()))}, or say inputs=vpt.Images(…) or vpt.Sound(…)."
        )
    if kind is not None and kind not in found:
        raise BackboneError(
            f"{type(model).__name__} has no tower for {kind}; it has one for {', '.join(found)}."
        )
    return found[kind] if kind is not None else next(iter(found.values()))
