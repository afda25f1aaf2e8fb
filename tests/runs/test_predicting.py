"""What a model says of files and of what is in memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from families import FORMS, open_tiny
from helpers import write_images
from PIL import Image

import vpt
from vpt.data.readers import reader
from vpt.errors import BadFilesError, DataError, PromptFileError
from vpt.runs import predicting


@pytest.fixture
def model() -> Iterator[vpt.PromptedModel]:
    backbone = open_tiny("timm ViT")
    made = vpt.PromptedModel(
        backbone, FORMS["stack"](backbone), vpt.Linear(32, ["red", "green", "blue"])
    )
    torch.nn.init.normal_(made.readout.weight)
    with made.eval():
        yield made


def test_predictions_are_the_models_own(model: vpt.PromptedModel, tmp_path: Path) -> None:
    files = sorted(write_images(tmp_path, per_class=2, size=32).rglob("*.png"))
    found = vpt.predict(model, tmp_path, top_k=2)
    x = torch.stack([reader(model.backbone.inputs)(f) for f in files]).float() / 255
    expected = torch.softmax(model(x), 1)
    assert [one.name for one in found] == [str(f) for f in files]
    assert [one.label for one in found] == [model.classes[i] for i in expected.argmax(1)]
    for one, shares in zip(found, expected.tolist(), strict=True):
        best = sorted(zip(shares, model.classes, strict=True), reverse=True)[:2]
        assert one.probability == pytest.approx(best[0][0])
        assert one.probabilities == pytest.approx({name: share for share, name in best})
    again = vpt.predict(model, (Image.open(f) for f in files))
    assert [one.name for one in again] == [str(f) for f in files]  # as PIL knows them
    assert [one.label for one in again] == [one.label for one in found]
    assert sum(again[0].probabilities.values()) == pytest.approx(1)
    assert vpt.predict(model, x)[1].name == "number 1"


def test_a_run_is_opened(tmp_path: Path) -> None:
    backbone = vpt.load_backbone("vpt:vit-p8-64")
    with vpt.PromptedModel(backbone, None, vpt.Linear(192, 2)) as made:
        vpt.save(tmp_path / "prompt.vpt", made)
    picture = Image.new("RGB", (80, 70))
    (found,) = vpt.predict(tmp_path, picture)
    assert found.label in ("0", "1")
    assert vpt.predict(tmp_path / "prompt.vpt", picture, backbone=backbone) == [found]
    with pytest.raises(PromptFileError, match="Found no prompt file"):
        vpt.predict(tmp_path / "nowhere", picture)


def test_a_generator_is_read_so_many_at_a_time(
    model: vpt.PromptedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predicting, "CHUNK", 4)
    drawn, most = [0], [0]

    def pictures() -> Iterator[torch.Tensor]:
        for _ in range(10):
            drawn[0] += 1
            yield torch.rand(3, 32, 32)

    real = predicting.scores

    def scored(*args: object, **options: object) -> object:
        most[0] = max(most[0], len(args[1]))
        return real(*args, **options)

    monkeypatch.setattr(predicting, "scores", scored)
    assert len(vpt.predict(model, pictures())) == drawn[0] == 10
    assert most == [4]


def test_bad_input(model: vpt.PromptedModel, tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("hello")
    with pytest.raises(BadFilesError) as caught:
        vpt.predict(model, [tmp_path / "text.png", tmp_path / "missing.png"])
    assert [reason for _, reason in caught.value.bad] == ["not an image", "no such file"]
    with pytest.raises(DataError, match="Found nothing to classify"):
        vpt.predict(model, [])
    with pytest.raises(DataError, match="top_k=0"):
        vpt.predict(model, [tmp_path], top_k=0)
