"""Prompt files: the same bytes back, nothing but `PromptFileError` from damage, and old files for
ever.
"""

from __future__ import annotations

import json
import os
import random
from pathlib import Path

import pytest
import torch
from families import FORMS, open_tiny
from saved_prompts import rewritten, saved

import vpt
from vpt.errors import PromptFileError
from vpt.runs import folder as runs

RELEASED = Path(__file__).parent / "released"


@pytest.fixture(scope="module")
def backbone() -> vpt.Backbone:
    return open_tiny("timm ViT")


@pytest.mark.parametrize("form", FORMS)
def test_round_trip_is_exact(backbone: vpt.Backbone, tmp_path: Path, form: str) -> None:
    path, out = saved(backbone, tmp_path / "a.vpt", form)
    with vpt.load(path, backbone) as model:
        assert torch.equal(model(backbone.inputs.example(2)), out)
        assert model.classes == ["ä cat", "dög", "☂"]
        vpt.save(tmp_path / "b.vpt", model, trained_on={"n": 3}, scores={"accuracy": 0.5})
    assert path.read_bytes() == (tmp_path / "b.vpt").read_bytes()
    assert path.stat().st_size < (130_000 if form == "smm" else 60_000)
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


@pytest.mark.parametrize("readout", ["identity", "nearest", "none"])
def test_other_readouts_round_trip(backbone: vpt.Backbone, tmp_path: Path, readout: str) -> None:
    x = backbone.inputs.example(4)
    made = {
        "identity": vpt.Identity(index=[3, 1]),
        "nearest": vpt.NearestMean(32, 2),
        "none": vpt.Identity(),
    }[readout]
    with vpt.PromptedModel(backbone, None, made) as model:
        if readout == "nearest":
            made.update(backbone.features(x), torch.tensor([0, 1, 0, 1]))
        out = model(x)
        vpt.save(tmp_path / "a.vpt", model)
    with vpt.load(tmp_path / "a.vpt", backbone) as model:
        assert torch.equal(model(x), out)


def deep(levels: int) -> list:
    return [deep(levels - 1)] if levels else []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda h, t: h.update(version=3), "version 3"),
        (lambda h, t: h.update(version="1; import os"), "version"),
        (lambda h, t: h.update(format="other"), "needed is a prompt file"),
        (lambda h, t: h["prompt"].update(name="os.system"), "known are"),
        (lambda h, t: h["readout"].update(name="eval"), "fit together"),
        (
            lambda h, t: h["prompt"]["config"]["prompts"][1]["config"].update(count=4000),
            "do not match its header",
        ),
        (
            lambda h, t: h["prompt"]["config"]["prompts"][0]["config"].update(
                shape=[3, 10**6, 10**6]
            ),
            "do not match its header",
        ),
        (lambda h, t: h["readout"]["config"].update(features=10**12), "do not match its header"),
        (
            lambda h, t: h["prompt"]["config"]["prompts"][1]["config"].update(count="3"),
            "whole number",
        ),
        (lambda h, t: h["prompt"]["config"]["prompts"][1]["config"].update(evil=1), "fit together"),
        (lambda h, t: h["prompt"].pop("config"), "prompt.config is None"),
        (lambda h, t: h.update(prompt=[]), r"prompt is \[\]"),
        (lambda h, t: t.pop("readout.bias"), "readout.bias"),
        (lambda h, t: t.update({"readout.extra": torch.zeros(1)}), "readout.extra"),
        (lambda h, t: t.update({"readout.bias": torch.zeros(4)}), "readout.bias"),
        (
            lambda h, t: h["backbone"].update(identity={"kind": "folder", "source": "/etc"}),
            "cannot be opened by name",
        ),
        (
            lambda h, t: h["backbone"].update(identity={"kind": "hub", "source": "../../etc"}),
            "cannot be opened by name",
        ),
        (
            lambda h, t: h["backbone"].update(
                identity={"kind": "timm", "source": "vit", "options": {"checkpoint_path": "x"}}
            ),
            "by name",
        ),
        (
            lambda h, t: h["backbone"].update(
                identity={"kind": "hub", "source": "a/b", "options": {"trust_remote_code": True}}
            ),
            "by name",
        ),
        (lambda h, t: h["backbone"].update(identity=None), "backbone.identity is None"),
        (lambda h, t: h.pop("backbone"), "backbone is None"),
        (lambda h, t: h["backbone"].update(fingerprint="x"), "needed is a SHA-256"),
        (
            lambda h, t: h["backbone"]["identity"].update(options={"img_size": 20000}),
            "img_size is 20000; needed is a whole number",
        ),
        (lambda h, t: h["backbone"]["identity"].update(seconds=1e9), "of up to an hour"),
        (lambda h, t: h["backbone"]["identity"].update(seed=10**30), "seed is 1000"),
        (lambda h, t: h["inputs"].update(size=[20000, 20000]), r"inputs.size is 20000"),
        (lambda h, t: h["inputs"].update(mean=[0.5]), r"one number per channel \(3\)"),
        (
            lambda h, t: h["prompt"]["config"]["prompts"][2]["config"].update(
                blocks=list(range(10**5))
            ),
            "needed are at most 1024",
        ),
        (lambda h, t: h["readout"]["config"].update(classes=10**10), "needed are at most 100000"),
        (lambda h, t: h.update(classes=["a"] * 100_001), "100001 of them"),
        (lambda h, t: h.update(classes=["x", "y", "z"]), "other classes than its readout"),
        (lambda h, t: h.update(scores={"a": deep(900)}), "more than 16 deep"),
        (lambda h, t: h.update(exact="maybe"), "exact is 'maybe'"),
        (
            lambda h, t: t.update({"readout.bias": torch.full((3,), float("nan"))}),
            "NaN or infinite",
        ),
        (
            lambda h, t: t.update({"readout.bias": torch.zeros(3, dtype=torch.int64)}),
            "is of type torch.int64",
        ),
        (
            lambda h, t: t.update({"readout.bias": torch.zeros(3, dtype=torch.complex64)}),
            "is of type torch.complex64",
        ),
        (
            lambda h, t: t.update({"readout.bias": torch.zeros(3).to(torch.float8_e4m3fn)}),
            "is of type torch.float8_e4m3fn",
        ),
    ],
)
def test_forged_headers_are_refused_before_anything_is_allocated(
    backbone: vpt.Backbone, tmp_path: Path, change, message: str
) -> None:
    path, _ = saved(backbone, tmp_path / "a.vpt")
    with pytest.raises(PromptFileError, match=message):
        vpt.load(rewritten(path, change))


