"""Pictures of the surest mistakes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from drawings import opened
from families import open_tiny
from helpers import colours

import vpt
from vpt.runs import why as module
from vpt.runs.answers import Answers
from vpt.runs.why import draw_why


def model(queries: bool = True) -> vpt.PromptedModel:
    backbone = open_tiny("timm ViT")
    prompt = vpt.QueryTokens.like(backbone, 1) if queries else None
    width = prompt.reads if prompt is not None else backbone.out_features
    readout = vpt.Linear(width, colours(1).classes, "queries" if queries else "cls")
    torch.nn.init.normal_(readout.weight)
    return vpt.PromptedModel(backbone, prompt, readout)


def test_classes_in_another_order_are_told_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    examples, asked = colours(9), []
    with model() as one:
        one.readout.classes = ["blue", "red", "green"]
        made = module.explain

        def noted(model: vpt.PromptedModel, x: object, target: int) -> object:
            asked.append(target)
            return made(model, x, target)

        monkeypatch.setattr(module, "explain", noted)
        found = answers(examples, [0])
        draw_why(one, {"test": examples}, found, "prompt", tmp_path)
    said = examples.classes[int(found["test"].scores["prompt"][0].argmax())]
    assert [one.classes[number] for number in asked] == [said]


def answers(examples: vpt.Examples, wrong: list[int]) -> dict[str, Answers]:
    scores = torch.zeros(len(examples), 3)
    for i, y in enumerate(examples.targets):
        scores[i, (y + (i in wrong)) % 3] = 1 + i
    return {"test": Answers.of(examples, {"prompt": scores})}


def test_the_surest_mistakes_are_drawn_and_old_pictures_go(tmp_path: Path) -> None:
    examples = colours(9)
    with model() as one:
        found = draw_why(
            one, {"test": examples}, answers(examples, [0, 2, 4, 6]), "prompt", tmp_path
        )
        assert [path.name for path in found] == ["why-0.png", "why-1.png", "why-2.png"]
        assert opened(found[0].read_bytes()).std() > 5
        again = draw_why(one, {"test": examples}, answers(examples, [8]), "prompt", tmp_path)
        assert [path.name for path in tmp_path.glob("why-*")] == [again[0].name]
        assert draw_why(one, {"test": examples}, answers(examples, []), "prompt", tmp_path) == []
    with model(queries=False) as one:
        assert draw_why(one, {"test": examples}, answers(examples, [1]), "prompt", tmp_path) == []
    assert not list(tmp_path.glob("why-*"))
