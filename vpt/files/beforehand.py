"""Queries that were learned beforehand, as a small file: where a new task on the same model begins.

It is a prompt file without a readout, in half precision; any prompt file with queries will do.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from vpt.backbones import Backbone
from vpt.errors import PromptFileError
from vpt.files.headers import Header
from vpt.files.matching import WITNESS, check_backbone
from vpt.files.rebuilding import UNFIT, part_of
from vpt.files.saving import header_of, read, write
from vpt.prompts import Prompt, QueryTokens, build

LENGTHS = ("samples", "frames")  # of what a model of sound hears at a time


def save_queries(
    path: str | Path,
    prompt: QueryTokens,
    backbone: Backbone,
    *,
    trained_on: Mapping[str, object] | None = None,
    scores: Mapping[str, object] | None = None,
) -> Path:
    """Write queries alone to a small file, in half precision.

    prompt: the queries. backbone: which they read. trained_on, scores: plain values kept in the
        header. Raises `PromptFileError` if the place cannot be written.
    """
    header = header_of(backbone, prompt, None, trained_on, scores)
    tensors = {f"prompt.{name}": value.half() for name, value in prompt.state_dict().items()}
    return write(path, header, tensors, backbone)


def load_queries(path: str | Path, backbone: Backbone) -> QueryTokens:
    """The queries of a file of `save_queries`, or of any prompt file or run that has some.

    path: of the file, or a run's folder, or "hf://user/name".
    backbone: which they are to read; it must be the one that they were learned on. A model of
        sound may hear another length of time than it did then.

    Raises `PromptFileError` for an altered file, another prompt, or another backbone.
    """
    header, tensors = read(path)
    found = header["prompt"]["name"]
    if found != QueryTokens.__name__:
        raise PromptFileError(
            f"{path} holds {found}; a new task begins from queries. Needed is a file of queries"
            " learned beforehand, or a prompt file of queries:N."
        )
    needed, given = header["inputs"], backbone.inputs.describe()
    lengths = {name: given[name] for name in LENGTHS if name in given and name in needed}
    other = {name: needed[name] for name in lengths} != lengths
    header = cast(Header, {**header, "inputs": needed | lengths})
    # what a model makes of a fixed input is another thing where it hears another length of time
    witness = tensors.get(WITNESS) if other else None
    check_backbone(header, tensors, backbone, str(path), witness=witness)
    prompt = _queries(header, tensors, str(path))
    if prompt.through:
        raise PromptFileError(
            f"{path} holds queries that go through the rest of their block (through=True); a new"
            " task begins from those that do not."
        )
    return prompt


def _queries(header: Header, tensors: Mapping[str, Tensor], path: str) -> QueryTokens:
    """The prompt of a file. Shapes are compared before anything is allocated."""
    own = part_of(tensors, "prompt")
    try:
        with torch.device("meta"):
            needed = {n: v.shape for n, v in _built(header).state_dict().items()}
        if needed != {name: value.shape for name, value in own.items()}:
            raise ValueError("its tensors are not those that its header speaks of")
        prompt = _built(header)
        prompt.load_state_dict({name: value.float() for name, value in own.items()})
    except UNFIT as error:
        raise PromptFileError(f"{path} does not fit together: {error}") from error
    return cast(QueryTokens, prompt)


def _built(header: Header) -> Prompt:
    return build(header["prompt"]["name"], header["prompt"]["config"])
