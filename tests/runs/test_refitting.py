"""The classifier of what queries read, against scikit-learn on what each member's queries read."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from families import open_tiny
from helpers import colours
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

import vpt
from vpt.backbones import Backbone
from vpt.data import Examples
from vpt.runs.kept import Kept, keep
from vpt.runs.probe import FALLBACK, STRENGTHS
from vpt.runs.querying import seen_by
from vpt.runs.refitting import refitted, refitted_on_shares
from vpt.training import side_by_side
from vpt.training.memory import Memory
from vpt.training.side_by_side import Members, learn_side_by_side

FOLDS = [(np.arange(6, 18), np.arange(6)), (np.arange(12), np.arange(12, 18))]


@pytest.fixture(autouse=True)
def _few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(side_by_side, "STEPS", 6)
    monkeypatch.setattr(side_by_side, "FEWEST", 6)


def learned(
    backbone: Backbone, examples: Examples
) -> tuple[vpt.QueryTokens, Kept, list[Memory], Members]:
    prompt = vpt.QueryTokens.like(backbone, 2)
    prompt.start_from(
        backbone, torch.utils.data.default_collate([examples[i][0] for i in range(4)])
    )
    kept = keep(backbone, examples, blocks=prompt.blocks)
    memories = kept.of_blocks(prompt.blocks)
    shares = torch.ones(3, len(kept.clips))
    for number, (_, held) in enumerate(FOLDS):
        shares[number, torch.isin(kept.clips, torch.from_numpy(held))] = 0
    y = kept.y[kept.clips]
    members = learn_side_by_side(memories, list(prompt.queries), y, shares, 3, decay=1.0)
    return prompt, kept, memories, members


def reads(prompt: vpt.QueryTokens, kept: Kept, members: Members, number: int) -> np.ndarray:
    with torch.no_grad():
        for rows, own in zip(prompt.queries, members.queries, strict=True):
            rows.copy_(own[number])
    read = kept.with_read(prompt).read
    assert read is not None
    return kept.of_examples(read).double().numpy()


def test_each_member_is_fitted_on_what_its_own_queries_read() -> None:
    backbone = open_tiny("timm ViT")
    prompt, kept, memories, members = learned(backbone, colours(18, size=backbone.inputs.shape[-1]))
    kept.y[::4] = (kept.y[::4] + 1) % 3  # as it is they are told apart without an error
    found, strength = refitted(members, memories, kept, FOLDS, 3)
    y = kept.y.numpy()
    rows = [FOLDS[0][0], FOLDS[1][0], np.arange(18)]

    def probe(number: int, c: float) -> np.ndarray:
        x = reads(prompt, kept, members, number)
        scaler = StandardScaler().fit(x[rows[number]])
        fit = LogisticRegression(C=c, max_iter=2000, tol=1e-8)
        fit.fit(scaler.transform(x[rows[number]]), y[rows[number]])
        return np.asarray(fit.predict_log_proba(scaler.transform(x)))

    scores = found.scores(memories).log_softmax(2).numpy()
    for number in range(3):
        assert np.allclose(scores[:, number], probe(number, strength), atol=1e-2)

    def loss(c: float) -> float:
        parts = [-probe(f, c)[held, y[held]] for f, (_, held) in enumerate(FOLDS)]
        return float(np.concatenate(parts).mean())

    assert loss(strength) <= min(loss(c) for c in STRENGTHS[3:-3:4]) + 1e-6
    assert all(torch.equal(a, b) for a, b in zip(found.queries, members.queries, strict=True))


def test_a_class_without_examples_is_never_chosen() -> None:
    backbone = open_tiny("timm ViT")
    _, kept, memories, members = learned(backbone, colours(18, size=backbone.inputs.shape[-1]))
    found, _ = refitted(members, memories, kept, FOLDS, 4)
    assert (found.scores(memories).argmax(2) < 3).all()


def test_without_folds_there_is_one_member_of_the_usual_strength() -> None:
    backbone = open_tiny("timm ViT")
    _, kept, memories, members = learned(backbone, colours(18, size=backbone.inputs.shape[-1]))
    last = Members(
        [rows[-1:] for rows in members.queries],
        *(getattr(members, name)[-1:] for name in ("mean", "scale", "weight", "bias")),
    )
    found, strength = refitted(last, memories, kept, [], 3)
    assert strength == FALLBACK
    assert found.weight.shape == last.weight.shape


def test_shares_that_are_certain_are_labels() -> None:
    backbone = open_tiny("timm ViT")
    examples = colours(18, size=backbone.inputs.shape[-1])
    _, kept, memories, members = learned(backbone, examples)
    plain, strength = refitted(members, memories, kept, FOLDS, 3)
    seen = seen_by(FOLDS, torch.arange(18), 18)
    told = seen[..., None] * torch.nn.functional.one_hot(kept.y, 3).double()
    again = refitted_on_shares(members, memories, kept, told, strength)
    # the member of all examples, as the others standardise by those that their fold keeps
    one, other = (found.scores(memories)[:, -1] for found in (plain, again))
    assert torch.allclose(
        one - one.mean(1, keepdim=True), other - other.mean(1, keepdim=True), atol=1e-2
    )
    assert not torch.equal(again.weight[0], again.weight[-1])
