"""Opening a frozen model: a timm name, a transformers id or folder, a bundled name, or a module you
hold.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from vpt.backbones.base import Backbone
from vpt.backbones.check import check
from vpt.backbones.finding.fingerprints import fingerprint_of
from vpt.backbones.finding.strangers import foreign_hooks
from vpt.backbones.finding.towers import open_tower
from vpt.backbones.inputs.ast import is_ast, resized_positions
from vpt.backbones.inputs.describing import SOUNDS, class_names, describe_inputs, suited_length
from vpt.backbones.inputs.extractors import is_whisper, short_whisper
from vpt.backbones.inputs.image_processors import image_processor, quiet_transformers
from vpt.backbones.inputs.sound import Sound
from vpt.backbones.inputs.waveform import InputSpec
from vpt.backbones.precision import half_of, say_if_slow, suited_dtype, wanted_dtype
from vpt.backbones.shipped import bundled_folder, recorded
from vpt.errors import BackboneError
from vpt.errors.places import is_folder

# classes that the project's own tests put through `check`; any other is checked when it is opened
SEEN = {
    "timm.models": {
        "vision_transformer.VisionTransformer",
        "deit.VisionTransformerDistilled",
        "beit.Beit",
        "eva.Eva",
        "cait.Cait",
        "swin_transformer.SwinTransformer",
    },
    "transformers.models": {
        "vit.modeling_vit.ViTModel",
        "vit.modeling_vit.ViTForImageClassification",
        "audio_spectrogram_transformer.modeling_audio_spectrogram_transformer.ASTModel",
        "audio_spectrogram_transformer.modeling_audio_spectrogram_transformer.ASTForAudioClassification",
        "deit.modeling_deit.DeiTForImageClassificationWithTeacher",
        "dinov2.modeling_dinov2.Dinov2ForImageClassification",
        "dinov2_with_registers.modeling_dinov2_with_registers.Dinov2WithRegistersModel",
        "dinov3_vit.modeling_dinov3_vit.DINOv3ViTModel",
        "clip.modeling_clip.CLIPVisionModel",
        "siglip.modeling_siglip.SiglipVisionModel",
        "beit.modeling_beit.BeitForImageClassification",
        "swin.modeling_swin.SwinForImageClassification",
        "wav2vec2.modeling_wav2vec2.Wav2Vec2ForSequenceClassification",
        "hubert.modeling_hubert.HubertModel",
        "whisper.modeling_whisper.WhisperEncoder",
        "videomae.modeling_videomae.VideoMAEForVideoClassification",
        "clap.modeling_clap.ClapAudioModel",
    },
    "torchvision.models": {
        "vision_transformer.VisionTransformer",
        "swin_transformer.SwinTransformer",
    },
}
SEEN_PARTS = {
    "Attention",
    "Block",
    "LayerScaleBlock",
    "TalkingHeadAttn",
    "EvaAttention",
    "EvaBlock",
    "SwinTransformerBlock",
    "WindowAttention",
    "MultiheadAttention",
    "ShiftedWindowAttention",
    "EncoderBlock",
    "ASTAttention",
    "ASTLayer",
    "BeitAttention",
    "BeitLayer",
    "ClapAudioAttention",
    "ClapAudioLayer",
    "CLIPAttention",
    "CLIPEncoderLayer",
    "DeiTAttention",
    "DeiTLayer",
    "Dinov2Attention",
    "Dinov2Layer",
    "Dinov2WithRegistersAttention",
    "Dinov2WithRegistersLayer",
    "DINOv3ViTAttention",
    "DINOv3ViTLayer",
    "HubertAttention",
    "HubertEncoderLayer",
    "SiglipAttention",
    "SiglipEncoderLayer",
    "SwinAttention",
    "SwinLayer",
    "VideoMAEAttention",
    "VideoMAELayer",
    "ViTAttention",
    "ViTLayer",
    "Wav2Vec2Attention",
    "Wav2Vec2EncoderLayerStableLayerNorm",
    "WhisperAttention",
    "WhisperEncoderLayer",
}
LOGGER = logging.getLogger("vpt")
LIBRARIES = ("timm", "transformers", "torchvision")
STOCK = ("torch.nn.", "timm.", "transformers.", "torchvision.")
SEEN_NAMES = {f"{package}.{name}" for package, names in SEEN.items() for name in names}


def load_backbone(
    source: str | Path | nn.Module,
    *,
    kind: str | None = None,
    weights: str | Path = "pretrained",
    seed: int = 0,
    inputs: InputSpec | Mapping[str, Any] | None = None,
    seconds: float | None = None,
    blocks: str | None = None,
    pool: str | None = None,
    classes: Sequence[str] | None = None,
    dtype: str | None = None,
    clips: float | None = None,
    **options: Any,
) -> Backbone:
    """Open a model as a frozen `Backbone`.

    source: a timm name with its tag ("vit_base_patch16_224.augreg_in21k"), a Hugging Face id
        ("google/vit-base-patch16-224"), a local folder (timm's or transformers' layout), a bundled
        name ("vpt:vit-p8-64"), or an `nn.Module`. Of a model with several towers (CLIP, CLAP,
        Whisper), the one that fits the input is opened, and is named.
    kind: "timm", "timm-hub", "hub", "folder" or "bundled", where a name could be several of these;
        a folder comes first.
    weights: "pretrained", "random" (drawn from `seed`), or a file (safetensors, or a torch
        checkpoint read with weights_only).
    inputs: `vpt.Images`, `vpt.Sound` or `vpt.Waveform` where the model does not say what it takes,
        or a mapping of what to change in what it says ({"mean": (…), "fit": "squash"}).
    seconds: what a model of sound hears at a time.
    clips: how long the clips at hand are, in seconds: where `seconds` is not said, it follows them,
        as far as the model takes it.
    blocks: path of the list of blocks where structure does not show it.
    pool: "first" or "mean" for models that return tokens.
    classes: names of the logits.
    dtype: "fp32", "bf16" or "fp16" to hold the frozen weights in (a prompt stays in fp32, and its
        file fits the weights as they were). Without it a checkpoint in half precision is held in
        fp32 on a CPU, and that is said.
    options: passed to the library that builds the model (num_classes=…, img_size=…,
        attn_implementation=…).

    Raises `BackboneError`, `InputError` for inputs that cannot be, or `BundledFileError` for a
    bundled file that is missing or altered.
    """
    facts: dict[str, Any] = {}
    held = wanted_dtype(dtype)
    for name, value in (("seconds", seconds), ("clips", clips)):
        if value is not None and not (
            isinstance(value, (int, float)) and math.isfinite(value) and value > 0
        ):
            raise BackboneError(f"Found {name}={value!r}; needed is a positive number.")
    if isinstance(source, nn.Module):
        if dtype is not None:
            raise BackboneError(
                "dtype= is for models opened by name: a module you hold would be rounded for good."
                " Give it the precision that you want (module.to(torch.bfloat16)) before it is"
                " opened."
            )
        if options or kind or str(weights) != "pretrained":
            raise BackboneError(
                "kind, weights and library options are for models opened by name; load them into"
                " your module first."
            )
        identity: dict[str, Any]
        model, identity = (
            source,
            {
                "kind": "module",
                "source": f"{type(source).__module__}.{type(source).__qualname__}",
            },
        )
        say_if_slow(half_of(source), f"The weights of this {type(source).__name__} are in")
    else:
        model, identity, facts = _open(str(source), kind, str(weights), seed, options)
    changes, inputs = (inputs, None) if isinstance(inputs, Mapping) else (None, inputs)
    if inputs is not None and not isinstance(inputs, InputSpec):
        raise BackboneError(
            f"Found inputs={inputs!r}; needed is vpt.Images, vpt.Sound or vpt.Waveform, or a"
            " mapping of what to change."
        )
    model, tower = open_tower(model, inputs.kind if inputs is not None else None)
    if seconds is None and clips is not None and inputs is None:
        seconds = suited_length(model, facts, clips)
    said = {"tower": tower, "seconds": seconds, "pool": pool, "blocks": blocks}
    identity |= {name: value for name, value in said.items() if value is not None}
    inputs = inputs or facts.get("inputs") or describe_inputs(model, facts, seconds, changes)
    if seconds is not None and inputs.kind == "image":
        raise BackboneError(
            f"seconds= is for models of sound; {type(model).__name__} takes pictures."
        )
    overrides, settings = _for_length(model, inputs)
    stored = None
    by_name = not isinstance(source, nn.Module)
    if (
        by_name
        and half_of(model) is not None
        and (held or suited_dtype(model, str(source))) == torch.float32
    ):
        stored = fingerprint_of(model, inputs)
        model = model.float()
    backbone = Backbone(
        model,
        inputs,
        identity=identity,
        class_names=classes or facts.get("class_names") or class_names(model),
        blocks=blocks,
        pool=pool or facts.get("pool"),
        overrides=overrides,
        settings=settings,
    )
    backbone.look_again = _check_again
    if foreign_hooks(model.modules()) or not _seen(backbone):
        _check_again(backbone)
    if stored is not None:
        backbone.came_from(stored)
    say_if_slow(held, "The weights are held in")
    if held not in (None, backbone.dtype):
        backbone.round_weights(held)
    return backbone


def _for_length(
    model: nn.Module, inputs: InputSpec
) -> tuple[dict[str, Tensor], dict[tuple[str, str], Any]]:
    """What a model of sound is given during a forward of clips of another length than its own:
    (tensors, settings).
    """
    if isinstance(inputs, Sound) and is_ast(model):
        return resized_positions(model, inputs.frames), {}
    if isinstance(inputs, Sound) and is_whisper(model):
        return short_whisper(model, inputs.frames)
    return {}, {}


def _check_again(backbone: Backbone) -> None:
    """Let the backbone refuse the forms that fail the six checks, as it is now."""
    backbone.reach.refused = {}
    check(backbone).refuse_failed(backbone)


def _seen(backbone: Backbone) -> bool:
    """Whether the tests check this class, with these blocks and settings, and nothing in it was
    exchanged (for int8, by peft).
    """
    model, parts = (
        backbone.model,
        {type(part) for b in backbone.blocks for part in (b.module, b.attention)},
    )
    known = all(
        part.__name__ in SEEN_PARTS and part.__module__.split(".")[0] in (*LIBRARIES, "torch")
        for part in parts
    )
    stock = all(type(part).__module__.startswith(STOCK) for part in model.modules())
    plain = stock and not getattr(
        getattr(model, "config", None), "use_weighted_layer_sum", False
    )  # it stacks what every block gave
    return f"{type(model).__module__}.{type(model).__name__}" in SEEN_NAMES and known and plain


def bundled() -> dict[str, dict[str, Any]]:
    """The backbones that ship with the package: name → summary, licence, classes (their number),
    bytes, card (its path).

    Raises `BundledFileError`.
    """
    found = {}
    for name in _bundled_names():
        folder = bundled_folder(name[4:])
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        classes = len(config.get("label_names") or config.get("id2label"))
        size = (folder / "model.safetensors").stat().st_size
        found[name] = config["vpt"] | {
            "classes": classes,
            "bytes": size,
            "card": folder / "README.md",
        }
    return found


def _bundled_names() -> list[str]:
    return [
        f"vpt:{file.split('/')[0]}" for file in recorded() if file.endswith("/model.safetensors")
    ]


# one function per kind of source --------------------------------------------------------
def _open(
    source: str, kind: str | None, weights: str, seed: int, options: dict[str, Any]
) -> tuple[nn.Module, dict[str, Any], dict[str, Any]]:
    """(model, identity, facts) of a model opened by name."""
    if "trust_remote_code" in options:
        raise BackboneError("vpt never runs code from a model's repository (trust_remote_code).")
    if kind is not None and kind not in OPENERS:
        raise BackboneError(f"Found kind={kind!r}; needed is one of {', '.join(OPENERS)}, or None.")
    kind = kind or _kind(source)
    identity: dict[str, Any] = {
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
    near = ", ".join(timm.list_models(f"{source.split('.')[0][:14]}*")[:4])
    raise BackboneError(
        f"Found no model called {source!r}: not a folder, a timm name, a Hugging Face id"
        " (owner/name) or a bundled name"
        f" ({', '.join(_bundled_names())}).{f' Near: {near}.' if near else ''}"
    )


def _open_bundled(
    source: str, pretrained: bool, options: dict[str, Any]
) -> tuple[nn.Module, dict[str, Any]]:
    """A folder in timm's or transformers' own layout, with weights in fp16 that are used in
    fp32.
    """
    if source not in _bundled_names():
        raise BackboneError(
            f"Found no bundled backbone {source!r}; there are {', '.join(_bundled_names())}."
        )
    return _open_folder(str(bundled_folder(source[4:])), pretrained, options)


def _open_folder(
    source: str, pretrained: bool, options: dict[str, Any]
) -> tuple[nn.Module, dict[str, Any]]:
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


def _open_timm(
    source: str, pretrained: bool, options: dict[str, Any]
) -> tuple[nn.Module, dict[str, Any]]:
    import timm

    if ":" not in source and "/" not in source and not timm.is_model(source):
        raise ValueError("timm has no model of this name")
    name = f"hf-hub:{source}" if source.startswith("timm/") else source
    return timm.create_model(name, pretrained=pretrained, **options), {}


def _open_transformers(
    source: str, pretrained: bool, options: dict[str, Any]
) -> tuple[nn.Module, dict[str, Any]]:
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


def _preprocessor(source: str) -> dict[str, Any]:
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
