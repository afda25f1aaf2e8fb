"""From which probe a run starts, what it learns from, and how images are augmented."""

from __future__ import annotations

import pytest
import torch
from families import open_tiny
from helpers import colours

import vpt
from vpt.data import Data, Examples
from vpt.runs import learning
from vpt.runs.baselines import measure_baselines
from vpt.runs.learning import VIEWS, choose_augment, learn
from vpt.training.loop import History


@pytest.fixture
def data() -> Data:
    train = colours(24)
    return Data(train, colours(12, 1), None, train.classes, [])


def learned(data: Data, prompt: str, augment: str, strength: float | None) -> tuple:
    """(number of views and the augmentation that training is given, the model)."""
    backbone = open_tiny("timm ViT")
    readout = vpt.Linear(backbone.out_features, data.classes)
    model = vpt.PromptedModel(backbone, vpt.prompts.parse(prompt, backbone), readout)
    given: list[tuple[int, str]] = []

    def train(model: vpt.PromptedModel, train: Examples, val: Examples, recipe: vpt.Recipe):
        given.append((len(train.views()), recipe.augment))
        return History([], 0)

    learn(model, data, vpt.Recipe(augment=augment), strength, train, False)
    return *given[0], model


def test_a_late_prompt_learns_from_views_and_an_early_one_from_changes(data: Data) -> None:
    assert learned(data, "deep:1@2", "crop", None)[:2] == (1 + VIEWS, "none")
    assert learned(data, "deep:1", "crop", None)[:2] == (1, "crop")
    assert learned(data, "deep:1@2", "none", None)[:2] == (1, "none")


def test_the_readout_is_a_probe_where_a_strength_is_given(data: Data) -> None:
    fresh, probe = (learned(data, "deep:1", "none", s)[2].readout.weight for s in (None, 0.1))
    assert not torch.allclose(fresh, probe)


def test_images_of_other_shapes_cannot_be_learned_from(data: Data) -> None:
    data.train = Examples(lambda i: torch.rand(3, 32, 32 + i % 2), [0, 1], ["a", "b"])
    with pytest.raises(RuntimeError, match="equal size"):
        learned(data, "deep:1", "none", 0.1)


def test_sound_is_not_augmented(data: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = open_tiny("timm ViT")
    baselines = measure_baselines(backbone, data)
    assert choose_augment(backbone, data, baselines) == "flip-crop"
    monkeypatch.setattr(learning, "FLIP_TOLERANCE", -2)  # what no mirrored image reaches
    assert choose_augment(backbone, data, baselines) == "crop"
    sound = open_tiny("transformers AST")
    assert choose_augment(sound, data, baselines) == "none"
