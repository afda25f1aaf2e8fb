"""Files explained: a picture for each, and what each block adds."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from families import open_tiny
from helpers import write_images, write_sounds

import vpt
from vpt.errors import DataError, PromptError
from vpt.runs.overlays import explain_files


def model_on(name: str, queries: bool = True) -> vpt.PromptedModel:
    torch.manual_seed(0)
    backbone = vpt.load_backbone(name) if name.startswith("vpt:") else open_tiny(name)
    prompt = vpt.QueryTokens.like(backbone, 1) if queries else None
    width = prompt.reads if prompt is not None else backbone.out_features
    readout = vpt.Linear(width, ["red", "blue"], "queries" if queries else "cls")
    torch.nn.init.normal_(readout.weight)
    return vpt.PromptedModel(backbone, prompt, readout)


def test_pictures_of_what_speaks_for_the_answer(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "d", per_class=1, size=40)
    with model_on("timm ViT") as model:
        found = explain_files(model, folder, tmp_path / "out")
        said = vpt.predict(model, folder)
        assert [one.label for one in found] == [one.label for one in said]
        assert [one.name for one in found] == [one.name for one in said]
        assert len(found) == 3
        for one in found:
            assert set(one.blocks) == set(model.prompt.blocks)
            assert one.picture.read_bytes().startswith(b"\x89PNG")
        other = explain_files(model, [found[0].name], tmp_path / "out", label="blue")
        assert other[0].label == "blue"
        with pytest.raises(DataError, match="Found no class 'green'; the model has red, blue"):
            explain_files(model, folder, tmp_path / "out", label="green")
        with pytest.raises(DataError, match="nothing to explain"):
            explain_files(model, [], tmp_path / "out")


def test_other_models_are_explained_by_covering_parts(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "d", per_class=1, size=32)
    with model_on("timm ViT", queries=False) as model:
        found = explain_files(model, folder, tmp_path)
    assert found[0].blocks == {}
    assert "covered" in found[0].way


def test_sound_is_shown_as_it_is_heard(tmp_path: Path) -> None:
    folder = write_sounds(tmp_path / "d", per_class=1)
    with model_on("vpt:ast-tiny") as model:
        assert len(explain_files(model, folder, tmp_path / "out")) == 2
    with model_on("vpt:ast-tiny", queries=False) as model, pytest.raises(PromptError):
        explain_files(model, folder, tmp_path / "out")
