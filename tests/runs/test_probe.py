"""The linear probe against scikit-learn fitted directly."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from vpt.runs.probe import FALLBACK, STRENGTHS, cross_fitted, descend, fit_probe


def made(labels, width=4, seed=0, apart=1.0):
    """Features around a centre per class, on very different scales, with labels."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.as_tensor(labels)
    x = (
        torch.randn(len(y), width, generator=generator)
        + apart * torch.randn(int(y.max()) + 1, width, generator=generator)[y]
    )
    return (
        x * torch.tensor([1.0, 10.0, 0.1, 3.0])[:width]
        + torch.tensor([0.0, -20.0, 1.0, 5.0])[:width],
        y,
    )


def pipeline(strength):
    return make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=2000))


def reference(x, y, strength):
    return pipeline(strength).fit(x.double().numpy(), y.numpy())


def log_proba(readout, x, rows=None):
    scores = readout(x).double()
    return torch.log_softmax(scores if rows is None else scores[:, rows], 1).detach().numpy()


@pytest.mark.parametrize("classes", [2, 3, 6])
@pytest.mark.parametrize("strength", [1e-3, 1.0, 10.0])
def test_the_probe_is_the_pipeline_on_raw_features(classes, strength):
    x, y = made(list(range(classes)) * 12)
    readout, used = fit_probe(x, y, classes, strength=strength)
    assert used == strength
    fresh, _ = made(list(range(classes)) * 5, seed=1)
    for inputs in (x, fresh):
        expected = reference(x, y, strength).predict_log_proba(inputs.double().numpy())
        np.testing.assert_allclose(log_proba(readout, inputs), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("labels", "folds"),
    [
        ([0, 1] * 15, 5),
        ([0, 1, 2] * 12, 5),
        ([0] * 20 + [1] * 3, 3),
        ([0] * 9 + [1] * 2 + [2] * 9, 2),
    ],
)
@pytest.mark.parametrize("seed", [0, 4])
def test_the_strength_has_the_least_log_loss_in_cross_validation(labels, folds, seed):
    x, y = made(labels, seed=seed)
    _, used = fit_probe(x, y, len(set(labels)), seed=seed)
    search = GridSearchCV(
        make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000)),
        {"logisticregression__C": STRENGTHS},
        scoring="neg_log_loss",
        cv=StratifiedKFold(folds, shuffle=True, random_state=seed),
    ).fit(x.double().numpy(), y.numpy())
    losses = dict(zip(STRENGTHS, -search.cv_results_["mean_test_score"], strict=True))
    assert losses[used] < min(losses.values()) + 0.01  # theirs weighs folds, ours examples


@pytest.mark.parametrize("width", [4, 300])
def test_probes_in_the_span_of_their_rows_are_those_on_all_features(width):
    x, y = made([0, 1, 2] * 12)
    x = torch.cat([x, torch.randn(36, width - 4, generator=torch.Generator().manual_seed(1))], 1)
    rows = x.double().numpy(), y.numpy()
    folds = list(StratifiedKFold(4, shuffle=True, random_state=0).split(*rows))
    found = cross_fitted(*rows, folds)
    for kept, held in folds:
        slow = pipeline(found.strength).fit(rows[0][kept], rows[1][kept])
        np.testing.assert_allclose(
            found.scores[held], slow.predict_log_proba(rows[0][held]), rtol=2e-2, atol=2e-2
        )
    readout, _ = fit_probe(x, y, 3, strength=0.01)
    np.testing.assert_allclose(
        log_proba(readout, x), reference(x, y, 0.01).predict_log_proba(rows[0]), atol=1e-4
    )


def test_the_way_down_ends_at_the_lowest_place_and_looks_at_few():
    for lowest in range(23):
        looked = []

        def loss(place, lowest=lowest, looked=looked):
            looked.append(place)
            return abs(place - lowest)

        assert descend(loss, 23) == lowest
        assert len(set(looked)) < 12


def test_classes_that_tell_nothing_are_regularised_more_than_classes_far_apart():
    noise, y = made([0, 1] * 30, apart=0.0)
    clear, _ = made([0, 1] * 30, apart=3.0)
    assert fit_probe(noise, y, 2)[1] < fit_probe(clear, y, 2)[1]


def test_one_example_per_class_takes_the_fallback():
    x, y = made([0, 1, 2])
    readout, used = fit_probe(x, y, ["a", "b", "c"])
    assert used == FALLBACK
    assert readout.classes == ["a", "b", "c"]
    np.testing.assert_allclose(
        log_proba(readout, x),
        reference(x, y, FALLBACK).predict_log_proba(x.double().numpy()),
        atol=1e-4,
    )
    assert readout(x).argmax(1).tolist() == [0, 1, 2]


@pytest.mark.parametrize(("labels", "rows"), [([0, 2] * 10, [0, 2]), ([1, 3, 4] * 10, [1, 3, 4])])
def test_a_class_absent_from_training_is_never_chosen(labels, rows):
    x, y = made(labels)
    readout, _ = fit_probe(x, y, 5, strength=1.0)
    expected = reference(x, y, 1.0).predict_log_proba(x.double().numpy())
    np.testing.assert_allclose(log_proba(readout, x)[:, rows], expected, rtol=1e-4, atol=1e-4)
    absent = [c for c in range(5) if c not in rows]
    assert log_proba(readout, torch.randn(50, 4) * 100)[:, absent].max() < -1000


def test_constant_and_half_precision_features_are_fitted():
    x, y = made([0, 1] * 10)
    x[:, 2] = 7.0
    x = x.bfloat16()
    readout, _ = fit_probe(x, y, 2, strength=1.0)
    assert torch.isfinite(readout(x.float())).all()
    expected = reference(x, y, 1.0).predict_log_proba(x.double().numpy())
    np.testing.assert_allclose(log_proba(readout, x.float()), expected, rtol=1e-4, atol=1e-4)


def test_the_probe_repeats_and_can_be_trained_on():
    x, y = made([0, 1, 2] * 8)
    one, two = (fit_probe(x, y, 3)[0] for _ in range(2))
    assert torch.equal(one.weight, two.weight)
    assert all(p.requires_grad and p.dtype == torch.float32 for p in one.parameters())
