"""The projected update: by hand, and against a slow loop."""

from __future__ import annotations

import copy

import pytest
import torch
from helpers import SETTINGS, colours, tiny_model
from torch.nn import functional as F

import vpt
from vpt.errors import TrainingError
from vpt.objectives.fair_reprogram import projected
from vpt.training.plan import batches, schedule


# FairReprogram --------------------------------------------------------------------------
def test_the_update_is_the_one_of_the_paper_by_hand() -> None:
    utility, adverse = torch.tensor([3.0, 1.0]), torch.tensor([2.0, 0.0])
    # [3, 1] − 3·[1, 0] − 0.5·[2, 0]
    assert projected(utility, adverse, 0.5).tolist() == [-1.0, 1.0]
    assert projected(utility, adverse, 0.0) @ adverse == 0
    assert projected(utility, torch.zeros(2), 0.5).tolist() == [3.0, 1.0]


@pytest.mark.parametrize("criterion", ["dp", "eo"])
@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("with_logits", [False, True])
def test_five_updates_equal_a_slow_loop(criterion: str, accumulate: int, with_logits: bool) -> None:
    data, model, twin = colours(50), tiny_model("stack"), tiny_model("stack")
    objective = vpt.FairReprogram(
        0.7, criterion, lr=0.02, hidden=16, seed=3, with_logits=with_logits
    )
    vpt.fit(model, data, objective=objective, accumulate=accumulate, **(SETTINGS | {"epochs": 1}))
    again = vpt.FairReprogram(**objective.config())
    again.bind(data.targets, data.groups, data.classes, data.group_names)
    adversary, c = copy.deepcopy(again.adversary), torch.ones((), requires_grad=True)
    parts = [list(twin.prompt.parameters()), list(twin.readout.parameters())]
    optimizers = [torch.optim.AdamW(values, lr=0.0, weight_decay=1e-4) for values in parts]
    opponent = torch.optim.Adam([c, *adversary.parameters()], lr=0.02)
    for number, batch in enumerate(batches(50, 10, 0, 1)):
        x, y = torch.stack([data[i][0] for i in batch]), torch.tensor([data[i][1] for i in batch])
        z = torch.tensor([data[i][2] for i in batch])

        def gradients(values, x=x, y=y, z=z):
            """Of cross-entropy and of the adversary's loss, each from a forward of its own."""
            utility = torch.autograd.grad(F.cross_entropy(twin(x), y), values)
            said = twin(x)
            soft = (said * (1 + c.abs())).exp()
            soft = soft / soft.sum(1, keepdim=True)
            seen = soft
            if criterion == "eo":
                at_label = torch.zeros_like(soft)
                for i, label in enumerate(y.tolist()):
                    at_label[i, label] = soft[i, label]
                seen = torch.cat([soft, at_label], 1)
            if with_logits:
                seen = torch.cat([said, seen], 1)
            opponent.zero_grad()
            loss = F.nll_loss(F.log_softmax(adversary(seen), 1), z)
            adverse = torch.autograd.grad(loss, [*values, c, *adversary.parameters()])
            return utility, adverse[: len(values)], adverse[len(values) :]

        for values, optimizer, lr in zip(parts, optimizers, (0.05, 0.025), strict=True):
            utility, adverse, own = gradients(values)
            dot = sum((u * a).sum().item() for u, a in zip(utility, adverse, strict=True))
            square = sum((a * a).sum().item() for a in adverse)
            for p, u, a in zip(values, utility, adverse, strict=True):
                p.grad = u - dot / square * a - 0.7 * a
            optimizer.param_groups[0]["lr"] = lr * schedule(number, 5, 0.1)
        for p, g in zip([c, *adversary.parameters()], own, strict=True):
            p.grad = g
        for optimizer in (*optimizers, opponent):
            optimizer.step()
    for one, two in (
        (model.prompt, twin.prompt),
        (model.readout, twin.readout),
        (objective.adversary, adversary),
    ):
        for p, q in zip(one.parameters(), two.parameters(), strict=True):
            torch.testing.assert_close(p, q, atol=1e-5, rtol=1e-5)
    assert objective.temperature.item() == pytest.approx(c.item(), abs=1e-5)


def test_settings_that_are_none() -> None:
    for settings in ({"strength": -1}, {"criterion": "odds"}, {"lr": "fast"}):
        with pytest.raises(TrainingError, match="needed is"):
            vpt.FairReprogram(**settings)
