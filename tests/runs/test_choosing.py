"""Choosing out of fold: folds, one standard error, averages, and nothing worse than the probe."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from vpt.data import Examples
from vpt.runs.choosing import Candidate, averaged, calibrated, choose, folds_of


def labelled(labels: list[int], units: list[int] | None = None) -> Examples:
    names = [chr(97 + c) for c in range(max(labels) + 1)]
    return Examples(lambda i: torch.zeros(3, 4, 4), labels, names, units=units)


def test_every_example_is_held_out_once_and_what_belongs_together_stays_together() -> None:
    labels, units = [0, 1] * 12, [i // 4 for i in range(24)]
    for examples in (labelled(labels), labelled(labels, units)):
        folds = folds_of(examples, 0)
        assert sorted(np.concatenate([held for _, held in folds])) == list(range(24))
        for kept, held in folds:
            assert not set(kept) & set(held)
            if examples.units:
                assert not {units[i] for i in kept} & {units[i] for i in held}


@pytest.mark.parametrize(
    ("labels", "count"),
    [([0, 1] * 10, 5), ([0] * 9 + [1] * 3, 3), ([0, 0, 1, 1, 2], 2), ([0, 1, 2], 0)],
)
def test_a_class_smaller_than_the_folds(labels: list[int], count: int) -> None:
    folds = folds_of(labelled(labels), 0)
    assert len(folds) == count
    for kept, held in folds:  # a class that stands alone is never held out
        assert set(np.array(labels)[kept]) == set(labels)
        assert len(held)


def candidate(name: str, place: int, sure: float, n: int = 200, noise: float = 0.0) -> Candidate:
    """Says the right one of two classes with this probability."""
    generator = torch.Generator().manual_seed(place)
    shares = (sure + noise * torch.randn(n, generator=generator)).clamp(0.02, 0.98)
    y = torch.arange(n) % 2
    scores = torch.empty(n, 2)
    scores[torch.arange(n), y] = shares.log()
    scores[torch.arange(n), 1 - y] = (1 - shares).log()
    return Candidate(name, place, scores.double(), 1.0)


Y, ALL = torch.arange(200) % 2, torch.ones(200, dtype=torch.bool)


def test_the_best_is_chosen() -> None:
    means, probe = candidate("nearest mean", 0, 0.5), candidate("probe cls", 1, 0.6, noise=0.2)
    clear = choose([means, probe, candidate("probe blocks", 2, 0.9)], Y, ALL, "probe cls")
    assert clear.names == ["probe blocks"]
    assert clear.accuracy == 1.0
    assert clear.interval[0] > 0.97
    assert clear.table[0]["candidate"] == "nearest mean"
    assert len(clear.as_dict()["table"]) == 3


def test_the_simpler_one_is_chosen_where_there_is_no_telling() -> None:
    even = candidate("probe cls", 1, 0.6)
    shares = torch.where(torch.arange(200) < 100, 0.79, 0.47).double()
    scores = torch.empty(200, 2, dtype=torch.float64)
    scores[torch.arange(200), Y], scores[torch.arange(200), 1 - Y] = (
        shares.log(),
        (1 - shares).log(),
    )
    uneven = Candidate("probe blocks", 2, scores, 1.0)
    found = choose([even, uneven], Y, ALL, "probe cls")
    losses = {row["candidate"]: row["log_loss"] for row in found.table}
    assert losses["probe blocks"] < losses["probe cls"]
    assert found.names == ["probe cls"]
    assert "the simplest within one standard error" in found.why


def test_nothing_worse_than_the_probe_is_given() -> None:
    # within one standard error of the best, but worse than the probe itself
    means = candidate("nearest mean", 0, 0.6, noise=0.4)
    probe = candidate("probe cls", 1, 0.605, noise=0.3)
    found = choose([means, probe], Y, ALL, "probe cls")
    losses = {row["candidate"]: row["log_loss"] for row in found.table}
    assert losses[found.name] <= losses["probe cls"]


def test_two_kinds_are_averaged_where_that_is_better_beyond_doubt() -> None:
    def half(name: str, place: int, first: bool) -> Candidate:
        """Knows one half of the examples, and guesses on the other."""
        made = candidate(name, place, 0.99)
        unsure = (torch.arange(200) < 100) != first
        made.scores[unsure] = np.log(0.5)
        return made

    one, other = half("probe cls", 1, True), half("queries:4", 2, False)
    found = choose([one, other], Y, ALL, "probe cls")
    assert found.names == ["probe cls", "queries:4"]
    assert found.log_loss < min(row["log_loss"] for row in found.table)
    same = choose([one, half("probe blocks", 2, False)], Y, ALL, "probe cls")
    assert len(same.names) == 1  # of one kind: not averaged


def test_scores_are_made_honest() -> None:
    generator = torch.Generator().manual_seed(0)
    y = torch.randint(3, (300,), generator=generator)
    logits = torch.randn(300, 3, generator=generator) + 2 * torch.eye(3)[y]

    def loss(scores: Tensor) -> float:
        return float(torch.nn.functional.cross_entropy(scores, y))

    too_sure = calibrated("x", 0, logits * 8, y, torch.ones(300, dtype=torch.bool))
    assert too_sure.slope < 0.5
    assert loss(too_sure.scores) < loss(logits * 8)
    assert torch.allclose(too_sure.scores.exp().sum(1), torch.ones(300, dtype=torch.float64))


def test_an_average_is_calibrated_once_more() -> None:
    """Two parts that are sure and right, about different halves: their mean is too modest."""
    n = 400
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(n) % 2
    parts = []
    for _ in range(2):
        sign = torch.where(torch.rand(n, generator=generator) < 0.9, 1.0, -1.0)
        lean = 1.1 * sign * (2 * y - 1)
        parts.append(torch.log_softmax(torch.stack([-lean, lean], 1).double(), 1))
    tested = torch.ones(n, dtype=torch.bool)
    rows = [Candidate("probe cls", 1, parts[0], 1.0), Candidate("queries:4", 2, parts[1], 1.0)]
    chosen = choose(rows, y, tested, "probe cls")
    assert len(chosen.names) == 2
    plain, scaled = averaged(parts), averaged(parts, chosen.factor)
    assert chosen.factor > 1
    assert chosen.log_loss < float(-plain.gather(1, y[:, None]).mean())
    assert chosen.log_loss == pytest.approx(float(-scaled.gather(1, y[:, None]).mean()))
