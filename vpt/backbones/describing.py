"""What a model says of its own input and classes: timm's and transformers' configs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from vpt.backbones.ast import ast_sound
from vpt.backbones.extractors import clap_sound, whisper_sound
from vpt.backbones.inputs import Images
from vpt.backbones.waveform import InputSpec, wave_input
from vpt.errors import BackboneError

# transformers' model_type of models of sound → (config, preprocessor facts, seconds) → their input
SOUNDS: dict[str, Callable[[Any, dict[str, Any], float | None], InputSpec]] = {
    "audio-spectrogram-transformer": ast_sound,
    "whisper": whisper_sound,
    "wav2vec2": wave_input,
    "hubert": wave_input,
    "clap_audio_model": clap_sound,
}


def describe_inputs(model: nn.Module, facts: dict[str, Any], seconds: float | None = None) -> InputSpec:
    """What a model says of its own input: timm's and transformers' configs. Raises `BackboneError` if it says nothing."""
    config = getattr(model, "config", None)
    config = config if hasattr(config, "image_size") else getattr(config, "vision_config", config)
    sound = SOUNDS.get(getattr(config, "model_type", ""))
    if sound is not None:
        return sound(config, facts, seconds)
    if seconds is not None:
        raise BackboneError(f"seconds= is for models of sound; {type(model).__name__} says nothing of it.")
    size = getattr(getattr(model, "patch_embed", None), "img_size", None)
    cfg = getattr(model, "pretrained_cfg", None) or {}
    if size or cfg:
        names = ("mean", "std", "crop_pct", "interpolation")
        channels = next((m.in_channels for m in model.modules() if isinstance(m, nn.Conv2d)), 3)
        known = {name: cfg[name] for name in names if cfg.get(name) is not None}
        for name in ("mean", "std"):
            if name in known and len(known[name]) != channels:
                known[name] = (sum(known[name]) / len(known[name]),)
        known = {"mean": (0.0,), "std": (1.0,)} | known if channels != 3 else known
        return Images(size=tuple(size or cfg["input_size"][1:]), channels=channels, **known)
    size = getattr(config, "image_size", None)
    if size is not None:
        mean, std = facts.get("image_mean", (0.5, 0.5, 0.5)), facts.get("image_std", (0.5, 0.5, 0.5))
        channels = getattr(config, "num_channels", 3)
        known = {"mean": tuple(mean[:channels]), "std": tuple(std[:channels]), "frames": getattr(config, "num_frames", None)}
        return Images(size=size, channels=channels, interpolation="bilinear", **known)
    raise BackboneError(
        f"{type(model).__name__} does not say what its input looks like. Say it: load_backbone(model, "
        "inputs=vpt.Images(size=(H, W), mean=…, std=…)) or inputs=vpt.Sound(sample_rate=…, samples=…, frames=…, bins=…)."
    )


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
