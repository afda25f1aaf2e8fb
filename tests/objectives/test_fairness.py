"""Objectives by group: the projected update against a slow loop, penalties against their
definitions, gaps that fall.
"""

from __future__ import annotations

import copy

import pytest
import torch
from helpers import SETTINGS, colours, planted, planted_model, tiny_model
from torch.nn import functional as F

import vpt
from vpt.data import Examples
from vpt.errors import TrainingError
from vpt.metrics.groups import count_table, rates
from vpt.objectives.fairness import projected
from vpt.training.evaluation import scores
from vpt.training.plan import batches, schedule

Y, Z = (
    torch.tensor([0, 0, 0, 1, 1, 1, 2, 2, 2, 0, 1, 2]),
    torch.tensor([0, 1, 1, 0, 0, 1, 0, 1, 1, 0, 1, 0]),
)
CLASSES, GROUPS = ["a", "b", "c"], ["m", "w"]


def bound(objective: vpt.Classification) -> vpt.Classification:
    objective.bind(Y.tolist(), Z.tolist(), CLASSES, GROUPS)
    return objective


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


# the penalty ----------------------------------------------------------------------------
def penalty(logits: torch.Tensor, criterion: str) -> torch.Tensor:
    """Its definition, over all of Y and Z."""
    soft, total = logits.softmax(1), torch.zeros(())
    for keep in [c == Y for c in range(3)] if criterion == "eo" else [Y >= 0]:
        gap = soft[keep & (Z == 0)].mean(0) - soft[keep & (Z == 1)].mean(0)
        total = total + gap.square().sum() / 3
    return total


@pytest.mark.parametrize("criterion", ["dp", "eo"])
def test_with_the_gap_known_the_penalty_and_its_gradient_are_exact(criterion: str) -> None:
    objective = bound(vpt.GapPenalty(2.0, criterion, memory=0.0))
    logits = torch.randn(12, 3, generator=torch.Generator().manual_seed(0), requires_grad=True)
    first = objective.losses(logits, Y, Z)
    assert first["gap"] == 0  # nothing is known yet
    objective.combine({"cross_entropy": {}, "gap": {}})
    found = objective.losses(logits, Y, Z)["gap"]
    expected = 2 * penalty(logits, criterion)
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    torch.testing.assert_close(
        torch.autograd.grad(found, logits)[0], torch.autograd.grad(expected, logits)[0]
    )


def test_the_estimate_remembers_and_skips_what_it_has_not_seen() -> None:
    objective = bound(vpt.GapPenalty(1.0, "dp", memory=0.5))
    for value in (0.0, 2.0):
        # group m only
        objective.losses(
            torch.tensor([[value, 0, 0]] * 2), torch.tensor([0, 0]), torch.tensor([0, 0])
        )
        objective.combine({})
    assert objective.gaps().abs().sum() == 0
    objective.losses(torch.zeros(1, 3), torch.tensor([0]), torch.tensor([1]))
    objective.combine({})
    late = torch.tensor([2.0, 0, 0]).softmax(0)[0]
    mean = (0.5 * 1 / 3 + late) / 1.5  # of the first update half, and of both their counts
    assert float(objective.gaps()[0, 0, 1, 0]) == pytest.approx(float(mean - 1 / 3), abs=1e-6)


# the worst group ------------------------------------------------------------------------
def test_the_worst_cell_gains_weight() -> None:
    objective = bound(vpt.WorstGroup(step=0.5))
    logits = torch.zeros(12, 3)
    logits[(Y == 1) & (Z == 1)] = torch.tensor([5.0, 0.0, 0.0])
    each = F.cross_entropy(logits, Y, reduction="none")
    cells = torch.stack([each[(c == Y) & (g == Z)].mean() for c in range(3) for g in range(2)])
    found = objective.losses(logits, Y, Z)["cross_entropy"]
    # at first every cell counts alike
    assert float(found) == pytest.approx(float(cells.mean()), rel=1e-5)
    objective.combine({})
    weights = torch.softmax(0.5 * cells, 0)
    torch.testing.assert_close(objective.weights.flatten(), weights)
    assert float(objective.losses(logits, Y, Z)["cross_entropy"]) == pytest.approx(
        float((weights * cells).sum()), rel=1e-5
    )


