"""Prompt and readout as a file's header describes them, with the tensors that it holds."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from vpt.errors import InputError, PromptError, PromptFileError
from vpt.files.headers import Header
from vpt.files.matching import FLOATS, WITNESS
from vpt.prompts import Prompt, build
from vpt.readouts import Readout
from vpt.readouts import build as build_readout

# what parts raise that are made of values which do not go together
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


def rebuild(header: Header, tensors: Mapping[str, Tensor]) -> tuple[Prompt, Readout]:
    """Prompt and readout as they were saved. Raises `PromptFileError`.

    Shapes are compared on the meta device before anything is allocated.
    """
    try:
        return _rebuild(header, tensors)
    except UNFIT as error:
        raise PromptFileError(f"The prompt file does not fit together: {error}") from error


def _rebuild(header: Header, tensors: Mapping[str, Tensor]) -> tuple[Prompt, Readout]:
    with torch.device("meta"):
        prompt, readout = _parts(header)
        needed = {
            f"{part}.{name}": list(value.shape)
            for part, module in (("prompt", prompt), ("readout", readout))
            for name, value in module.state_dict().items()
        }
    shapes = {name: list(value.shape) for name, value in tensors.items() if name != WITNESS}
    if needed != shapes:
        name = min(
            name for name in needed.keys() | shapes.keys() if needed.get(name) != shapes.get(name)
        )
        raise PromptFileError(
            f"Its tensors do not match its header: {name} is {shapes.get(name)}, the header"
            f" says {needed.get(name)}."
        )
    prompt, readout = _parts(header)
    _check_types({"prompt": prompt, "readout": readout}, tensors)
    if readout.classes is not None and header["classes"] != readout.classes:
        raise PromptFileError("Its header names other classes than its readout.")
    prompt.load_state_dict(part_of(tensors, "prompt"))
    readout.load_state_dict(part_of(tensors, "readout"))
    return prompt, readout


def _parts(header: Header) -> tuple[Prompt, Readout]:
    prompt, readout = header["prompt"], header["readout"]
    empty = prompt["name"] == "Prompt"
    if readout["name"] == Readout.__name__:
        raise PromptFileError(
            "It holds queries that were learned beforehand, and no classifier. Begin a task there:"
            " vpt.adapt(…, start=FILE), or vpt adapt … --start FILE."
        )
    return (
        Prompt() if empty else build(prompt["name"], prompt["config"]),
        build_readout(readout["name"], readout["config"]),
    )


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


def part_of(tensors: Mapping[str, Tensor], part: str) -> dict[str, Tensor]:
    """The tensors of one part, "prompt" or "readout", by their names within it."""
    prefix = f"{part}."
    return {
        name.removeprefix(prefix): value
        for name, value in tensors.items()
        if name.startswith(prefix)
    }
