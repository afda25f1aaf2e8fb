"""Ridge on random features: the closed form, in any order and in pieces."""

from __future__ import annotations

import pytest
import torch
from sklearn.linear_model import Ridge

import vpt
from vpt.errors import PromptError
from vpt.readouts import build
from vpt.readouts.ridge import STRENGTHS


def test_it_is_scikit_learns_ridge_whatever_the_order() -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(40, 5, generator=generator), torch.arange(40) % 3
    readout = vpt.RandomRidge(5, 4, projections=12, strength=0.7)
    for chosen in torch.arange(40).flip(0).split(9):
        readout.update(x[chosen], y[chosen])
    readout.settle()
    lifted, one_hot = readout.lifted(x), torch.nn.functional.one_hot(y, 4)
    needed = Ridge(alpha=0.7, fit_intercept=False).fit(
        lifted.double().numpy(), one_hot.double().numpy()
    )
    new = torch.randn(6, 5, generator=generator)
    said = torch.tensor(needed.predict(readout.lifted(new).double().numpy())).float()
    assert torch.allclose(readout(new)[:, :3], said[:, :3], atol=1e-4)
    assert torch.isneginf(readout(new)[:, 3]).all()  # never seen
    again = build("RandomRidge", readout.config())
    again.load_state_dict(readout.state_dict())
    assert torch.equal(again(new), readout(new))


def test_the_strength_is_that_of_least_error_on_held_out_data() -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(60, 5, generator=generator), torch.randint(0, 3, (60,), generator=generator)
    readout = vpt.RandomRidge(5, 3, projections=40)
    readout.update(x[:40], y[:40])
    readout.choose_strength(x[40:], y[40:])
    one_hot, errors = torch.nn.functional.one_hot(y, 3).double(), {}
    lifted = readout.lifted(x).double()
    for strength in STRENGTHS:
        fitted = Ridge(alpha=strength, fit_intercept=False).fit(
            lifted[:40].numpy(), one_hot[:40].numpy()
        )
        errors[strength] = float(
            (torch.tensor(fitted.predict(lifted[40:].numpy())) - one_hot[40:]).square().mean()
        )
    assert readout.strength == min(errors, key=errors.get)
    assert readout.strength > STRENGTHS[0]  # labels are noise here


def test_wrong_input() -> None:
    for call, message in (
        (lambda: vpt.RandomRidge(5, 3, projections=0), "projections=0"),
        (lambda: vpt.RandomRidge(5, 3, strength=0.0), "strength=0.0"),
        (lambda: vpt.RandomRidge(5, 3)(torch.zeros(1, 5)), "seen no examples"),
    ):
        with pytest.raises(PromptError, match=message):
            call()
