"""The backbone of a prompt file, opened again by its name or by another."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from families import open_tiny
from safetensors.torch import save_file
from saved_prompts import rewritten, saved
from timm.models import VisionTransformer
from torch import nn

import vpt
from vpt.errors import PromptFileError


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


def test_a_backbone_of_options_that_no_file_can_name_is_saved_all_the_same(tmp_path: Path) -> None:
    options = {
        "weights": "random",
        "img_size": 32,
        "patch_size": 8,
        "depth": 2,
        "act_layer": nn.ReLU,
    }
    backbone = vpt.load_backbone("vit_tiny_patch16_224", **options)
    with vpt.PromptedModel(backbone, None, vpt.Linear(192, 2)) as model:
        path = vpt.save(tmp_path / "a.vpt", model)
    with pytest.raises(PromptFileError, match="cannot be opened by name alone"):
        vpt.load(path)
    vpt.load(path, backbone).close()


def test_a_timm_name_is_a_timm_name_whatever_lies_in_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path, _ = saved(open_tiny("timm ViT"), tmp_path / "a.vpt")
    make_folder(tmp_path / "evil")
    make_folder(tmp_path / "vit_tiny_patch16_224")
    assert vpt.load_backbone("evil").identity["kind"] == "folder"
    rewritten(path, lambda h, t: h["backbone"].update(identity={"kind": "timm", "source": "evil"}))
    with pytest.raises(vpt.errors.BackboneError, match="timm has no model of this name"):
        vpt.load(path)
    opened = vpt.load_backbone("vit_tiny_patch16_224", kind="timm", weights="random")
    assert (opened.identity["kind"], opened.depth) == ("timm", 12)
    with pytest.raises(vpt.errors.BackboneError, match="kind='pickle'; needed is one of"):
        vpt.load_backbone("evil", kind="pickle")


def test_a_folder_that_is_still_there_is_opened_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_folder(tmp_path / "mine")
    backbone = vpt.load_backbone(str(tmp_path / "mine"))
    with vpt.PromptedModel(backbone, vpt.DeepTokens.like(backbone, 2), vpt.Linear(32, 2)) as model:
        vpt.save(tmp_path / "run" / "prompt.vpt", model)
        expected = model.eval()(backbone.inputs.example(1))
    found = vpt.load(tmp_path / "run")  # a run's folder will do
    assert torch.equal(found(backbone.inputs.example(1)), expected)
    found.close()
    weights = tmp_path / "mine" / "model.safetensors"
    sizes = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2}
    save_file(VisionTransformer(num_classes=3, **sizes).state_dict(), weights)
    with pytest.raises(PromptFileError, match="was made for another backbone"):
        vpt.load(tmp_path / "run")
    (tmp_path / "mine").rename(tmp_path / "elsewhere")
    with pytest.raises(PromptFileError, match="no model is there"):
        vpt.load(tmp_path / "run")


def make_folder(folder: Path) -> None:
    """A model as timm writes it."""
    folder.mkdir()
    sizes = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2}
    cfg = {
        "input_size": [3, 32, 32],
        "num_classes": 3,
        "classifier": "head",
        "first_conv": "patch_embed.proj",
    }
    config = {
        "architecture": "vit_tiny_patch16_224",
        "num_classes": 3,
        "model_args": sizes,
        "pretrained_cfg": cfg,
    }
    (folder / "config.json").write_text(json.dumps(config))
    save_file(VisionTransformer(num_classes=3, **sizes).state_dict(), folder / "model.safetensors")


def test_another_model_that_takes_other_input_is_said_to_be_another(tmp_path: Path) -> None:
    """A prompt for pictures under a model of sound ended in "could not run on inputs
    [B,3,64,64]".
    """
    with vpt.PromptedModel(vpt.load_backbone("vpt:vit-p8-64"), None, vpt.Linear(192, 2)) as model:
        vpt.save(tmp_path / "p.vpt", model)
    with pytest.raises(
        PromptFileError,
        match="was made for vpt:vit-p8-64; vpt:ast-tiny cannot be opened in its place",
    ):
        vpt.load(tmp_path / "p.vpt", "vpt:ast-tiny")
