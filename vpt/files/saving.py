"""One small file is the product of a run: safetensors with a JSON header, and a SHA-256 over all of
it.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vpt.backbones import Backbone, Images, load_backbone
from vpt.errors import BackboneError, InputError, PromptError, PromptFileError
from vpt.errors.places import is_there
from vpt.files.headers import check_header
from vpt.files.packing import file_bytes, pack, unpack, write_atomically
from vpt.model import PromptedModel
from vpt.prompts import Prompt, build
from vpt.readouts import Readout
from vpt.readouts import build as build_readout

VERSION = 2
# the name of what the backbone makes of a fixed input, among the tensors
WITNESS = "backbone.witness"
# what a file may name to have its backbone opened again: never a path, an import or remote code
REOPENED = {
    "bundled": re.compile(r"vpt:[a-z0-9-]{1,60}"),
    "timm": re.compile(r"[A-Za-z0-9_]{1,100}(\.[A-Za-z0-9_]{1,100})?"),
    "timm-hub": re.compile(
        r"(timm/|hf-hub:|hf_hub:)[A-Za-z0-9_.-]{1,100}(/[A-Za-z0-9_.-]{1,100})?"
    ),
    "hub": re.compile(r"[A-Za-z0-9_.-]{1,100}/[A-Za-z0-9_.-]{1,100}"),
}
# relative differences that are still rounding: fp32 sums in another order are 1e-6 apart, TF32
# 1e-3, half precision 1e-2
TOLERANCE, GPU_TOLERANCE, HALF_TOLERANCE = 1e-4, 1e-2, 0.1
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
LOGGER = logging.getLogger("vpt")
UNFIT = (
    KeyError,
    TypeError,
    ValueError,
    AttributeError,
    IndexError,
    RuntimeError,
    OverflowError,
    PromptError,
    InputError,
)
OPTIONS = {"num_classes": int, "img_size": int, "global_pool": str, "attn_implementation": str}


def save(
    path: str | Path,
    model: PromptedModel,
    *,
    trained_on: dict[str, Any] | None = None,
    scores: dict[str, Any] | None = None,
) -> Path:
    """Write prompt and readout, with all that is needed to use them again, to one file.

    trained_on, scores: plain values kept in the header. Raises `PromptFileError` if the place
        cannot be written, or for values that a header cannot hold.
    """
    path = Path(path)
    backbone = model.backbone
    header = {
        "format": "vpt-prompt",
        "version": VERSION,
        "prompt": _named(model.prompt),
        "readout": _named(model.readout),
        "exact": model.exact,
        "classes": model.classes,
        "inputs": backbone.inputs.describe(),
        "backbone": {
            "identity": backbone.identity,
            "model": type(backbone.model).__name__,
            "fingerprint": backbone.fingerprint(),
            "dtype": str(backbone.dtype).removeprefix("torch."),
        },
        "trained_on": trained_on or {},
        "scores": scores or {},
    }
    try:
        check_header(json.loads(json.dumps(header)))
        data = pack(learned(model) | {WITNESS: backbone.witness()}, header)
    except (TypeError, ValueError) as error:
        raise PromptFileError(
            f"This cannot be kept in a prompt file: {error}; needed are plain values."
        ) from error
    write_atomically(path, data)
    return path


def _named(part: Prompt | Readout) -> dict[str, Any]:
    return {"name": type(part).__name__, "config": part.config()}


def learned(model: PromptedModel) -> dict[str, Tensor]:
    """Everything learned, by name: "prompt.…" and "readout.…"."""
    return {
        f"{part}.{name}": value
        for part in ("prompt", "readout")
        for name, value in getattr(model, part).state_dict().items()
    }


def learned_copy(model: PromptedModel) -> dict[str, Tensor]:
    """A copy on the CPU of what `learned` gives, to `restore` later."""
    return {name: value.detach().cpu().clone() for name, value in learned(model).items()}


def restore(model: PromptedModel, tensors: Mapping[str, Tensor]) -> None:
    """Put back what `learned` gave."""
    for part in ("prompt", "readout"):
        own = {
            name.removeprefix(f"{part}."): value
            for name, value in tensors.items()
            if name.startswith(f"{part}.")
        }
        getattr(model, part).load_state_dict(own)


def read(path: str | Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """A prompt file's (header, tensors), checked for soundness, version and shape of the header.
    Raises `PromptFileError`.
    """
    if not isinstance(path, (str, Path)):
        raise PromptFileError(
            f"Found {type(path).__name__} where the path of a prompt file should be."
        )
    header, tensors = unpack(file_bytes(Path(path)), str(path))
    try:
        check_header(header)
    except ValueError as error:
        raise PromptFileError(f"{path} cannot be used: {error}.") from error
    if any(not value.isfinite().all() for value in tensors.values() if value.dtype in FLOATS):
        raise PromptFileError(f"{path} cannot be used: it holds NaN or infinite numbers.")
    return header, tensors


def load(
    path: str | Path,
    backbone: Backbone | str | Path | None = None,
    *,
    dtype: str | None = None,
    seconds: float | None = None,
) -> PromptedModel:
    """A saved prompt and readout on their backbone, which is opened again by its recorded name
    unless it is passed.

    backbone: an open one, or the name or folder to open it by. dtype: of its weights, as for
        `vpt.load_backbone`. seconds: clip length, if another than the file says is meant. Input is
        prepared as the file says. Raises `PromptFileError` for an altered file, an unknown version,
        shapes that do not agree, or another backbone.
    """
    header, tensors = read(path)
    prompt, readout = rebuild(header, tensors)
    try:
        if not isinstance(backbone, Backbone):
            backbone = reopen(header, backbone, dtype=dtype, seconds=seconds)
        check_backbone(header, tensors, backbone, str(path))
        return PromptedModel(backbone, prompt, readout, exact=header.get("exact", "insert")).eval()
    except UNFIT as error:
        raise PromptFileError(f"{path} does not fit together: {error}") from error


def rebuild(header: dict[str, Any], tensors: Mapping[str, Tensor]) -> tuple[Prompt, Readout]:
    """Prompt and readout as they were saved. Raises `PromptFileError`.

    Shapes are compared on the meta device before anything is allocated.
    """
    try:
        return _rebuild(header, tensors)
    except UNFIT as error:
        raise PromptFileError(f"The prompt file does not fit together: {error}") from error


def _rebuild(header: dict[str, Any], tensors: Mapping[str, Tensor]) -> tuple[Prompt, Readout]:
    with torch.device("meta"):
        parts = _parts(header)
        expected = {
            f"{n}.{k}": list(v.shape)
            for n, part in parts.items()
            for k, v in part.state_dict().items()
        }
    found = {name: list(value.shape) for name, value in tensors.items() if name != WITNESS}
    if expected != found:
        wrong = sorted(
            name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name)
        )
        raise PromptFileError(
            f"Its tensors do not match its header: {wrong[0]} is {found.get(wrong[0])}, the header"
            f" says {expected.get(wrong[0])}."
        )
    parts = _parts(header)
    _check_types(parts, tensors)
    named = parts["readout"].classes
    if named is not None and header["classes"] != named:
        raise PromptFileError("Its header names other classes than its readout.")
    for name, part in parts.items():
        part.load_state_dict(
            {k.removeprefix(f"{name}."): v for k, v in tensors.items() if k.startswith(f"{name}.")}
        )
    return parts["prompt"], parts["readout"]  # type: ignore[return-value]


def _parts(header: dict[str, Any]) -> dict[str, Prompt | Readout]:
    prompt, readout = header["prompt"], header["readout"]
    empty = prompt["name"] == "Prompt"
    return {
        "prompt": Prompt() if empty else build(prompt["name"], prompt["config"]),
        "readout": build_readout(readout["name"], readout["config"]),
    }


def _check_types(parts: Mapping[str, torch.nn.Module], tensors: Mapping[str, Tensor]) -> None:
    """Raise `PromptFileError` for numbers of another kind than what was learned (whole numbers for
    fractions, say).
    """
    for part, module in parts.items():
        for name, value in module.state_dict().items():
            dtype = tensors[f"{part}.{name}"].dtype
            if dtype != value.dtype and not (dtype in FLOATS and value.dtype in FLOATS):
                raise PromptFileError(
                    f"Its tensor {part}.{name} is of type {dtype}; needed is {value.dtype}."
                )


def reopen(
    header: dict[str, Any],
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
    kind, source, weights = (
        identity["kind"],
        str(identity["source"]),
        identity.get("weights", "pretrained"),
    )
    options = identity.get("options", {})
    kept = {
        name: identity[name] for name in ("seed", "seconds", "pool", "blocks") if name in identity
    }
    kept |= {"dtype": dtype, "inputs": _told_inputs(header["inputs"])} | (
        {"seconds": seconds} if seconds is not None else {}
    )
    if named is not None:
        if not isinstance(named, (str, Path)):
            raise BackboneError(
                f"Found {type(named).__name__} as backbone; needed is a name, or"
                " vpt.load_backbone(model)."
            )
        try:
            return load_backbone(named, **kept)
        except (BackboneError, InputError) as error:
            raise PromptFileError(
                f"This prompt was made for {source}; {named} cannot be opened in its place: {error}"
            ) from error
    known = (
        kind in REOPENED
        and REOPENED[kind].fullmatch(source)
        and weights in ("pretrained", "random")
    )
    plain = all(name in OPTIONS and type(value) is OPTIONS[name] for name, value in options.items())
    if not known or not plain or (kind == "hub" and is_there(source)):
        raise PromptFileError(
            f"This prompt was made for {source} ({kind}, weights: {weights}), which cannot be"
            " opened by name alone. Open it and pass it: vpt.load(path,"
            " backbone=vpt.load_backbone(…)), or --backbone on the command line."
        )
    return load_backbone(source, kind=kind, weights=weights, **kept, **options)


def _told_inputs(inputs: dict[str, Any]) -> Any:
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


def check_backbone(
    header: dict[str, Any],
    tensors: Mapping[str, Tensor],
    backbone: Backbone,
    path: str,
    fingerprint: str | None = None,
    witness: Tensor | None = None,
) -> None:
    """Raise `PromptFileError` for a file that was made for other weights, another function of them,
    or other inputs.

    fingerprint, witness: the backbone's, if at hand.
    """
    if not isinstance(backbone, Backbone):
        raise BackboneError(
            f"Found {type(backbone).__name__} as backbone; needed is vpt.load_backbone(model)."
        )
    made_for, own = header["backbone"], fingerprint or backbone.fingerprint()
    if made_for["fingerprint"] != own:
        raise PromptFileError(
            f"{path} was made for another backbone: {made_for['identity'].get('source')}"
            f" ({made_for['model']}, weights {made_for['fingerprint'][:12]}…); this is"
            f" {backbone.identity.get('source')} ({type(backbone.model).__name__}, weights"
            f" {own[:12]}…)."
        )
    _check_inputs(header, backbone, path)
    if header["version"] == 1:
        LOGGER.warning(
            "%s is of format version 1: of its backbone only the weights can be compared.", path
        )
    else:
        _check_witness(header, tensors, backbone, path, witness)


def _check_inputs(header: dict[str, Any], backbone: Backbone, path: str) -> None:
    """Raise `PromptFileError` where a file was made for other input: its prompt was learned on
    that, and is used on that.
    """
    needed, own = header["inputs"], backbone.inputs.describe()
    # it knew less of how pictures are prepared
    if header["version"] == 1 and needed["kind"] == "image":
        needed = Images.described(needed).describe() | needed
    changed = {name: needed[name] for name in needed if needed.get(name) != own.get(name)}
    if not changed:
        return
    if needed["kind"] != own["kind"]:
        how = f"It takes {needed['kind']}, this backbone {own['kind']}."
    elif changed.keys() & {"samples", "frames"} and needed["kind"] == "sound":
        how = (
            f"Say the same length: seconds={needed['samples'] / needed['sample_rate']:g}"
            " (--seconds)."
        )
    else:
        words = " ".join(f"--inputs {name}={_plain(value)}" for name, value in changed.items())
        how = f"Open it as it was: vpt.load_backbone(…, inputs={changed}), or {words}."
    what = ", ".join(
        f"{name} {_plain(own.get(name))} instead of {_plain(value)}"
        for name, value in changed.items()
    )
    raise PromptFileError(f"{path} was made for other inputs; this backbone has {what}. {how}")


def _plain(value: Any) -> str:
    return ",".join(
        f"{v:.6g}" if isinstance(v, float) else str(v)
        for v in (value if isinstance(value, list) else [value])
    )


def _check_witness(
    header: dict[str, Any],
    tensors: Mapping[str, Tensor],
    backbone: Backbone,
    path: str,
    witness: Tensor | None,
) -> None:
    """Raise `PromptFileError` where the same weights compute something else."""
    needed = tensors.get(WITNESS)
    if needed is None or needed.dtype not in FLOATS:
        raise PromptFileError(
            f"{path} does not say what its backbone makes of a fixed input, as format version 2"
            " does."
        )
    own = backbone.witness() if witness is None else witness
    same_size = own.shape == needed.shape
    off = (
        float((own - needed.float()).norm() / needed.float().norm().clamp_min(1e-12))
        if same_size
        else float("inf")
    )
    if not off <= tolerance(backbone, header["backbone"]["dtype"]):
        found = (
            f"its answer to a fixed input differs by {off:.2%}"
            if same_size
            else "its features have another width"
        )
        raise PromptFileError(
            f"{path} was made for a model of the same weights that computes something else:"
            f" {found}. Look at the activation, the number of heads, pooling (pool=…) and hooks of"
            " the model, and open it as it was when the prompt was learned."
        )


def tolerance(backbone: Backbone, dtype: str) -> float:
    """How far two runs of one model may be apart, relative: rounding of half precision, TF32 on a
    GPU, or of fp32.
    """
    if dtype != "float32" or backbone.dtype != torch.float32:
        return HALF_TOLERANCE
    return TOLERANCE if backbone.device.type == "cpu" else GPU_TOLERANCE
