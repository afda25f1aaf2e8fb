"""The backbone that a file was made for, opened again: only by names that can do no harm."""

from __future__ import annotations

import re
from pathlib import Path

from vpt.backbones import Backbone, Images, load_backbone
from vpt.errors import BackboneError, InputError, PromptFileError
from vpt.errors.places import is_file, is_there
from vpt.files.headers import Header
from vpt.sites import Config

# what a file may name to have its backbone opened again: never an import or remote code
REOPENED = {
    "bundled": re.compile(r"vpt:[a-z0-9-]{1,60}"),
    "timm": re.compile(r"[A-Za-z0-9_]{1,100}(\.[A-Za-z0-9_]{1,100})?"),
    "timm-hub": re.compile(
        r"(timm/|hf-hub:|hf_hub:)[A-Za-z0-9_.-]{1,100}(/[A-Za-z0-9_.-]{1,100})?"
    ),
    "hub": re.compile(r"[A-Za-z0-9_.-]{1,100}/[A-Za-z0-9_.-]{1,100}"),
}
OPTIONS = {"num_classes": int, "img_size": int, "global_pool": str, "attn_implementation": str}


def reopen(
    header: Header,
    named: str | Path | None = None,
    *,
    dtype: str | None = None,
    seconds: float | None = None,
) -> Backbone:
    """The backbone that a file names, if the name is of a kind that may be opened, or the one that
    the user names instead.

    Raises `PromptFileError`.
    """
    identity = header["backbone"]["identity"]
    settings: Config = {
        name: identity[name] for name in ("seed", "seconds", "pool", "blocks") if name in identity
    }
    settings |= {"dtype": dtype, "inputs": _inputs(header["inputs"])}
    if seconds is not None:
        settings["seconds"] = seconds
    if named is not None:
        return _open_instead(named, str(identity["source"]), settings)
    kind, source = identity["kind"], str(identity["source"])
    weights = identity.get("weights", "pretrained")
    options = identity.get("options", {})
    known = weights in ("pretrained", "random") and (
        _is_here(source)
        if kind == "folder"
        else kind in REOPENED and REOPENED[kind].fullmatch(source)
    )
    plain = all(name in OPTIONS and type(value) is OPTIONS[name] for name, value in options.items())
    if not known or not plain or (kind == "hub" and is_there(source)):
        raise PromptFileError(
            f"This prompt was made for {source} ({kind}, weights: {weights}), which"
            f" cannot be opened by name alone{': no model is there' if kind == 'folder' else ''}."
            " Open it and pass it: vpt.load(path, backbone=vpt.load_backbone(…)), or --backbone"
            " (of vpt audit: --model) on the command line."
        )
    if kind == "folder":
        return _open_instead(source, source, settings | {"weights": weights} | options)
    return load_backbone(source, kind=kind, weights=weights, **settings, **options)


def _is_here(source: str) -> bool:
    """Whether a model's folder is on this machine. What it holds is data alone, and is compared
    with the file's fingerprint once it is open.
    """
    elsewhere = source.replace("\\", "/").startswith("//")  # another machine's share
    return not elsewhere and is_file(Path(source) / "config.json")


def _open_instead(named: str | Path, source: str, settings: Config) -> Backbone:
    """The backbone that the user names. source: what the file names."""
    if not isinstance(named, (str, Path)):
        raise BackboneError(
            f"Found {type(named).__name__} as backbone; needed is a name, or"
            " vpt.load_backbone(model)."
        )
    try:
        return load_backbone(named, **settings)
    except (BackboneError, InputError) as error:
        raise PromptFileError(
            f"This prompt was made for {source}; {named} cannot be opened in its place: {error}"
        ) from error


def _inputs(inputs: Config) -> Images | Config:
    """What a file says of its input, as `load_backbone` takes it: all of an image's preparation,
    the statistics of sound.
    """
    if inputs["kind"] == "image":
        return Images.described(inputs)
    return {
        name: inputs[name]
        for name in ("mean", "std", "scale", "normalized", "masked")
        if name in inputs
    }
