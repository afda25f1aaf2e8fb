"""Names, short texts, configs and stacks."""

from __future__ import annotations

import json

import pytest
import torch
from families import FORMS, open_tiny

import vpt
from vpt.prompts import PROMPTS, build, parse


@pytest.fixture(scope="module")
def backbone() -> vpt.Backbone:
    return open_tiny("timm ViT")


@pytest.mark.parametrize("form", FORMS)
def test_build_from_its_config_through_json(backbone: vpt.Backbone, form: str) -> None:
    prompt = FORMS[form](backbone)
    again = build(type(prompt).__name__, json.loads(json.dumps(prompt.config())))
    again.load_state_dict(prompt.state_dict())
    assert again.config() == prompt.config()
    assert prompt.describe()
    with torch.device("meta"):  # nothing is allocated while a file's shapes are compared
        shapes = {
            k: v.shape
            for k, v in build(type(prompt).__name__, prompt.config()).state_dict().items()
        }
    assert shapes == {k: v.shape for k, v in prompt.state_dict().items()}


def test_parse(backbone: vpt.Backbone) -> None:
    assert parse("deep:3", backbone).count == 3
    assert parse("border", backbone).width == 8
    assert parse("deep:3@1-2", backbone).blocks == [1, 2]
    assert parse("prefix:3@2", backbone).blocks == [2]
    both = parse("border:4 + prefix:2", backbone)
    assert [type(p).__name__ for p in both.prompts] == ["Border", "Prefix"]
    assert set(PROMPTS.forms) >= {
        "shallow",
        "deep",
        "prefix",
        "border",
        "patch",
        "full",
        "smm",
        "l2p",
        "dual",
        "coda",
    }


NOTHING = [
    "",
    "deep:",
    "deep:x",
    "deep:-1",
    "lora:4",
    "deep:1:2",
    "deep:10+",
    "full:3",
    "deep:3@",
    "deep:3@x",
    "shallow:3@1",
    "deep:3@1-2-3",
]


@pytest.mark.parametrize("text", NOTHING)
def test_texts_that_mean_nothing(backbone: vpt.Backbone, text: str) -> None:
    if text == "deep:":
        assert parse(text, backbone).count == 10
        return
    with pytest.raises(vpt.errors.PromptError, match="needed is one of border:WIDTH"):
        parse(text, backbone)


@pytest.mark.parametrize("text", ["deep:3@1-9", "deep:3@2-1"])
def test_blocks_that_are_not_there(backbone: vpt.Backbone, text: str) -> None:
    with pytest.raises(vpt.errors.PromptError, match="needed are different numbers from 0 to 2"):
        parse(text, backbone)


def test_stack_wants_prompts() -> None:
    for wrong in ([], ["deep"], [torch.nn.Linear(1, 1)]):
        with pytest.raises(vpt.errors.PromptError, match="one or more prompts"):
            vpt.Stack(wrong)
    with pytest.raises(vpt.errors.PromptError, match="known are"):
        build("Evil", {})
