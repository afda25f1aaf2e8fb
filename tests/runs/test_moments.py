"""What a run remembers, against the examples themselves."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from vpt.errors import PromptFileError
from vpt.runs import moments as module
from vpt.runs.moments import LEVEL, MEMORY, Moments


def examples(n: int = 90, width: int = 12, classes: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    """(features, scores, labels): scores are linear in the features, but for some noise."""
    generator = torch.Generator().manual_seed(1)
    y = torch.arange(n) % classes
    centre = torch.randn(classes, width, generator=generator)
    mixed = torch.randn(width, width, generator=generator) / width**0.5
    x = 5 + 3 * (centre[y] + torch.randn(n, width, generator=generator) @ mixed)
    said = (x / 3) @ centre.T - centre.square().sum(1) / 2 - (5 / 3) * centre.sum(1)
    said = said + 0.5 * torch.randn(n, classes, generator=generator)
    return x, said, y


def standardised(x: Tensor) -> Tensor:
    return (x - x.mean(0)) / x.std(0, correction=0)


def test_whitening_is_the_inverse_of_all_second_moments() -> None:
    x, said, y = examples()
    found, z = Moments.of(x, said, y), standardised(x)
    assert torch.allclose(found.standardised(x), z, atol=1e-4)
    # Σ z zᵀ / n is the spread within classes and that of their means
    full = z.T @ z / len(z) + LEVEL * torch.eye(12)
    assert torch.allclose(found.whitened(z), torch.linalg.solve(full, z.T).T, atol=1e-4)


def test_few_examples_of_many_features_lose_nothing() -> None:
    x, said, y = examples(20, 60)
    found, z = Moments.of(x, said, y), standardised(x)
    full = z.T @ z / len(z) + LEVEL * torch.eye(60)
    assert len(found.factor) <= 17
    assert torch.allclose(found.whitened(z), torch.linalg.solve(full, z.T).T, atol=1e-4)


def test_what_is_drawn_has_the_moments_of_the_examples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DRAWN", 200_000)
    x, said, y = examples()
    z, directions = standardised(x), torch.randn(2, 12) / 4
    drawn, along, labels = Moments.of(x, said, y).drawn(directions)
    both = torch.cat([said, z @ directions.T], 1)
    other = torch.cat([drawn, along], 1)
    for c in range(3):
        own, made = both[y == c], other[labels == c]
        assert torch.allclose(made.mean(0), own.mean(0), atol=0.05)
    within = both - torch.stack([both[y == c].mean(0) for c in range(3)])[y]
    made = other - torch.stack([other[labels == c].mean(0) for c in range(3)])[labels]
    spread = within.T @ within / len(y)
    assert torch.allclose(made.T @ made / len(made), spread, atol=0.03 * float(spread.max()))


def test_a_feature_that_never_changes_says_nothing() -> None:
    x, said, y = examples()
    found = Moments.of(torch.cat([x, torch.full((len(x), 1), 7.0)], 1), said, y)
    assert float(found.scale[-1]) == 0
    assert found.whitened(found.standardised(torch.randn(2, 13))).isfinite().all()


def test_a_thousand_say_as_much_as_many() -> None:
    x, said, y = examples(2400)
    assert torch.equal(Moments.of(x, said, y).y, torch.arange(3))
    few, many = (Moments.of(x[:n], said[:n], y[:n]) for n in (2400, 900))
    assert torch.allclose(few.centre, many.centre, atol=0.3)


def test_a_file_holds_it_and_nothing_else_is_taken_for_one(tmp_path: Path) -> None:
    x, said, y = examples()
    found, path = Moments.of(x, said, y), tmp_path / MEMORY
    assert Moments.load(path) is None
    found.save(path)
    again = Moments.load(path)
    assert again is not None
    assert torch.equal(again.y, found.y)
    assert torch.equal(again.scores, found.scores)
    assert torch.allclose(again.factor, found.factor, atol=2e-3)
    again.save(tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == path.read_bytes()
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(PromptFileError, match=r"altered or damaged|cannot be read|cut short"):
        Moments.load(path)