def test_a_rare_cell_is_not_forgotten_for_being_absent_from_most_batches() -> None:
    y, z = (
        torch.tensor([0, 1]).repeat_interleave(100),
        torch.tensor([0] * 98 + [1, 1] + [0, 0] + [1] * 98),
    )
    objective = vpt.WorstGroup(step=0.1)
    objective.bind(y.tolist(), z.tolist(), ["a", "b"], GROUPS)
    rare = y != z
    logits = torch.zeros(200, 2)
    logits[rare] = torch.where(y[rare] == 0, -2.0, 2.0)[:, None] * torch.tensor([1.0, -1.0])
    generator = torch.Generator().manual_seed(0)
    for _ in range(100):
        batch = torch.randperm(200, generator=generator)[:16]
        objective.losses(logits[batch], y[batch], z[batch])
        objective.combine({})
    assert float(objective.weights[0, 1] + objective.weights[1, 0]) > 0.95


# what it is for -------------------------------------------------------------------------
def gap(model: vpt.PromptedModel, data: Examples) -> float:
    logits, y = scores(model, data)
    return float(
        rates(count_table(y, logits.argmax(1), data.groups, 2, 2))["average_odds_difference"]
    )


@pytest.mark.parametrize(
    "objective", [vpt.FairReprogram(0.5), vpt.GapPenalty(5.0), vpt.WorstGroup(0.3)]
)
def test_a_pattern_takes_off_some_of_the_gap(objective) -> None:
    train, test = planted(200, 0), planted(200, 1)
    backbone = vpt.load_backbone(planted_model())
    with vpt.PromptedModel(backbone, None, vpt.Identity()) as bare:
        before = gap(bare, test)
    model = vpt.PromptedModel(backbone, vpt.Full.like(backbone), vpt.Identity())
    vpt.fit(model, train, objective=objective, epochs=8, lr=0.003, readout_lr=0.0, progress=False)
    assert before > 0.3
    assert gap(model, test) < 0.9 * before
    assert vpt.evaluate(model, test)["accuracy"] > 0.8


# wrong input ----------------------------------------------------------------------------
@pytest.mark.parametrize("objective", [vpt.FairReprogram(), vpt.GapPenalty(), vpt.WorstGroup()])
def test_groups_that_do_not_serve(objective) -> None:
    with pytest.raises(TrainingError, match="have no groups"):
        objective.bind([0, 1], None, ["a", "b"], None)
    with pytest.raises(TrainingError, match="1 of 2 training examples have no group"):
        objective.bind([0, 1], [0, -1], ["a", "b"], GROUPS)
    with pytest.raises(TrainingError, match="of one group, 'w'"):
        objective.bind([0, 1], [1, 1], ["a", "b"], GROUPS)
    if objective.needs_cells:
        with pytest.raises(
            TrainingError, match=r"label 'b' in group 'm': equalized odds is not defined"
        ):
            objective.bind([0, 0, 1], [0, 1, 1], ["a", "b"], GROUPS)
    with pytest.raises(TrainingError, match="group of every example"):
        bound(objective).losses(torch.zeros(2, 3), torch.tensor([0, 1]))


@pytest.mark.parametrize(
    "make",
    [
        lambda: vpt.FairReprogram(-1),
        lambda: vpt.FairReprogram(criterion="odds"),
        lambda: vpt.GapPenalty(float("nan")),
        lambda: vpt.GapPenalty(memory=1.0),
        lambda: vpt.WorstGroup(step=True),
        lambda: vpt.FairReprogram(lr="fast"),
    ],
)
def test_settings_that_are_none(make) -> None:
    with pytest.raises(TrainingError, match="needed is"):
        make()


def test_demographic_parity_needs_no_cell_of_every_label() -> None:
    objective = vpt.GapPenalty(1.0, "dp")
    objective.bind([0, 0, 1], [0, 1, 1], ["a", "b"], GROUPS)
    assert objective.shares.tolist() == [[pytest.approx(1 / 3), pytest.approx(2 / 3)]]
