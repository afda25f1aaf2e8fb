"""What the published models of a family want of their pictures, where a checkpoint does not say."""

from __future__ import annotations

import logging
from typing import Any, NamedTuple

from torch import nn

from vpt.backbones.inputs.images import Images
from vpt.sites import Config

LOGGER = logging.getLogger("vpt")
HALF, IMAGENET = ((0.5, 0.5, 0.5),) * 2, ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CLIP = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


class Family(NamedTuple):
    """How the published models of a model_type have their pictures: (mean, std), and what `Images`
    calls the rest.
    """

    statistics: tuple[tuple[float, float, float], tuple[float, float, float]]
    interpolation: str
    fit: str
    crop_pct: float = 1.0
    # (image_size of the config, what the models are given all the same)
    sizes: tuple[int, int] | None = None


# by the preprocessor_config.json of google/vit-base-patch16-224,
# facebook/deit-base-distilled-patch16-224, openai/clip-vit-*, google/siglip-base-patch16-224,
# microsoft/beit-base-patch16-224, microsoft/swin-*, facebook/dinov2-*, facebook/dinov3-vit*,
# MCG-NJU/videomae-base, facebook/convnext-*-224 and microsoft/resnet-*
FAMILIES = {
    "vit": Family(HALF, "bilinear", "squash"),
    "deit": Family(IMAGENET, "bicubic", "squash", 224 / 256),
    "clip": Family(CLIP, "bicubic", "cover"),
    "clip_vision_model": Family(CLIP, "bicubic", "cover"),
    "siglip": Family(HALF, "bicubic", "squash"),
    "siglip_vision_model": Family(HALF, "bicubic", "squash"),
    "beit": Family(HALF, "bilinear", "squash"),
    "data2vec-vision": Family(HALF, "bilinear", "squash"),
    "swin": Family(IMAGENET, "bicubic", "squash"),
    "swinv2": Family(IMAGENET, "bicubic", "squash"),
    "dinov2": Family(IMAGENET, "bicubic", "cover", 224 / 256, (518, 224)),
    "dinov2_with_registers": Family(IMAGENET, "bicubic", "cover", 224 / 256, (518, 224)),
    "dinov3_vit": Family(IMAGENET, "bilinear", "squash"),
    "videomae": Family(IMAGENET, "bilinear", "cover"),
    "convnext": Family(IMAGENET, "bicubic", "cover", 224 / 256),
    "resnet": Family(IMAGENET, "bicubic", "cover", 224 / 256),
}
UNKNOWN = Family(HALF, "bicubic", "cover")


def assumed_images(model: nn.Module, config: Any, told: bool, facts: Config) -> Images:
    """The published preparation of a model's family, which is assumed where nothing says how it
    wants its pictures.

    It is said, unless the user has told something better. facts: what is known of "mean" and "std"
    all the same.
    """
    kind = getattr(config, "model_type", "")
    family = FAMILIES.get(kind, UNKNOWN)
    size = config.image_size
    if family.sizes is not None and size == family.sizes[0]:
        size = family.sizes[1]
    channels = int(getattr(config, "num_channels", 3))
    mean, std = (
        values[:channels] if channels <= 3 else (sum(values) / 3,) for values in family.statistics
    )
    mean, std = facts.get("mean", mean), facts.get("std", std)
    found = Images(
        size,
        mean,
        std,
        channels,
        family.crop_pct,
        family.interpolation,
        getattr(config, "num_frames", None),
        fit=family.fit,
        like="transformers",
    )
    if told:
        return found
    whose = f"those of the published {kind} models are" if kind in FAMILIES else "these are"
    LOGGER.warning(
        "Nothing says how %s wants its pictures; %s assumed: %s. Say otherwise with"
        " inputs=vpt.Images(…), or inputs={'mean': …} (--inputs mean=…).",
        type(model).__name__,
        whose,
        found,
    )
    return found
