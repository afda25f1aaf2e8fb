"""Opening a model by its name: one function per kind of source."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn

from vpt.backbones.inputs.describing import SOUNDS
from vpt.backbones.inputs.image_processors import image_processor, quiet_transformers
from vpt.backbones.shipped import bundled_folder, bundled_names
from vpt.errors import BackboneError
from vpt.errors.places import is_folder
from vpt.sites import Config

LOGGER = logging.getLogger("vpt")


def open_named(
    source: str, kind: str | None, weights: str, seed: int, options: Config
) -> tuple[nn.Module, Config, Config]:
    """(model, identity, facts) of a model opened by name."""
    if "trust_remote_code" in options:
        raise BackboneError("vpt never runs code from a model's repository (trust_remote_code).")
    if kind is not None and kind not in OPENERS:
        raise BackboneError(f"Found kind={kind!r}; needed is one of {', '.join(OPENERS)}, or None.")
    kind = kind or _kind(source)
    identity: Config = {
        "kind": kind,
        "source": source,
        "weights": weights if weights in ("pretrained", "random") else "file",
    }
    identity |= ({"options": options} if options else {}) | (
        {"seed": seed} if weights == "random" else {}
    )
    plain = {
        k: v if isinstance(v, (str, int, float, bool, type(None))) else str(v)
        for k, v in options.items()
    }
    # a class or a function, which no prompt file can name: it then says that the model must be
    # passed
    if plain != options:
        identity |= {"kind": f"{kind}, opened with options of its own", "options": plain}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            model, facts = OPENERS[kind](source, weights == "pretrained", options)
        except (OSError, RuntimeError, ValueError, TypeError, SafetensorError) as error:
            raise BackboneError(f"{source!r} could not be opened: {error}") from error
    if weights not in ("pretrained", "random"):
        _load_weights(model, Path(weights))
    return model, identity, facts


def _kind(source: str) -> str:
    """What kind of name this is. Raises `BackboneError` for none that is known."""
    import timm

    if source.startswith("vpt:"):
        return "bundled"
    if is_folder(source):
        return "folder"
    if "/" not in source and timm.is_model(source):
        return "timm"
    if source.startswith(("timm/", "hf-hub:", "hf_hub:")):
        return "timm-hub"
    if source.count("/") == 1 and not source.startswith(("/", ".", "~")):
        return "hub"
    bundled = [name for name in bundled_names() if name.endswith(f":{source}")]
    near = ", ".join(bundled or timm.list_models(f"{source.split('.')[0][:14]}*")[:4])
    raise BackboneError(
        f"Found no model called {source!r}: not a folder, a timm name, a Hugging Face id"
        " (owner/name) or a bundled name"
        f" ({', '.join(bundled_names())}).{f' Near: {near}.' if near else ''}"
    )


def _open_bundled(source: str, pretrained: bool, options: Config) -> tuple[nn.Module, Config]:
    """A folder in timm's or transformers' own layout, with weights in fp16 that are used in
    fp32.
    """
    if source not in bundled_names():
        raise BackboneError(
            f"Found no bundled backbone {source!r}; there are {', '.join(bundled_names())}."
        )
    return _open_folder(str(bundled_folder(source[4:])), pretrained, options)


def _open_folder(source: str, pretrained: bool, options: Config) -> tuple[nn.Module, Config]:
    """A folder as timm writes it (`architecture` in its config.json), or as transformers does."""
    config = Path(source) / "config.json"
    if config.exists() and "architecture" in json.loads(config.read_text(encoding="utf-8")):
        return _open_timm(f"local-dir:{source}", pretrained, options)
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # from the disk it is a moment
    try:
        return _open_transformers(source, pretrained, options)
    finally:
        if shown:
            logging.enable_progress_bar()


def _open_timm(source: str, pretrained: bool, options: Config) -> tuple[nn.Module, Config]:
    import timm

    if ":" not in source and "/" not in source and not timm.is_model(source):
        raise ValueError("timm has no model of this name")
    name = f"hf-hub:{source}" if source.startswith("timm/") else source
    return timm.create_model(name, pretrained=pretrained, **options), {}


def _open_transformers(source: str, pretrained: bool, options: Config) -> tuple[nn.Module, Config]:
    import transformers

    config = transformers.AutoConfig.from_pretrained(source, trust_remote_code=False)
    architecture = (getattr(config, "architectures", None) or ["AutoModel"])[0]
    named = getattr(transformers, architecture, None) if "Classification" in architecture else None
    auto: Any = named or transformers.AutoModel
    facts = _preprocessor(source)
    if config.model_type not in SOUNDS:
        facts["image_processor"] = image_processor(source)
    # their class token says more than their pooler, where that was trained at all
    if architecture in ("ViTModel", "DeiTModel"):
        options, facts["pool"] = options | {"add_pooling_layer": False}, "first"
    if not pretrained:
        return (
            auto._from_config(config, **options) if named else auto.from_config(config, **options)
        ), facts
    with quiet_transformers():  # whose report names what it leaves out on purpose, too
        model, found = auto.from_pretrained(
            source, config=config, trust_remote_code=False, output_loading_info=True, **options
        )
    if any("pooler" in name for name in found["missing_keys"]):
        model.pooler = None  # nobody trained it
    missing = sorted(name for name in found["missing_keys"] if "pooler" not in name)
    if missing:
        LOGGER.warning(
            "%d weights of %s are not in the checkpoint and are random: %s.",
            len(missing),
            architecture,
            ", ".join(missing[:4]),
        )
    return model, facts


OPENERS = {
    "bundled": _open_bundled,
    "folder": _open_folder,
    "timm": _open_timm,
    "timm-hub": _open_timm,
    "hub": _open_transformers,
}


def _preprocessor(source: str) -> Config:
    """What `preprocessor_config.json` says (mean, std, size, sampling rate), or nothing."""
    from transformers.feature_extraction_utils import FeatureExtractionMixin

    try:
        return FeatureExtractionMixin.get_feature_extractor_dict(source)[0]
    except OSError:
        return {}


def _load_weights(model: nn.Module, path: Path) -> None:
    """Load a file's weights by name, all of them and no others. Raises `BackboneError`."""
    import pickle

    from timm.models import load_checkpoint

    try:
        load_checkpoint(model, str(path), strict=True, weights_only=True)
    except FileNotFoundError as error:
        raise BackboneError(f"Found no weights at {path}.") from error
    except (
        RuntimeError,
        SafetensorError,
        pickle.UnpicklingError,
        KeyError,
        ValueError,
        OSError,
    ) as error:
        reason = (
            "it is no safetensors file, and it holds more than tensors"
            if "weights_only" in str(error)
            else error
        )
        raise BackboneError(
            f"{path} does not hold the weights of {type(model).__name__}: {reason}"
        ) from error
