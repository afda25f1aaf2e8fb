"""One small file is the product of a run: safetensors with a JSON header, and a SHA-256 over all of
it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import cast

from torch import Tensor

from vpt.backbones import Backbone
from vpt.errors import PromptFileError
from vpt.files.headers import VERSION, Header, Part, check_header
from vpt.files.matching import FLOATS, WITNESS, check_backbone
from vpt.files.naming import prompt_file
from vpt.files.packing import file_bytes, pack, unpack, write_atomically
from vpt.files.rebuilding import UNFIT, part_of, rebuild
from vpt.files.reopening import reopen
from vpt.model import PromptedModel
from vpt.prompts import Prompt
from vpt.readouts import Readout


def save(
    path: str | Path,
    model: PromptedModel,
    *,
    trained_on: Mapping[str, object] | None = None,
    scores: Mapping[str, object] | None = None,
) -> Path:
    """Write prompt and readout, with all that is needed to use them again, to one file.

    trained_on, scores: plain values kept in the header. Raises `PromptFileError` if the place
        cannot be written, or for values that a header cannot hold.
    """
    header = header_of(model.backbone, model.prompt, model.readout, trained_on, scores)
    header |= {"exact": model.via, "classes": model.classes}
    return write(path, header, learned(model), model.backbone)


def header_of(
    backbone: Backbone,
    prompt: Prompt,
    readout: Readout | None,
    trained_on: Mapping[str, object] | None = None,
    scores: Mapping[str, object] | None = None,
) -> Header:
    """What a prompt file says of a prompt and a readout for a backbone, with classes that have no
    names.

    backbone: which they are for.
    prompt: that was learned.
    readout: on top of it; None for a prompt of no task.
    trained_on: as for `save`.
    scores: as for `save`.
    """
    return {
        "format": "vpt-prompt",
        "version": VERSION,
        "prompt": _described(prompt),
        "readout": _described(readout) if readout else {"name": "Readout", "config": {}},
        "classes": None,
        "inputs": backbone.inputs.describe(),
        "backbone": {
            "identity": backbone.identity,
            "model": type(backbone.model).__name__,
            "fingerprint": backbone.fingerprint(),
            "dtype": str(backbone.dtype).removeprefix("torch."),
        },
        "trained_on": dict(trained_on or {}),
        "scores": dict(scores or {}),
    }


def write(
    path: str | Path, header: Header, tensors: Mapping[str, Tensor], backbone: Backbone
) -> Path:
    """Write what was learned to one file, with a witness of the backbone. Raises
    `PromptFileError`.
    """
    path = Path(path)
    try:
        check_header(json.loads(json.dumps(header)))
        data = pack({**tensors, WITNESS: backbone.witness()}, header)
    except (TypeError, ValueError) as error:
        raise PromptFileError(
            f"This cannot be kept in a prompt file: {error}; needed are plain values."
        ) from error
    write_atomically(path, data)
    return path


def _described(part: Prompt | Readout) -> Part:
    return {"name": type(part).__name__, "config": part.config()}


def learned(model: PromptedModel) -> dict[str, Tensor]:
    """Everything learned, by name: "prompt.…" and "readout.…"."""
    return {
        f"{part}.{name}": value
        for part, module in (("prompt", model.prompt), ("readout", model.readout))
        for name, value in module.state_dict().items()
    }


def learned_copy(model: PromptedModel) -> dict[str, Tensor]:
    """A copy on the CPU of what `learned` gives, to `restore` later."""
    return {name: value.detach().cpu().clone() for name, value in learned(model).items()}


def restore(model: PromptedModel, tensors: Mapping[str, Tensor]) -> None:
    """Put back what `learned` gave."""
    for part, module in (("prompt", model.prompt), ("readout", model.readout)):
        module.load_state_dict(part_of(tensors, part))


def read(path: str | Path) -> tuple[Header, dict[str, Tensor]]:
    """(header, tensors) of a prompt file, or of the one in a run's folder or in "hf://user/name",
    checked for soundness, version and shape of the header. Raises `PromptFileError`.
    """
    path = prompt_file(path)
    header, tensors = unpack(file_bytes(path), str(path))
    try:
        check_header(header)
    except ValueError as error:
        raise PromptFileError(f"{path} cannot be used: {error}.") from error
    if not all(value.isfinite().all() for value in tensors.values() if value.dtype in FLOATS):
        raise PromptFileError(f"{path} cannot be used: it holds NaN or infinite numbers.")
    return cast(Header, header), tensors


def load(
    path: str | Path,
    backbone: Backbone | str | Path | None = None,
    *,
    dtype: str | None = None,
    seconds: float | None = None,
) -> PromptedModel:
    """A saved prompt and readout on their backbone, which is opened again by its recorded name
    unless it is passed.

    path: of a prompt file, or a run's folder, or "hf://user/name" of the Hugging Face hub, with
        "@revision" (a branch, a tag or a commit) behind it where one is meant; nothing but the
        prompt file is fetched. backbone: an open one, or the name or folder to open it by. dtype:
        of its weights, as for `vpt.load_backbone`. seconds: clip length, if another than the file
        says is meant. Input is prepared as the file says. Raises `PromptFileError` for an altered
        file, an unknown version, shapes that do not agree, another backbone, or a repository that
        cannot be had.
    """
    header, tensors = read(path)
    prompt, readout = rebuild(header, tensors)
    try:
        if not isinstance(backbone, Backbone):
            backbone = reopen(header, backbone, dtype=dtype, seconds=seconds)
        check_backbone(header, tensors, backbone, str(path))
        return PromptedModel(backbone, prompt, readout, via=header.get("exact", "insert")).eval()
    except UNFIT as error:
        raise PromptFileError(f"{path} does not fit together: {error}") from error
