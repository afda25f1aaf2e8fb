"""Headers of every wrong kind, hashed anew, through every door: `PromptFileError`, or a sound
model.
"""

from __future__ import annotations

import copy
import io
from pathlib import Path
from typing import Any

import pytest
import torch
from families import open_tiny

import vpt
from vpt import cli, files
from vpt.cli import terminal
from vpt.errors import PromptFileError
from vpt.files import headers
from vpt.runs import folder as runs

GONE = object()
VALUES: list[Any] = [
    GONE,
    None,
    True,
    -1,
    0,
    1,
    3,
    2**31,
    2**63,
    10**30,
    1.5,
    float("nan"),
    float("inf"),
    "",
    "x",
    "1e9",
    [],
    [1],
    ["a"],
    {},
    {"a": 1},
    [[[]]],
    "é\u202e\x1b[31m\n",
    "../../x",
]


def places(header: dict[str, Any], before: tuple = ()) -> list[tuple]:
    """The path to every value of a header."""
    found = []
    for name, value in header.items():
        found.append((*before, name))
        if isinstance(value, dict):
            found += places(value, (*before, name))
    return found


def changed(header: dict[str, Any], place: tuple, value: Any) -> dict[str, Any]:
    header = copy.deepcopy(header)
    inner = header
    for name in place[:-1]:
        inner = inner[name]
    if value is GONE:
        inner.pop(place[-1])
    else:
        inner[place[-1]] = value
    return header


def through_the_doors(path: Path, backbone: vpt.Backbone, monkeypatch: pytest.MonkeyPatch) -> int:
    """How many of six doors let it through."""
    passed = 0

    def command(*words: object) -> None:
        out = io.StringIO()
        monkeypatch.setattr(terminal.console, "file", out)
        monkeypatch.setattr(terminal.console, "width", 200)
        cli.app([str(word) for word in words], standalone_mode=False)
        assert not set(out.getvalue()) & set("\x1b\u202e")
        out.getvalue().encode()

    def load() -> None:
        with vpt.load(path, backbone) as model:
            assert bool(torch.isfinite(model(backbone.inputs.example(1))).all())

    def add() -> None:
        with vpt.PromptLibrary(backbone) as library:
            library.add("a", path)
            library(backbone.inputs.example(1), tasks=["a"])

    doors = (
        lambda: files.read(path),
        load,
        lambda: runs.inspect(path, draw=False),
        add,
        lambda: command("inspect", path),
        lambda: command("library", path.parent),
    )
    for door in doors:
        try:
            door()
            passed += 1
        except PromptFileError:
            pass
        finally:
            if backbone.attachment is not None:
                backbone.attachment.remove()
    return passed


@pytest.mark.parametrize("every", [13, pytest.param(1, marks=pytest.mark.long)])
def test_no_door_meets_a_surprise(
    every: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone, path = open_tiny("timm ViT"), tmp_path / "a.vpt"
    with vpt.PromptedModel(
        backbone, vpt.DeepTokens.like(backbone, 2), vpt.Linear(32, ["a", "b", "c"])
    ) as model:
        vpt.save(path, model, trained_on={"n": 3}, scores={"accuracy": 0.5})
    header, tensors = files.unpack(path.read_bytes(), "x")
    assert through_the_doors(path, backbone, monkeypatch) == 6
    cases = [(place, value) for place in places(header) for value in VALUES]
    passed = 0
    for place, value in cases[::every]:
        path.write_bytes(files.pack(tensors, changed(header, place, value)))
        passed += through_the_doors(path, backbone, monkeypatch)
    # most are caught; what passes does no harm (a seed, a note)
    assert passed < 3 * len(cases[::every])


def test_a_description_of_every_input_passes() -> None:
    for name in (
        "timm ViT",
        "transformers wav2vec2",
        "transformers AST",
        "user's keyword transformer",
        "transformers VideoMAE",
    ):
        headers.check_inputs(open_tiny(name).inputs.describe())
