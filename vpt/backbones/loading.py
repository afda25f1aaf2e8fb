"""Opening a frozen model: a timm name, a transformers id or folder, a bundled name, or a module you
hold.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vpt.backbones.base import Backbone
from vpt.backbones.check import check
from vpt.backbones.finding.fingerprints import fingerprint_of
from vpt.backbones.finding.strangers import foreign_hooks
from vpt.backbones.finding.towers import open_tower
from vpt.backbones.inputs.ast import is_ast, resized_positions
from vpt.backbones.inputs.describing import class_names, describe_inputs, suited_length
from vpt.backbones.inputs.extractors import is_whisper, short_whisper
from vpt.backbones.inputs.sound import Sound
from vpt.backbones.inputs.waveform import InputSpec
from vpt.backbones.known import is_known
from vpt.backbones.opening import open_named
from vpt.backbones.precision import half_of, say_if_slow, suited_dtype, wanted_dtype
from vpt.backbones.user_function import made_by, names_function
from vpt.errors import BackboneError
from vpt.sites import Config, Settings


def load_backbone(
    source: str | Path | nn.Module,
    *,
    kind: str | None = None,
    weights: str | Path = "pretrained",
    seed: int = 0,
    inputs: InputSpec | Config | None = None,
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
        name ("vpt:vit-p8-64"), an `nn.Module`, or "module:function", a function of your own
        without arguments that makes one. Of a model with several towers (CLIP, CLAP, Whisper), the
        one that fits the input is opened, and is named.
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
    facts: Config = {}
    held = wanted_dtype(dtype)
    for name, value in (("seconds", seconds), ("clips", clips)):
        if value is not None and not (
            isinstance(value, (int, float)) and math.isfinite(value) and value > 0
        ):
            raise BackboneError(f"Found {name}={value!r}; needed is a positive number.")
    if isinstance(source, str) and kind is None and names_function(source):
        source = made_by(source)
        if isinstance(source, Backbone):
            return _as_made(source, inputs, seconds, dtype)
    by_name = not isinstance(source, nn.Module)
    if isinstance(source, nn.Module):
        _refuse_for_module(dtype, bool(options or kind or str(weights) != "pretrained"))
        model, identity = source, _identity_of(source)
        say_if_slow(half_of(source), f"The weights of this {type(source).__name__} are in")
    else:
        model, identity, facts = open_named(str(source), kind, str(weights), seed, options)
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
    halved = by_name and half_of(model) is not None
    if halved and (held or suited_dtype(model, str(source))) == torch.float32:
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
    if foreign_hooks(model.modules()) or not is_known(backbone):
        _check_again(backbone)
    if stored is not None:
        backbone.came_from(stored)
    say_if_slow(held, "The weights are held in")
    if held not in (None, backbone.dtype):
        backbone.round_weights(held)
    return backbone


def _identity_of(module: nn.Module) -> Config:
    return {
        "kind": "module",
        "source": f"{type(module).__module__}.{type(module).__qualname__}",
    }


def _refuse_for_module(dtype: str | None, others: bool) -> None:
    """What is said of models opened by name cannot be said of a module that someone holds."""
    if dtype is not None:
        raise BackboneError(
            "dtype= is for models opened by name: a module you hold would be rounded for good."
            " Give it the precision that you want (module.to(torch.bfloat16)) before it is"
            " opened."
        )
    if others:
        raise BackboneError(
            "kind, weights and library options are for models opened by name; load them into"
            " your module first."
        )


def _as_made(backbone: Backbone, *said: object) -> Backbone:
    """A backbone that a user's function opened, to which nothing can be added here."""
    if any(value is not None for value in said):
        raise BackboneError(
            "Found inputs, seconds or dtype for a function that gives an open backbone; say them"
            " there: vpt.load_backbone(module, inputs=…)."
        )
    return backbone


def _for_length(model: nn.Module, inputs: InputSpec) -> tuple[dict[str, Tensor], Settings]:
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
