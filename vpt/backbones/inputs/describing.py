"""What a model says of its own input and classes: timm's and transformers' configs."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, NamedTuple

from torch import nn

from vpt.backbones.inputs.ast import ast_length, ast_sound
from vpt.backbones.inputs.changes import overridden
from vpt.backbones.inputs.extractors import clap_length, clap_sound, whisper_length, whisper_sound
from vpt.backbones.inputs.families import assumed_images
from vpt.backbones.inputs.image_processors import images_of, processor_of
from vpt.backbones.inputs.images import Images
from vpt.backbones.inputs.waveform import InputSpec, wave_input, wave_length
from vpt.errors import BackboneError
from vpt.sites import Config

LOGGER = logging.getLogger("vpt")


class Hearing(NamedTuple):
    """How a family of models of sound hears. inputs: (config, preprocessor facts, seconds) → their
    input. length: (config, facts, seconds of the clips at hand) → the length that suits these, None
    for the model's own.
    """

    inputs: Callable[[Any, Config, float | None], InputSpec]
    length: Callable[[Any, Config, float], float | None]


SOUNDS = {  # by transformers' model_type
    "audio-spectrogram-transformer": Hearing(ast_sound, ast_length),
    "whisper": Hearing(whisper_sound, whisper_length),
    "wav2vec2": Hearing(wave_input, wave_length),
    "hubert": Hearing(wave_input, wave_length),
    "clap_audio_model": Hearing(clap_sound, clap_length),
}


def describe_inputs(
    model: nn.Module,
    facts: Config,
    seconds: float | None = None,
    changes: Config | None = None,
) -> InputSpec:
    """What a model says of its own input: timm's and transformers' configs. changes: fields to
    change in that.

    Raises `BackboneError` if it says nothing, `InputError` for a field that it has not.
    """
    found = _described(model, facts, seconds, bool(changes))
    return overridden(found, dict(changes)) if changes else found


def suited_length(model: nn.Module, facts: Config, clips: float) -> float | None:
    """The clip length in seconds that suits clips of this length; None for the model's own, and for
    a model of pictures.
    """
    config: Any = getattr(model, "config", None)
    sound = SOUNDS.get(getattr(config, "model_type", ""))
    return sound.length(config, facts, clips) if sound is not None else None


def _described(model: nn.Module, facts: Config, seconds: float | None, told: bool) -> InputSpec:
    config = getattr(model, "config", None)
    config = config if hasattr(config, "image_size") else getattr(config, "vision_config", config)
    sound = SOUNDS.get(getattr(config, "model_type", ""))
    if sound is not None:
        return sound.inputs(config, facts, seconds)
    if seconds is not None:
        raise BackboneError(
            f"seconds= is for models of sound; {type(model).__name__} says nothing of it."
        )
    if getattr(getattr(model, "patch_embed", None), "img_size", None) or getattr(
        model, "pretrained_cfg", None
    ):
        return _timm_images(model, told)
    processor = facts.get("image_processor") or processor_of(model)
    if processor is not None:
        return images_of(processor, config)
    if getattr(config, "image_size", None) is not None:
        said = {
            name: tuple(facts[f"image_{name}"])
            for name in ("mean", "std")
            if facts.get(f"image_{name}")
        }
        return assumed_images(model, config, told, said)
    raise BackboneError(
        f"{type(model).__name__} does not say what its input looks like. Say it:"
        " load_backbone(model, inputs=vpt.Images(size=(H, W), mean=…, std=…)) or"
        " inputs=vpt.Sound(sample_rate=…, samples=…, frames=…, bins=…)."
    )


def _timm_images(model: Any, told: bool) -> Images:
    """timm's own configuration: what its `create_transform` would do. A model made by hand has
    none, and is given [0,1].
    """
    from timm.data import resolve_data_config

    size: Any = getattr(getattr(model, "patch_embed", None), "img_size", None)
    channels = next((m.in_channels for m in model.modules() if isinstance(m, nn.Conv2d)), 3)
    if not getattr(model, "pretrained_cfg", None):
        if not told:
            LOGGER.warning(
                "Nothing says how %s wants its pictures: they are given in [0,1] as they are (mean"
                " 0, std 1). Say otherwise with inputs=vpt.Images(…), or inputs={'mean': …}"
                " (--inputs mean=…).",
                type(model).__name__,
            )
        return Images(size=size, channels=channels)
    data = resolve_data_config(model=model)
    mean, std = (
        v if len(v) == channels else (sum(v) / len(v),) for v in (data["mean"], data["std"])
    )
    fit = {"center": "cover"}.get(data["crop_mode"], data["crop_mode"])
    size = tuple(size or data["input_size"][1:])
    return Images(size, mean, std, channels, data["crop_pct"], data["interpolation"], fit=fit)


def class_names(model: nn.Module) -> list[str] | None:
    """Names of the logits, where the model's library knows them."""
    names = getattr(getattr(model, "config", None), "id2label", None)
    if names:
        found = [str(names[i]) for i in sorted(names)]
        generic = all(name == f"LABEL_{i}" for i, name in enumerate(found))
        has_head = type(model).__name__.endswith("Classification")
        return found if has_head and not generic else None
    cfg = getattr(model, "pretrained_cfg", None) or {}
    if cfg.get("label_names") and len(cfg["label_names"]) == getattr(model, "num_classes", 0):
        said = cfg.get("label_descriptions") or {}
        return [said.get(name, name) for name in cfg["label_names"]]
    if cfg and getattr(model, "num_classes", 0) in (1000, 11821, 21841, 21843):
        from timm.data import ImageNetInfo, infer_imagenet_subset

        subset = infer_imagenet_subset(model)
        if subset:
            info = ImageNetInfo(subset)
            return [info.index_to_description(i) for i in range(info.num_classes())]
    return None
