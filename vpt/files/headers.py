"""What the header of a prompt file must look like, so that no reader of one meets a surprise.
Nothing is built from it here.
"""

from __future__ import annotations

import math
import re
from typing import NotRequired, TypedDict, TypeGuard

from vpt.data.examples import MOST_CLASSES
from vpt.sites import Config

# 2 adds what the backbone makes of a fixed input, and all of an image's preparation
VERSIONS = (1, 2)
VERSION = 2  # that is written
MOST_BLOCKS = 1024  # of a prompt; the deepest published transformers have a tenth of it
MOST_SIDE = 2048  # pixels of an image that a model is given
MOST_TEXT = 4096  # characters of a name
MOST_DEPTH = 16  # of values inside one another
LISTS = {
    "blocks": MOST_BLOCKS,
    "widths": MOST_BLOCKS,
    "heads": MOST_BLOCKS,
    "head_dim": MOST_BLOCKS,
    "width": MOST_BLOCKS,
    "count": MOST_BLOCKS,
}
NUMBER = (int, float)
DTYPES = ("float32", "bfloat16", "float16", "float64")


class Part(TypedDict):
    """A prompt or a readout: its class, and what makes it again."""

    name: str
    config: Config


class MadeFor(TypedDict):
    """The backbone that a file was made for."""

    identity: Config
    model: str
    fingerprint: str
    dtype: NotRequired[str]  # from version 2 on


class Header(TypedDict):
    """The header of a prompt file, as it stands there."""

    format: str
    version: int
    prompt: Part
    readout: Part
    exact: NotRequired[str]
    classes: list[str] | None
    inputs: Config
    backbone: MadeFor
    trained_on: Config
    scores: Config


def check_header(header: object) -> None:
    """Raise `ValueError`, saying what was found and what is needed, for a header that `vpt.save`
    would not have written.
    """
    header = _mapping(header, "the header")
    if header.get("format") != "vpt-prompt":
        raise ValueError(f"it holds {header.get('format')!r:.80}; needed is a prompt file")
    version = header.get("version")
    if not isinstance(version, int) or isinstance(version, bool) or version not in VERSIONS:
        raise ValueError(
            f"it has format version {version!r:.40}; this vpt reads"
            f" {' and '.join(map(str, VERSIONS))}. Update vpt"
        )
    for name in ("prompt", "readout"):
        part = _mapping(header.get(name), name)
        _text(part.get("name"), f"{name}.name")
        _plain(_mapping(part.get("config"), f"{name}.config"), f"{name}.config", names=True)
    _one_of(header.get("exact", "insert"), ("auto", "insert", "record"), "exact")
    classes = header.get("classes")
    if classes is not None:
        _names(classes, "classes")
    check_inputs(header.get("inputs"))
    _check_backbone(_mapping(header.get("backbone"), "backbone"), version)
    for name in ("trained_on", "scores"):
        _plain(_mapping(header.get(name), name), name)


def check_inputs(inputs: object) -> None:
    """Raise `ValueError` for a description of an input that no `describe()` gives."""
    inputs = _mapping(inputs, "inputs")
    _plain(inputs, "inputs")
    if _one_of(inputs.get("kind"), ("image", "sound"), "inputs.kind") == "sound":
        for name in ("sample_rate", "samples"):
            _whole(inputs.get(name), f"inputs.{name}", 1, 1 << 31)
        return
    size = inputs.get("size")
    if not isinstance(size, list) or len(size) != 2:
        raise ValueError(f"inputs.size is {size!r:.80}; needed is [height, width]")
    for side in size:
        _whole(side, "inputs.size", 1, MOST_SIDE)
    channels = _whole(inputs.get("channels"), "inputs.channels", 1, 64)
    for name in ("mean", "std"):
        values = inputs.get(name)
        if (
            not isinstance(values, list)
            or len(values) != channels
            or not all(_is_number(v) for v in values)
        ):
            raise ValueError(
                f"inputs.{name} is {values!r:.80}; needed is one number per channel ({channels})"
            )


