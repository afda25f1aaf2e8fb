"""What a run carries: its rates, its tensors, and the way back to its start."""

from __future__ import annotations

import pytest
import torch
from accelerate import Accelerator
from helpers import SETTINGS, colours, tiny_model

import vpt
from vpt.files import learned
from vpt.training.checkpoints import Position
from vpt.training.recipe import Recipe
from vpt.training.state import State


def begins_at(
    scale: float, **settings: object
) -> tuple[vpt.PromptedModel, vpt.training.loop.History, dict]:
    """A model whose tokens begin `scale` times as large, trained; and its state before."""
    model = tiny_model()
    with torch.no_grad():
        model.prompt.tokens.mul_(scale / model.prompt.tokens.square().mean().sqrt())
    before = {name: value.clone() for name, value in learned(model).items()}
    return model, vpt.fit(model, colours(), colours(24, seed=1), **(SETTINGS | settings)), before


def test_the_rate_is_in_units_of_what_the_prompt_begins_as() -> None:
    """Tokens as large as a backbone's own would barely move at the rate of small ones; the
    readout's rate is its own.
    """
    steps = {}
    for scale in (0.1, 1.0, 8.0):
        # one update, at the peak
        model, _, before = begins_at(scale, epochs=1, batch_size=48, warmup=0.0, weight_decay=0.0)
        moved = {
            name: float((value - before[name]).abs().max())
            for name, value in learned(model).items()
        }
        steps[scale] = moved["prompt.tokens"], moved["readout.weight"]
    for scale, expected in ((0.1, 0.05), (1.0, 0.05), (8.0, 0.4)):
        assert steps[scale] == pytest.approx((expected, 0.025), rel=2e-3)


def fresh(**settings: object) -> State:
    train, objective = colours(), vpt.FairReprogram(0.5, hidden=4)
    objective.bind(train.targets, train.grouped, train.classes, train.group_names)
    return State(tiny_model(), train, None, objective, Recipe(**settings), Accelerator())


def test_its_tensors_bring_it_back() -> None:
    one, other = fresh(), fresh()
    with torch.no_grad():
        for p in (*one.model.prompt.parameters(), *one.objective.parameters()):
            p.add_(1.0)
    position = Position(rows=[{"epoch": 0}])
    other.take(position, {name: value.clone() for name, value in one.tensors().items()})
    assert other.position is position
    kept = other.tensors()
    assert all(torch.equal(value, kept[name]) for name, value in one.tensors().items())
    with pytest.raises((KeyError, RuntimeError, vpt.errors.PromptFileError)):
        other.take(position, {})


def test_it_begins_anew_where_it_began_at_a_quarter_of_the_rate() -> None:
    state = fresh(lr=0.4)
    state.set_peaks()
    peak = state.optimizer.param_groups[0]["peak"]
    before = {name: value.clone() for name, value in state.tensors().items()}
    with torch.no_grad():
        for p in (*state.model.prompt.parameters(), *state.objective.parameters()):
            p.add_(1.0)
    state.position = Position(epoch=2, update=1, rows=[{"epoch": 0}, {"epoch": 1}])
    state.begin_anew()
    assert state.position == Position(rows=[{"epoch": 0}], cuts=1)
    assert state.optimizer.param_groups[0]["peak"] == peak / 4
    assert all(torch.equal(value, before[name]) for name, value in state.tensors().items())


def test_what_makes_two_runs_the_same() -> None:
    assert fresh().identity() == fresh().identity()
    changed = fresh(lr=0.3).identity()
    assert {k for k, v in fresh().identity().items() if changed[k] != v} == {"lr"}


def test_how_far_it_is() -> None:
    state = fresh(epochs=3, batch_size=10)
    state.position = Position(epoch=2, update=1)
    assert (state.per_epoch, state.done, state.total) == (5, 6, 15)
    assert (state.scaled, state.scale) == (False, 1.0)
