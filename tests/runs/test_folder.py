"""Using a run: prediction and evaluation on files, and what they refuse."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from families import FORMS, open_tiny
from helpers import write_images

import vpt
from vpt.errors import DataError, PromptFileError
from vpt.files.naming import prompt_file
from vpt.runs.folder import evaluate_on, inspect


@pytest.fixture
def model() -> vpt.PromptedModel:
    backbone = open_tiny("timm ViT")
    made = vpt.PromptedModel(
        backbone, FORMS["stack"](backbone), vpt.Linear(32, ["red", "green", "blue"])
    )
    torch.nn.init.normal_(made.readout.weight)
    return made.eval()


def test_evaluation_takes_the_test_split_and_nothing_else(
    model: vpt.PromptedModel, tmp_path: Path
) -> None:
    write_images(tmp_path / "split" / "train", per_class=3)
    write_images(tmp_path / "split" / "test", per_class=2)
    write_images(tmp_path / "plain", per_class=4)
    assert evaluate_on(model, tmp_path / "split")["n"] == 6
    assert evaluate_on(model, tmp_path / "plain")["n"] == 12
    (tmp_path / "split" / "test").rename(tmp_path / "split" / "val")
    with pytest.raises(DataError, match="no test split"):
        evaluate_on(model, tmp_path / "split")


def test_places(model: vpt.PromptedModel, tmp_path: Path) -> None:
    vpt.save(tmp_path / "prompt.vpt", model)
    assert prompt_file(tmp_path) == prompt_file(tmp_path / "prompt.vpt")
    found = inspect(tmp_path)
    assert "2 pixels wide" in found["acts"]
    assert Path(found["pictures"][0]).name == "prompt-border.png"
    with pytest.raises(PromptFileError, match="Found no prompt file"):
        vpt.load(tmp_path / "nowhere")