# places ---------------------------------------------------------------------------------


def test_places_that_are_no_plain_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.vpt")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "large.vpt").touch()
    os.truncate(tmp_path / "large.vpt", 3 << 30)  # holes: it takes no room
    for place, message in (
        (tmp_path / "pipe.vpt", "it is no plain file"),
        ("/dev/zero", "it is no plain file"),
        (tmp_path, "there is nothing. Needed is a run's folder"),
        (tmp_path / "loop", "there is nothing"),
        (tmp_path / "large.vpt", "3.2 GB, more than any prompt file"),
        ("a\0b", "there is nothing"),
        ("a" * 5000, "there is nothing"),
    ):
        with pytest.raises(PromptFileError, match=message):
            vpt.load(place)
        with pytest.raises(PromptFileError):
            runs.inspect(place)
    with (
        vpt.PromptedModel(open_tiny("timm ViT"), None, vpt.Identity()) as model,
        pytest.raises(PromptFileError, match="cannot be written"),
    ):
        vpt.save("a\0b.vpt", model)


def mutations(data: bytes, count: int, seed: int) -> list[bytes]:
    draw = random.Random(seed)
    out = []
    for _ in range(count):
        kind, at = draw.randrange(6), draw.randrange(len(data))
        if kind == 0:
            new = data[:at] + bytes([data[at] ^ (1 << draw.randrange(8))]) + data[at + 1 :]
        elif kind == 1:
            new = data[:at]
        elif kind == 2:
            new = data[:at] + draw.randbytes(draw.randrange(1, 64)) + data[at:]
        elif kind == 3:
            new = data[:at] + draw.randbytes(8) + data[at + 8 :]
        elif kind == 4:
            new = draw.randbytes(8) + data[8:]
        else:
            end = min(len(data), at + draw.randrange(1, 200))
            new = data[:at] + data[end:]
        out.append(new if new != data else data + b"\0")
    return out


@pytest.mark.parametrize("count", [2000, pytest.param(10_000, marks=pytest.mark.long)])
def test_mutated_files_give_only_prompt_file_errors(
    backbone: vpt.Backbone, tmp_path: Path, count: int
) -> None:
    path, _ = saved(backbone, tmp_path / "a.vpt")
    data, altered = path.read_bytes(), tmp_path / "b.vpt"
    for new in mutations(data, count, seed=count):
        altered.write_bytes(new)
        with pytest.raises(PromptFileError):
            vpt.load(altered, backbone)


def test_files_that_are_something_else(tmp_path: Path) -> None:
    cases = {
        "empty": b"",
        "short": b"\1",
        "text": b"hello " * 99,
        "nested": (10**5).to_bytes(8, "little") + b"[" * 10**5,
        "zip": b"PK\3\4" * 40,
    }
    for name, data in cases.items():
        path = tmp_path / name
        path.write_bytes(data)
        with pytest.raises(PromptFileError, match=name):
            vpt.load(path)
    with pytest.raises(PromptFileError, match="there is nothing"):
        vpt.load(tmp_path / "missing")
    torch.save({"a": os.getcwd}, tmp_path / "pickle")
    with pytest.raises(PromptFileError):
        vpt.load(tmp_path / "pickle")


def test_a_place_that_cannot_be_written(backbone: vpt.Backbone, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        vpt.PromptedModel(backbone, None, vpt.Identity()) as model,
        pytest.raises(PromptFileError, match="cannot be written"),
    ):
        vpt.save(tmp_path / "file" / "a.vpt", model)


@pytest.mark.parametrize("path", sorted(RELEASED.glob("*.vpt")), ids=lambda p: p.name)
def test_files_of_every_released_format_still_load(path: Path) -> None:
    # made for the bundled weights: made anew, by the same format, when those are replaced
    model = vpt.load(path)
    expected = json.loads(path.with_suffix(".json").read_text())
    out = model(model.backbone.inputs.example(2))
    assert torch.allclose(out, torch.tensor(expected["scores"]), atol=1e-4)
    assert model.classes == expected["classes"]


def test_there_is_a_released_file() -> None:
    assert (RELEASED / "version-1.vpt").is_file()
