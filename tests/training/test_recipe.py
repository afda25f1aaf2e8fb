"""Settings of a run: which are refused, and which goes over which."""

from __future__ import annotations

import pytest
from helpers import SETTINGS, colours, tiny_model

import vpt
from vpt.errors import TrainingError
from vpt.training.recipe import Recipe, chosen, updated


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": 0}, "epochs=0"),
        ({"lr": -1.0}, "lr=-1"),
        ({"lr": float("nan")}, "lr=nan"),
        ({"precision": "fp8"}, "precision"),
        ({"augment": "mixup"}, "augment"),
        ({"learning_rate": 1.0}, "learning_rate; known are epochs"),
        ({"accumulate": 0}, "accumulate"),
    ],
)
def test_wrong_settings(settings, message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        vpt.fit(tiny_model(), colours(), **settings)


@pytest.mark.parametrize(
    "given",
    [
        {"epochs": 1.5},
        {"epochs": True},
        {"epochs": "2"},
        {"batch_size": 2.5},
        {"seed": -1},
        {"lr": 1e39},
        {"lr": "0.1"},
        {"lr": float("nan")},
        {"readout_lr": 1e30},
        {"weight_decay": -1.0},
        {"weight_decay": float("nan")},
        {"workers": -1},
    ],
)
def test_settings_that_are_no_such_numbers_are_refused_at_once(given: dict) -> None:
    with pytest.raises(TrainingError, match=r"needed (is|are)"):
        vpt.fit(tiny_model(), colours(), **(SETTINGS | given))


def test_what_is_said_goes_over_the_recipe_and_that_over_the_usual_one() -> None:
    usual = Recipe(epochs=7, lr=0.5)
    assert chosen(None, usual, seed=None) is not None
    assert chosen(None, usual, seed=3, lr=None) == Recipe(epochs=7, lr=0.5, seed=3)
    assert chosen(Recipe(seed=4), usual) == Recipe(seed=4)
    assert updated(usual, epochs=2) == Recipe(epochs=2, lr=0.5)
    with pytest.raises(TrainingError, match="Found dict as recipe"):
        chosen({"lr": 1.0}, usual)
    with pytest.raises(TrainingError, match="Found settings rate; known are epochs, batch_size"):
        updated(usual, rate=1.0)


def test_nothing_is_kept_for_a_compiled_model() -> None:
    assert Recipe(cache="bf16").kept == "bf16"
    assert Recipe(cache="bf16", compile="eager").kept == "off"


@pytest.mark.parametrize(
    "given", [{"seed": 1 << 32}, {"cache": "on"}, {"compile": "magic"}, {"warmup": 1.0}]
)
def test_bounds(given: dict) -> None:
    with pytest.raises(TrainingError, match=r"needed (is|are)"):
        Recipe(**given)
