"""One update: exact under accumulation, combined by the objective, stopped where it diverges."""

from __future__ import annotations

import pytest
import torch
from accelerate import Accelerator
from helpers import OBJECTIVES, SETTINGS, colours, state, tiny_model

import vpt
from vpt.errors import DataError, DivergedError
from vpt.objectives import Objective
from vpt.training.plan import batches
from vpt.training.recipe import Recipe
from vpt.training.state import State
from vpt.training.update import step, update


@pytest.mark.parametrize("name", OBJECTIVES)
def test_accumulation_changes_nothing(name: str) -> None:
    one, four = tiny_model(), tiny_model()
    vpt.fit(one, colours(), objective=OBJECTIVES[name](), **SETTINGS)
    vpt.fit(four, colours(), objective=OBJECTIVES[name](), accumulate=4, **SETTINGS)
    assert torch.allclose(state(one), state(four), atol=1e-5)


def test_losses_are_combined_by_the_objective() -> None:
    class Projected(Objective):
        """g_u minus its part along g_a, on the prompt only, as fairness will need."""

        def losses(self, logits, y, group=None):
            return {"u": torch.nn.functional.cross_entropy(logits, y), "a": logits.square().mean()}

        def combine(self, gradients):
            u, a = gradients["u"], gradients["a"]
            unit = a["prompt"] / a["prompt"].norm()
            self.seen = (u["prompt"], a["prompt"])
            return {"prompt": u["prompt"] - (u["prompt"] @ unit) * unit, "readout": u["readout"]}

    model, data, objective = tiny_model(), colours(8), Projected()
    before = tiny_model()
    batch = batches(8, 8, 0, 1)[0]
    x, y = torch.stack([data[i][0] for i in batch]), torch.tensor([data[i][1] for i in batch])
    logits = before(x)
    tokens = before.prompt.tokens
    u = torch.autograd.grad(
        torch.nn.functional.cross_entropy(logits, y), tokens, retain_graph=True
    )[0].flatten()
    a = torch.autograd.grad(logits.square().mean(), tokens)[0].flatten()
    vpt.fit(
        model,
        data,
        objective=objective,
        **(SETTINGS | {"epochs": 1, "batch_size": 8, "accumulate": 2}),
    )
    assert torch.allclose(objective.seen[0], u, atol=1e-6)
    assert torch.allclose(objective.seen[1], a, atol=1e-6)


def test_divergence_keeps_the_last_good_prompt() -> None:
    model = tiny_model()

    class Breaks(vpt.Classification):
        calls = 0

        def losses(self, logits, y, group=None):
            self.calls += 1
            return {
                "x": (
                    super().losses(logits, y)["cross_entropy"]
                    * (float("nan") if self.calls > 7 else 1.0)
                )
            }

    # past the watched part of the run
    with pytest.raises(DivergedError, match=r"epoch 2.*smaller lr"):
        vpt.fit(model, colours(), colours(24, seed=1), objective=Breaks(), **SETTINGS)
    good = tiny_model()
    vpt.fit(good, colours(), colours(24, seed=1), **(SETTINGS | {"epochs": 3}))
    assert torch.isfinite(state(model)).all()
    assert vpt.evaluate(model, colours(24, seed=1))["accuracy"] >= 1 / 3


def test_bf16_runs_and_stays_near() -> None:
    plain, half = tiny_model(), tiny_model()
    vpt.fit(plain, colours(), **SETTINGS)
    vpt.fit(half, colours(), precision="bf16", **SETTINGS)
    assert 0 < (state(plain) - state(half)).norm() / state(plain).norm() < 0.3


def fresh(**settings: object) -> State:
    train, objective = colours(), vpt.Classification()
    return State(tiny_model(), train, None, objective, Recipe(**settings), Accelerator())


def test_a_step_goes_down_the_gradient_at_a_share_of_the_peak() -> None:
    now = fresh(lr=0.1, weight_decay=0.0)
    now.set_peaks()
    before = now.model.prompt.tokens.detach().clone()
    sizes = {part: sum(p.numel() for p in values) for part, values in now.parts.items()}
    step(now, {part: torch.ones(size) for part, size in sizes.items()}, 0.5)
    # AdamW's first step is the rate itself
    torch.testing.assert_close(now.model.prompt.tokens, before - 0.05, atol=1e-5, rtol=0)


def test_an_update_counts_what_it_saw() -> None:
    now = fresh()
    now.set_peaks()
    x, y, _ = zip(*(now.train[i] for i in range(4)), strict=True)
    batch = (torch.stack(x), torch.tensor(y))
    assert update(now, [([0, 1, 2, 3], batch)], 4, 0)
    loss, right, count = now.position.sums
    assert (count, right <= 4, loss > 0) == (4, True, True)


def test_sounds_are_not_augmented() -> None:
    now = fresh(augment="crop")
    batch = ((torch.rand(2, 8), torch.tensor([8, 8])), torch.tensor([0, 1]))
    with pytest.raises(DataError, match="is for images"):
        update(now, [([0, 1], batch)], 2, 0)
