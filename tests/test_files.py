"""Prompt files: the same bytes back, nothing but `PromptFileError` from damage, and old files for ever."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path

import pytest
import torch
from families import FORMS, open_tiny

import vpt
from vpt import files
from vpt.errors import PromptFileError

RELEASED = Path(__file__).parent / "released"


@pytest.fixture(scope="module")
def backbone() -> vpt.Backbone:
    return open_tiny("timm ViT")


def saved(backbone: vpt.Backbone, path: Path, form: str = "stack") -> tuple[Path, torch.Tensor]:
    with vpt.PromptedModel(backbone, FORMS[form](backbone), vpt.Linear(32, ["ä cat", "dög", "☂"])) as model:
        torch.nn.init.normal_(model.readout.weight)
        vpt.save(path, model, trained_on={"n": 3}, scores={"accuracy": 0.5})
        return path, model.eval()(backbone.inputs.example(2))


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
    made = {"identity": vpt.Identity(index=[3, 1]), "nearest": vpt.NearestMean(32, 2), "none": vpt.Identity()}[readout]
    with vpt.PromptedModel(backbone, None, made) as model:
        if readout == "nearest":
            made.update(backbone.features(x), torch.tensor([0, 1, 0, 1]))
        out = model(x)
        vpt.save(tmp_path / "a.vpt", model)
    with vpt.load(tmp_path / "a.vpt", backbone) as model:
        assert torch.equal(model(x), out)


def test_it_reopens_a_bundled_backbone_by_name(tmp_path: Path) -> None:
    bundled = vpt.load_backbone("vpt:vit-p8-64")
    with vpt.PromptedModel(bundled, vpt.DeepTokens.like(bundled, 2), vpt.Linear(192, 3)) as model:
        vpt.save(tmp_path / "a.vpt", model)
        out = model.eval()(bundled.inputs.example(1))
    assert torch.equal(vpt.load(tmp_path / "a.vpt")(bundled.inputs.example(1)), out)


def test_it_reopens_random_weights_from_their_seed(tmp_path: Path) -> None:
    options = {"weights": "random", "seed": 5, "img_size": 32, "num_classes": 4}
    made = vpt.load_backbone("vit_tiny_patch16_224.augreg_in21k", **options)
    with vpt.PromptedModel(made, vpt.ShallowTokens.like(made, 1), vpt.Identity()) as model:
        vpt.save(tmp_path / "a.vpt", model)
    assert vpt.load(tmp_path / "a.vpt").backbone.fingerprint() == made.fingerprint()


def test_wrong_backbone_names_both(backbone: vpt.Backbone, tmp_path: Path) -> None:
    path, _ = saved(backbone, tmp_path / "a.vpt")
    with pytest.raises(PromptFileError, match=r"made for another backbone: .*VisionTransformer.*this is .*VisionTransformer"):
        vpt.load(path, open_tiny("timm ViT", seed=1))
    with pytest.raises(PromptFileError, match="cannot be opened by name alone"):
        vpt.load(path)
    with pytest.raises(vpt.errors.BackboneError, match="load_backbone"):
        vpt.load(path, backbone.model)
    other = vpt.load_backbone(backbone.model, inputs=vpt.Images(size=(32, 32), mean=(0.1,), std=(0.3,)))
    with pytest.raises(PromptFileError, match="made for inputs"):
        vpt.load(path, other)


def rewritten(path: Path, change) -> Path:
    """The same file with another header, its hash made right again: what an attacker can do."""
    header, tensors = files.unpack(path.read_bytes(), "x")
    change(header, tensors)
    path.write_bytes(files.pack(tensors, header))
    return path


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda h, t: h.update(version=2), "version 2"),
        (lambda h, t: h.update(version="1; import os"), "version"),
        (lambda h, t: h.update(format="other"), "needed is a prompt file"),
        (lambda h, t: h["prompt"].update(name="os.system"), "known are"),
        (lambda h, t: h["readout"].update(name="eval"), "fit together"),
        (lambda h, t: h["prompt"]["config"]["prompts"][1]["config"].update(count=4000), "do not match its header"),
        (lambda h, t: h["prompt"]["config"]["prompts"][0]["config"].update(shape=[3, 10**6, 10**6]), "do not match its header"),
        (lambda h, t: h["readout"]["config"].update(features=10**12), "do not match its header"),
        (lambda h, t: h["prompt"]["config"]["prompts"][1]["config"].update(count="3"), "whole number"),
        (lambda h, t: h["prompt"]["config"]["prompts"][1]["config"].update(evil=1), "fit together"),
        (lambda h, t: h["prompt"].pop("config"), "fit together"),
        (lambda h, t: h.update(prompt=[]), "fit together"),
        (lambda h, t: t.pop("readout.bias"), "readout.bias"),
        (lambda h, t: t.update({"readout.extra": torch.zeros(1)}), "readout.extra"),
        (lambda h, t: t.update({"readout.bias": torch.zeros(4)}), "readout.bias"),
        (lambda h, t: h["backbone"].update(identity={"kind": "folder", "source": "/etc"}), "cannot be opened by name"),
        (lambda h, t: h["backbone"].update(identity={"kind": "hub", "source": "../../etc"}), "cannot be opened by name"),
        (
            lambda h, t: h["backbone"].update(identity={"kind": "timm", "source": "vit", "options": {"checkpoint_path": "x"}}),
            "by name",
        ),
        (
            lambda h, t: h["backbone"].update(identity={"kind": "hub", "source": "a/b", "options": {"trust_remote_code": True}}),
            "by name",
        ),
        (lambda h, t: h["backbone"].update(identity=None), "fit together"),
        (lambda h, t: h.pop("backbone"), "fit together"),
    ],
)
def test_forged_headers_are_refused_before_anything_is_allocated(
    backbone: vpt.Backbone, tmp_path: Path, change, message: str
) -> None:
    path, _ = saved(backbone, tmp_path / "a.vpt")
    with pytest.raises(PromptFileError, match=message):
        vpt.load(rewritten(path, change))


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
def test_mutated_files_give_only_prompt_file_errors(backbone: vpt.Backbone, tmp_path: Path, count: int) -> None:
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
    with pytest.raises(PromptFileError, match="cannot be read"):
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


def test_an_interrupted_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"old")
    monkeypatch.setattr(os, "replace", lambda *a: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        files.write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("path", sorted(RELEASED.glob("*.vpt")), ids=lambda p: p.name)
def test_files_of_every_released_format_still_load(path: Path) -> None:
    model = vpt.load(path)  # made for the bundled weights: made anew, by the same format, when those are replaced
    expected = json.loads(path.with_suffix(".json").read_text())
    out = model(model.backbone.inputs.example(2))
    assert torch.allclose(out, torch.tensor(expected["scores"]), atol=1e-4)
    assert model.classes == expected["classes"]


def test_there_is_a_released_file() -> None:
    assert (RELEASED / "version-1.vpt").is_file()