def _check_backbone(backbone: dict[str, object], version: int) -> None:
    if version > 1:
        _one_of(backbone.get("dtype"), DTYPES, "backbone.dtype")
    identity = _mapping(backbone.get("identity"), "backbone.identity")
    _text(backbone.get("model"), "backbone.model")
    fingerprint = backbone.get("fingerprint")
    if not isinstance(fingerprint, str) or not re.fullmatch(r"[0-9a-f]{64}", fingerprint):
        raise ValueError(f"backbone.fingerprint is {fingerprint!r:.80}; needed is a SHA-256 in hex")
    for name in ("kind", "source"):
        _text(identity.get(name), f"backbone.identity.{name}")
    for name in ("weights", "tower", "pool", "blocks"):
        if name in identity:
            _text(identity[name], f"backbone.identity.{name}")
    if "seed" in identity:
        _whole(identity["seed"], "backbone.identity.seed", 0, (1 << 63) - 1)
    if "seconds" in identity and not (
        _is_number(identity["seconds"]) and 0 < identity["seconds"] <= 3600
    ):
        raise ValueError(
            f"backbone.identity.seconds is {identity['seconds']!r:.80}; needed is a length of up to"
            " an hour"
        )
    options = _mapping(identity.get("options", {}), "backbone.identity.options")
    _plain(options, "backbone.identity.options")
    for name, most in (("img_size", MOST_SIDE), ("num_classes", MOST_CLASSES)):
        if name in options:
            _whole(options[name], f"backbone.identity.options.{name}", 0, most)


# one function per kind of value ---------------------------------------------------------
def _mapping(value: object, what: str) -> dict[str, object]:
    if not isinstance(value, dict) or not all(
        isinstance(name, str) and len(name) <= MOST_TEXT for name in value
    ):
        raise ValueError(f"{what} is {value!r:.80}; needed are names with values")
    return value


def _text(value: object, what: str, least: int = 1) -> str:
    if not isinstance(value, str) or not least <= len(value) <= MOST_TEXT:
        raise ValueError(
            f"{what} is {value!r:.80}; needed is a text of {least} to {MOST_TEXT} characters"
        )
    return value


def _one_of(value: object, known: tuple[str, ...], what: str) -> str:
    if not isinstance(value, str) or value not in known:
        raise ValueError(f"{what} is {value!r:.80}; needed is one of {', '.join(known)}")
    return value


def _is_number(value: object) -> TypeGuard[float]:
    return (
        isinstance(value, NUMBER)
        and not isinstance(value, bool)
        and abs(value) <= 1e300
        and math.isfinite(value)
    )


def _whole(value: object, what: str, low: int, high: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise ValueError(f"{what} is {value!r:.80}; needed is a whole number from {low} to {high}")
    return value


def _names(values: object, what: str) -> None:
    if not isinstance(values, list) or len(values) > MOST_CLASSES:
        given = f"{len(values)} of them" if isinstance(values, list) else f"{values!r:.80}"
        raise ValueError(f"{what}: found {given}; needed is a list of at most {MOST_CLASSES}")
    for value in values:
        _text(value, what, 0)


def _plain(value: object, what: str, depth: int = 0, names: bool = False) -> None:
    """Numbers, texts, lists and mappings, not too deep. names: of a config, whose lists of blocks
    and classes are bounded.
    """
    if depth > MOST_DEPTH:
        raise ValueError(f"{what} has values more than {MOST_DEPTH} deep inside one another")
    if isinstance(value, dict):
        for name, inner in _mapping(value, what).items():
            if names and name == "classes" and isinstance(inner, list):
                _names(inner, f"{what}.{name}")
            elif names and name in LISTS and isinstance(inner, list) and len(inner) > LISTS[name]:
                raise ValueError(
                    f"{what}.{name} lists {len(inner)}; needed are at most {LISTS[name]}"
                )
            elif names and name == "classes" and _is_number(inner) and inner > MOST_CLASSES:
                raise ValueError(f"{what}.{name} is {inner}; needed are at most {MOST_CLASSES}")
            else:
                _plain(inner, f"{what}.{name:.40}", depth + 1, names)
    elif isinstance(value, list):
        if names and len(value) > MOST_CLASSES:
            raise ValueError(f"{what} lists {len(value)}; needed are at most {MOST_CLASSES}")
        for inner in value:
            _plain(inner, what, depth + 1, names)
    elif isinstance(value, str):
        if names and len(value) > MOST_TEXT:
            raise ValueError(
                f"{what} is a text of {len(value)} characters; needed are at most {MOST_TEXT}"
            )
    elif value is not None and not isinstance(value, bool) and names and not _is_number(value):
        raise ValueError(f"{what} is {value!r:.80}; needed is a finite number")
