"""Using a run: prediction and evaluation on files, and what they refuse."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from families import FORMS, open_tiny
from helpers import write_images

import vpt
from vpt.errors import BadFilesError, DataError, PromptFileError
from vpt.runs.folder import evaluate_on, inspect, open_run, predict, prompt_file


@pytest.fixture
def model() -> vpt.PromptedModel:
    backbone = open_tiny("timm ViT")
    made = vpt.PromptedModel(
        backbone, FORMS["stack"](backbone), vpt.Linear(32, ["red", "green", "blue"])
    )
    torch.nn.init.normal_(made.readout.weight)
    return made.eval()


def test_predictions_are_the_models_own(model: vpt.PromptedModel, tmp_path: Path) -> None:
    files = sorted(write_images(tmp_path, per_class=2, size=32).rglob("*.png"))
    rows = predict(model, files, top=2)
    from vpt.data.readers import reader

    x = torch.stack([reader(model.backbone.inputs)(f) for f in files]).float() / 255
    expected = torch.softmax(model(x), 1)
    assert [row["class"] for row in rows] == [model.classes[i] for i in expected.argmax(1)]
    assert torch.allclose(
        torch.tensor([row["probability"] for row in rows]), expected.max(1).values, atol=1e-6
    )
    assert all(len(row["top"]) == 2 for row in rows)


def test_bad_files_are_all_named_first(model: vpt.PromptedModel, tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("hello")
    with pytest.raises(BadFilesError) as caught:
        predict(model, [tmp_path / "text.png", tmp_path / "missing.png"])
    assert [reason for _, reason in caught.value.bad] == ["not an image", "no such file"]
    with pytest.raises(DataError, match="no files"):
        predict(model, [])


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
        open_run(tmp_path / "nowhere")


def test_files_of_the_other_kind_are_said_to_be(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(b"x")
    backbone = open_tiny("timm ViT")
    with vpt.PromptedModel(backbone, None, vpt.Linear(backbone.out_features, 2)) as model:
        with pytest.raises(BadFilesError, match="this run takes pictures, and that is sound"):
            predict(model, tmp_path / "a.wav")
        with pytest.raises(DataError, match="top=0"):
            predict(model, [tmp_path / "a.wav"], top=0)
