"""Whether a backbone is the one that a file was made for: its weights, its inputs, and what it
computes.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

import torch
from torch import Tensor

from vpt.backbones import Backbone, Images
from vpt.errors import BackboneError, PromptFileError
from vpt.files.headers import Header

# the name of what the backbone makes of a fixed input, among the tensors
WITNESS = "backbone.witness"
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
# relative differences that are still rounding: fp32 sums in another order are 1e-6 apart, TF32
# 1e-3, half precision 1e-2
TOLERANCE = 1e-4
GPU_TOLERANCE = 1e-2
HALF_TOLERANCE = 0.1
LOGGER = logging.getLogger("vpt")


def check_backbone(
    header: Header,
    tensors: Mapping[str, Tensor],
    backbone: Backbone,
    path: str,
    fingerprint: str | None = None,
    witness: Tensor | None = None,
) -> None:
    """Raise `PromptFileError` for a file that was made for other weights, another function of them,
    or other inputs.

    header: of the file.
    tensors: of the file.
    backbone: the one at hand.
    path: what the file is called, for people.
    fingerprint: the backbone's, if at hand.
    witness: the backbone's, if at hand.
    """
    if not isinstance(backbone, Backbone):
        raise BackboneError(
            f"Found {type(backbone).__name__} as backbone; needed is vpt.load_backbone(model)."
        )
    made_for = header["backbone"]
    fingerprint = fingerprint or backbone.fingerprint()
    if made_for["fingerprint"] != fingerprint:
        raise PromptFileError(
            f"{path} was made for another backbone: {made_for['identity'].get('source')}"
            f" ({made_for['model']}, weights {made_for['fingerprint'][:12]}…); this is"
            f" {backbone.identity.get('source')} ({type(backbone.model).__name__}, weights"
            f" {fingerprint[:12]}…)."
        )
    _check_inputs(header, backbone, path)
    if header["version"] == 1:
        LOGGER.warning(
            "%s is of format version 1: of its backbone only the weights can be compared.", path
        )
    else:
        _check_witness(header, tensors, backbone, path, witness)


def _check_inputs(header: Header, backbone: Backbone, path: str) -> None:
    """Raise `PromptFileError` where a file was made for other input: its prompt was learned on
    that, and is used on that.
    """
    needed, given = header["inputs"], backbone.inputs.describe()
    # it knew less of how pictures are prepared
    if header["version"] == 1 and needed["kind"] == "image":
        needed = Images.described(needed).describe() | needed
    changed = {name: needed[name] for name in needed if needed.get(name) != given.get(name)}
    if not changed:
        return
    if needed["kind"] != given["kind"]:
        how = f"It takes {needed['kind']}, this backbone {given['kind']}."
    elif changed.keys() & {"samples", "frames"} and needed["kind"] == "sound":
        how = (
            f"Say the same length: seconds={needed['samples'] / needed['sample_rate']:g}"
            " (--seconds)."
        )
    else:
        words = " ".join(f"--inputs {name}={_text(value)}" for name, value in changed.items())
        how = f"Open it as it was: vpt.load_backbone(…, inputs={changed}), or {words}."
    what = ", ".join(
        f"{name} {_text(given.get(name))} instead of {_text(value)}"
        for name, value in changed.items()
    )
    raise PromptFileError(f"{path} was made for other inputs; this backbone has {what}. {how}")


def _text(value: object) -> str:
    return ",".join(
        f"{part:.6g}" if isinstance(part, float) else str(part)
        for part in (value if isinstance(value, list) else [value])
    )


def _check_witness(
    header: Header,
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
    if witness is None:
        witness = backbone.witness()
    difference = None
    if witness.shape == needed.shape:
        norm = needed.float().norm().clamp_min(1e-12)
        off = float((witness - needed.float()).norm() / norm)
        # NaN is no rounding either
        if not off <= tolerance(backbone, header["backbone"]["dtype"]):
            difference = f"its answer to a fixed input differs by {off:.2%}"
    else:
        difference = "its features have another width"
    if difference is not None:
        raise PromptFileError(
            f"{path} was made for a model of the same weights that computes something else:"
            f" {difference}. Look at the activation, the number of heads, pooling (pool=…) and"
            " hooks of the model, and open it as it was when the prompt was learned."
        )


def tolerance(backbone: Backbone, dtype: str) -> float:
    """How far two runs of one model may be apart, relative: rounding of half precision, TF32 on a
    GPU, or of fp32.
    """
    if dtype != "float32" or backbone.dtype != torch.float32:
        return HALF_TOLERANCE
    return TOLERANCE if backbone.device.type == "cpu" else GPU_TOLERANCE
