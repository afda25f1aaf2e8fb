"""Prompt and readout from a header and tensors that go together, and from others."""

from __future__ import annotations

import pytest
import torch
from families import open_tiny
from saved_prompts import saved

import vpt
from vpt import files
from vpt.errors import PromptFileError
from vpt.files.headers import Header
from vpt.files.rebuilding import part_of, rebuild


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> tuple[Header, dict[str, torch.Tensor]]:
    path, _ = saved(open_tiny("timm ViT"), tmp_path_factory.mktemp("saved") / "a.vpt")
    return files.read(path)


def test_what_was_saved_comes_back(parts: tuple[Header, dict[str, torch.Tensor]]) -> None:
    header, tensors = parts
    prompt, readout = rebuild(header, tensors)
    assert isinstance(prompt, vpt.Stack)
    for part, module in (("prompt", prompt), ("readout", readout)):
        needed = part_of(tensors, part)
        assert needed.keys() == module.state_dict().keys()
        assert all(torch.equal(module.state_dict()[name], needed[name]) for name in needed)


def test_tensors_of_another_kind_or_number_are_refused(
    parts: tuple[Header, dict[str, torch.Tensor]],
) -> None:
    header, tensors = parts
    name = next(name for name in tensors if name.startswith("readout."))
    fewer = {key: value for key, value in tensors.items() if key != name}
    with pytest.raises(PromptFileError, match="do not match its header"):
        rebuild(header, fewer)
    with pytest.raises(PromptFileError, match=r"is of type torch\.int64"):
        rebuild(header, tensors | {name: tensors[name].long()})
    with pytest.raises(PromptFileError, match="fit together"):
        rebuild({**header, "readout": {"name": "eval", "config": {}}}, tensors)
