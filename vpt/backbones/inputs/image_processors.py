"""What a transformers checkpoint says of its pictures, as `Images`; and what a family's published
models say, where it says nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import nn

from vpt.backbones.inputs.fitting import RESAMPLES
from vpt.backbones.inputs.images import Images
from vpt.sites import Config

LOGGER = logging.getLogger("vpt")
NAMES = {int(resample): name for name, resample in RESAMPLES.items()}
LEVELS = 3.0  # grey levels of 255: Pillow and torch are up to two apart


class Processor(NamedTuple):
    """A checkpoint's own image processor, as transformers makes it, and what its file says: the
    rest are its class's defaults.
    """

    itself: Any
    words: Config


def image_processor(source: str, local: bool = False) -> Processor | None:
    """What a checkpoint says of its pictures; None where it says nothing. local: ask no hub."""
    from transformers import AutoImageProcessor

    with quiet_transformers():  # it tells of defaults that changed between its versions
        try:
            made = AutoImageProcessor.from_pretrained(
                source, trust_remote_code=False, local_files_only=local
            )
            return Processor(
                made, type(made).get_image_processor_dict(source, local_files_only=local)[0]
            )
        except (OSError, ValueError, TypeError, KeyError, ImportError):
            return None


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Inside, transformers says errors only."""
    said = logging.getLogger("transformers")
    level = said.level
    said.setLevel(logging.ERROR)
    try:
        yield
    finally:
        said.setLevel(level)


def processor_of(model: nn.Module) -> Processor | None:
    """The image processor of the checkpoint that a module in hand came from, where it is still on
    this machine.
    """
    name = getattr(getattr(model, "config", None), "_name_or_path", "") or ""
    return (
        image_processor(name, local=not Path(name).is_dir())
        if isinstance(name, str) and name
        else None
    )


def images_of(found: Processor, config: Any) -> Images:
    """What an image processor does, as `Images`: size or crop of the processor before the config's
    image_size.

    Compared with the processor itself on one picture; where they differ, that is said.
    """
    processor, channels = found.itself, int(getattr(config, "num_channels", 3))
    frames = getattr(config, "num_frames", None)
    mean, std = _statistics(processor, channels)
    interpolation = NAMES.get(int(getattr(processor, "resample", None) or 0), "bilinear")
    geometry = _geometry(processor, config)
    said = found.words.keys() & {"size", "crop_size"}
    # the same at the model's own size
    if not said and getattr(config, "image_size", None) is not None:
        own = _pair(config.image_size)
        size = geometry["size"]
        resized = geometry.get("resize_to") or size
        ratios = (to / side for to, side in zip(resized, size, strict=True))
        resize_to = tuple(round(side * ratio) for side, ratio in zip(own, ratios, strict=True))
        geometry |= {"size": own, "resize_to": resize_to}
    inputs = Images(
        mean=mean,
        std=std,
        channels=channels,
        frames=frames,
        interpolation=interpolation,
        like="transformers",
        **geometry,
    )
    if frames is None and said:
        _compare(processor, inputs)
    return inputs


def _statistics(processor: Any, channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of values in [0,1], whatever range the processor brings them to
    first.
    """
    factor = float(processor.rescale_factor) if getattr(processor, "do_rescale", True) else 1.0
    mean, std = (0.0,) * channels, (1.0,) * channels
    if getattr(processor, "do_normalize", True):
        given = (getattr(processor, name, None) for name in ("image_mean", "image_std"))
        mean, std = (
            tuple(v) if isinstance(v, (list, tuple)) else (float(v if v is not None else 0.5),)
            for v in given
        )
    scale = 255 * factor
    if abs(scale - 1) < 1e-6:  # 1/255, as it stands in a JSON file
        scale = 1.0
    return tuple(m / scale for m in mean[:channels]), tuple(s / scale for s in std[:channels])


def _geometry(processor: Any, config: Any) -> Config:
    size, crop = (
        _sides(getattr(processor, "size", None)),
        _sides(getattr(processor, "crop_size", None)),
    )
    resizes, crops = (
        getattr(processor, "do_resize", True),
        getattr(processor, "do_center_crop", False),
    )
    own = _pair(getattr(config, "image_size", None) or 224)
    short = size.get("shortest_edge")
    if short and getattr(processor, "crop_pct", None):  # ConvNeXT's and ResNet's
        if short >= 384:
            return {"size": (short, short), "fit": "squash"}
        to = int(short / processor.crop_pct)
        return {"size": (short, short), "resize_to": (to, to), "fit": "cover"}
    wanted = (crop["height"], crop["width"]) if crops and "height" in crop else None
    if not resizes:  # pictures come in the model's size
        return {"size": wanted or own, "fit": "crop" if wanted else "cover"}
    if "height" in size:
        both = (size["height"], size["width"])
        return {"size": wanted or both, "resize_to": both, "fit": "squash"}
    if short:
        return {"size": wanted or (short, short), "resize_to": (short, short), "fit": "cover"}
    return {"size": wanted or own, "fit": "cover"}


def _pair(size: Any) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))


def _sides(size: Any) -> dict[str, int]:
    """A size of transformers without what it leaves open."""
    return {name: int(value) for name, value in dict(size or {}).items() if value is not None}


def _compare(processor: Any, inputs: Images) -> None:
    """Say so where the processor makes something else of a picture that is not square."""
    generator = torch.Generator().manual_seed(0)
    tall, wide = (round(1.3 * side) + 3 for side in inputs.size)
    coarse = torch.rand(1, 3, 8, 12, generator=generator) * 255
    pixels = (
        nn.functional.interpolate(coarse, (tall, round(1.4 * wide)), mode="bicubic")
        .clamp(0, 255)
        .byte()[0]
    )
    picture = Image.fromarray(pixels.permute(1, 2, 0).numpy()).convert(
        "RGB" if inputs.channels == 3 else "L"
    )
    try:
        needed = torch.as_tensor(
            processor(images=picture, return_tensors="pt")["pixel_values"][0]
        ).float()
    except Exception as error:  # of a processor that wants more than a picture
        LOGGER.warning(
            "%s could not be compared with what it says of itself (%s).",
            type(processor).__name__,
            error,
        )
        return
    found = inputs.standardize(inputs.picture(picture).float()[None] / 255)[0]
    std = torch.tensor(inputs.std).view(-1, 1, 1) * 255
    off = (
        float(((found - needed) * std).abs().max()) if found.shape == needed.shape else float("inf")
    )
    if off > LEVELS:
        what = (
            f"up to {off:.0f} grey levels apart"
            if off < float("inf")
            else f"of shape {list(needed.shape)}"
        )
        LOGGER.warning(
            "%s prepares pictures otherwise than vpt can (%s): %s. Prepare them yourself: pass a"
            " Dataset of tensors in [0,1].",
            type(processor).__name__,
            what,
            inputs,
        )
