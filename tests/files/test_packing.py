"""The bytes of a file: the same for the same input, and whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from vpt import files
from vpt.errors import PromptFileError


def test_the_same_input_gives_the_same_bytes_and_comes_back() -> None:
    tensors = {"b": torch.arange(3), "a": torch.ones(2, 2)}
    data = files.pack(tensors, {"z": 1, "a": ["é"]})
    assert data == files.pack(tensors, {"a": ["é"], "z": 1})
    header, back = files.unpack(data, "x")
    assert header == {"z": 1, "a": ["é"]}
    assert all(torch.equal(back[name], value) for name, value in tensors.items())


def test_what_was_altered_cut_or_never_packed_is_refused() -> None:
    data = files.pack({"a": torch.ones(2)}, {"z": 1})
    for wrong, message in (
        (data[:-1] + b"x", "altered or damaged"),
        (data[:40], "cut short"),
        (b"", "not a sound vpt file"),
    ):
        with pytest.raises(PromptFileError, match=message):
            files.unpack(wrong, "x")


def test_an_interrupted_write_keeps_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"old")
    monkeypatch.setattr(os, "replace", lambda *a: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        files.write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a"]
