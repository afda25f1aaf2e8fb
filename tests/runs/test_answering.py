"""What each query answers to, against a look at every place."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from drawings import opened
from families import open_tiny
from helpers import write_images, write_sounds

import vpt
from vpt.errors import DataError, PromptError
from vpt.runs import answering as module
from vpt.runs.answering import draw_answers


def model_on(name: str, queries: bool = True) -> vpt.PromptedModel:
    torch.manual_seed(0)
    backbone = open_tiny(name)
    prompt = vpt.QueryTokens.like(backbone, 2, blocks=[1]) if queries else None
    width = prompt.reads if prompt is not None else backbone.out_features
    readout = vpt.Linear(width, ["red", "blue"], "queries" if queries else "cls")
    torch.nn.init.normal_(readout.weight)
    return vpt.PromptedModel(backbone, prompt, readout)


def test_places_are_those_where_a_query_adds_most(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_images(tmp_path / "d", per_class=3, size=40)
    drawn = []
    monkeypatch.setattr(module, "crops", lambda rows, title: drawn.append(rows) or b"PNG")
    with model_on("timm ViT") as model:
        draw_answers(model, folder, tmp_path)
        files = sorted(p for p in folder.rglob("*.png"))
        slow: list[list[float]] = [[], []]
        for file in files:
            x = model.backbone.inputs.picture(vpt.data.readers.Image.open(file))[None] / 255
            found = vpt.explain(model, x)
            for number in range(2):
                slow[number].append(float(found.queries[0, 0, number].max()))
    (rows,) = drawn
    assert [name for name, _ in rows] == ["block 1\nquery 0", "block 1\nquery 1"]
    for (_, row), values in zip(rows, slow, strict=True):
        said = [float(what.split()[1]) for _, what in row]
        assert said == pytest.approx(sorted(values, reverse=True)[:6], abs=0.006)


def test_sounds_are_cut_out_too(tmp_path: Path) -> None:
    folder = write_sounds(tmp_path / "d", per_class=1)
    with model_on("transformers AST") as model:
        path = draw_answers(model, folder, tmp_path / "out")
    assert path.name == "queries.png"
    assert opened(path.read_bytes()).std() > 5


def test_models_without_queries_and_nothing_at_all_are_refused(tmp_path: Path) -> None:
    with model_on("timm ViT", queries=False) as model, pytest.raises(PromptError, match="queries"):
        draw_answers(model, write_images(tmp_path / "d", per_class=1), tmp_path)
    with model_on("timm ViT") as model, pytest.raises(DataError):
        draw_answers(model, [], tmp_path)
