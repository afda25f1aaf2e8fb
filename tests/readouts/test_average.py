"""The mean of probabilities."""

from __future__ import annotations

import pytest
import torch

import vpt
from vpt.errors import PromptError
from vpt.readouts import build


def parts() -> list[vpt.Linear]:
    torch.manual_seed(3)
    made = [vpt.Linear(4, ["a", "b", "c"]), vpt.Linear(6, ["a", "b", "c"], "queries")]
    for readout in made:
        torch.nn.init.normal_(readout.weight)
    return made


def test_it_is_the_mean_of_their_probabilities_and_is_built_again() -> None:
    made = parts()
    average = vpt.Average(made)
    out = torch.randn(5, 10)
    shares = sum(p(x).softmax(1) for p, x in zip(made, out.split([4, 6], 1), strict=True)) / 2
    assert torch.allclose(average(out).exp(), shares, atol=1e-6)
    assert average.named.text == "cls+queries"
    again = build("Average", average.config())
    again.load_state_dict(average.state_dict())
    assert torch.equal(again(out), average(out))


def test_what_does_not_go_together_is_refused() -> None:
    one, two = parts()
    with pytest.raises(PromptError, match="two or more"):
        vpt.Average([one])
    with pytest.raises(PromptError, match="two or more"):
        vpt.Average([one, vpt.Identity()])
    with pytest.raises(PromptError, match="the same classes"):
        vpt.Average([one, vpt.Linear(6, ["c", "b", "a"], "queries")])
    with pytest.raises(PromptError, match="different ones"):
        vpt.Average([one, one])
    assert two.features == 6
