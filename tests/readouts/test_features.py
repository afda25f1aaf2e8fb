"""Readouts: the model's own classes, a linear classifier, nearest class means."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestCentroid

from vpt.errors import DataError, PromptError
from vpt.readouts import READOUTS, Identity, Linear, NearestMean


def backbone(names=None, classes=None, width=4):
    return SimpleNamespace(
        class_names=names,
        classes=len(names) if classes is None and names else classes,
        out_features=width,
    )


ANIMALS = backbone(["ant", "bee", "cat", "dog"])
LOGITS = torch.arange(8.0).view(2, 4)


def features(n, width, classes, seed=0, offset=0.0):
    generator = torch.Generator().manual_seed(seed)
    y = torch.randint(classes, (n,), generator=generator)
    y[:classes] = torch.arange(classes)
    return (
        torch.randn(n, width, generator=generator)
        + 2 * torch.randn(classes, width, generator=generator)[y]
        + offset,
        y,
    )


@pytest.mark.parametrize("make", [Identity, lambda c: Linear(4, c), lambda c: NearestMean(4, c)])
@pytest.mark.parametrize("classes", [[], ["a", "a"], 0, -3])
def test_class_lists_must_have_different_names(make, classes):
    with pytest.raises(PromptError, match="Found classes="):
        make(classes)


def test_readouts_are_found_by_name():
    assert all(cls.__name__ == name for name, cls in READOUTS.classes.items())
    assert set(READOUTS.classes) >= {"Identity", "Linear", "NearestMean", "LabelMap", "TaskHeads"}


# --- Identity ---------------------------------------------------------------------------


def test_identity_gives_all_logits_and_takes_the_models_names():
    readout = Identity()
    readout.bind(ANIMALS)
    assert (readout.classes, readout.count) == (["ant", "bee", "cat", "dog"], 4)
    assert torch.equal(readout(LOGITS), LOGITS)
    readout = Identity()
    readout.bind(backbone(None, 7))
    assert (readout.classes, readout.count) == (None, 7)


def test_identity_finds_classes_by_name_in_the_order_wanted():
    readout = Identity(["dog", "ant"])
    readout.bind(ANIMALS)
    assert readout(LOGITS).tolist() == [[3, 0], [7, 4]]
    assert (readout.count, readout.reads, readout.trainable) == (2, "logits", False)


def test_identity_by_index():
    readout = Identity(["x", "y", "z"], index=[2, 3, 0])
    readout.bind(backbone(None, 4))
    assert readout(LOGITS).tolist() == [[2, 3, 0], [6, 7, 4]]
    with pytest.raises(PromptError, match="two classes one logit"):
        Identity(["x", "y"], index=[1, 1])
    bare = Identity(index=[3])
    bare.bind(ANIMALS)
    assert (bare.count, bare(LOGITS).tolist()) == (1, [[3], [7]])


def test_identity_names_the_classes_that_are_not_there():
    with pytest.raises(
        PromptError,
        match=r"2 of 3 classes are not among the model's own: Ant, emu\. The model's are ant, bee",
    ):
        Identity(["Ant", "bee", "emu"]).bind(ANIMALS)


def test_identity_needs_a_classifier_and_names_or_an_index():
    with pytest.raises(PromptError, match=r"has none. Use vpt\.Linear"):
        Identity().bind(backbone(None, 0))
    with pytest.raises(PromptError, match=r"does not name its classes.*index="):
        Identity(["ant"]).bind(backbone(None, 4))
    with pytest.raises(PromptError, match="Found 1 indices for 2 classes"):
        Identity(["a", "b"], index=[0])


@pytest.mark.parametrize("index", [[4], [-1, 0]])
def test_identity_indices_must_be_logits_of_the_model(index):
    with pytest.raises(PromptError, match=r"the model has logits 0 to 3"):
        Identity(index=index).bind(ANIMALS)


@pytest.mark.parametrize("readout", [Identity(["dog", "ant"]), Identity(["x", "y"], index=[1, 0])])
def test_identity_is_rebuilt_from_its_config(readout):
    readout.bind(ANIMALS)
    again = Identity(**readout.config())
    again.bind(ANIMALS)
    assert torch.equal(again(LOGITS), readout(LOGITS))
    assert again.classes == readout.classes


def test_identity_keeps_names_when_rebuilt_for_another_order():
    readout = Identity(["dog", "ant"])
    readout.bind(ANIMALS)
    again = Identity(**readout.config())
    again.bind(backbone(["dog", "cat", "bee", "ant"]))
    assert again(LOGITS).tolist() == [[0, 3], [4, 7]]


def test_identity_bound_to_another_backbone_finds_its_names_anew():
    readout = Identity(["dog", "ant"])
    readout.bind(ANIMALS)
    readout.bind(backbone(["dog", "cat", "bee", "ant"]))
    assert readout(LOGITS).tolist() == [[0, 3], [4, 7]]


def test_identity_needs_at_least_one_class():
    with pytest.raises(PromptError):
        Identity(index=[]).bind(ANIMALS)


def test_identity_refuses_a_name_that_the_model_has_twice():
    with pytest.raises(PromptError, match="crane"):
        Identity(["crane", "bee"]).bind(backbone(["crane", "bee", "crane"]))


# --- Linear -----------------------------------------------------------------------------


def test_linear_starts_without_a_favourite_and_is_an_affine_map():
    readout, x = (
        Linear(4, ["a", "b", "c"]),
        torch.randn(5, 4, generator=torch.Generator().manual_seed(0)),
    )
    assert not readout(x).any()
    with torch.no_grad():
        readout.weight[1], readout.bias[2] = torch.tensor([1.0, 0, -1, 2]), 5.0
    expected = torch.stack(
        [torch.zeros(5), x[:, 0] - x[:, 2] + 2 * x[:, 3], torch.full((5,), 5.0)], 1
    )
    torch.testing.assert_close(readout(x), expected)
    readout(x).sum().backward()
    torch.testing.assert_close(readout.weight.grad[0], x.sum(0))


@pytest.mark.parametrize("kind", [Linear, NearestMean])
def test_readouts_of_features_check_the_width(kind):
    kind(4, 3).bind(ANIMALS)
    with pytest.raises(
        PromptError,
        match=rf"Found {kind.__name__}\(5, …\) for features of width 4; use vpt\.{kind.__name__}",
    ):
        kind(5, 3).bind(ANIMALS)
    for width, classes in ((0, 3), (4, None)):
        with pytest.raises(PromptError, match=rf"Found features={width}, classes={classes}"):
            kind(width, classes)


@pytest.mark.parametrize("kind", [Linear, NearestMean])
@pytest.mark.parametrize("classes", [3, ["a", "猫"]])
def test_readouts_of_features_are_rebuilt_from_their_config(kind, classes):
    again = kind(**kind(4, classes).config())
    assert again.size == (3 if classes == 3 else 2, 4)
    assert again.classes == (None if classes == 3 else classes)


def test_numbers_of_numpy_count_as_numbers():
    assert Linear(4, np.int64(3)).count == 3


def test_one_string_is_not_a_list_of_classes():
    with pytest.raises(PromptError):
        Linear(4, "cat")


# --- NearestMean ------------------------------------------------------------------------


def test_nearest_mean_by_hand():
    readout = NearestMean(2, ["a", "b"])
    # means (1, 0) and (5, 1)
    readout.update(torch.tensor([[0.0, 0.0], [2.0, 0.0], [5.0, 1.0]]), torch.tensor([0, 0, 1]))
    torch.testing.assert_close(
        readout(torch.tensor([[1.0, 0.0], [4.0, 0.0]])), -torch.tensor([[0.0, 17.0], [9.0, 2.0]])
    )


@pytest.mark.parametrize(("n", "width", "classes"), [(12, 3, 2), (40, 8, 5), (300, 16, 40)])
def test_nearest_mean_agrees_with_scikit_learn(n, width, classes):
    x, y = features(n, width, classes)
    readout = NearestMean(width, classes)
    for part in torch.arange(n).split(7):
        readout.update(x[part], y[part])
    fresh = features(200, width, classes, seed=1)[0]
    reference = NearestCentroid().fit(x.double().numpy(), y.numpy())
    assert readout(fresh).argmax(1).tolist() == reference.predict(fresh.double().numpy()).tolist()
    distances = ((fresh.double()[:, None] - torch.from_numpy(reference.centroids_)) ** 2).sum(2)
    torch.testing.assert_close(readout(fresh).double(), -distances, rtol=1e-4, atol=1e-3)


def test_nearest_mean_does_not_depend_on_the_size_of_the_batch():
    x, y = features(300, 64, 30, offset=300.0)
    readout = NearestMean(64, 30)
    readout.update(x, y)
    means = torch.stack([x[y == c].double().mean(0) for c in range(30)])
    torch.testing.assert_close(
        readout(x).double(), -((x.double()[:, None] - means) ** 2).sum(2), rtol=1e-2, atol=0.1
    )


def test_nearest_mean_takes_half_precision():
    readout = NearestMean(2, 2)
    readout.update(torch.tensor([[1.0, 0], [0, 1]]).half(), torch.tensor([0, 1]))
    torch.testing.assert_close(
        readout(torch.tensor([[1.0, 0]]).half()), torch.tensor([[0.0, -2.0]])
    )


def test_classes_never_seen_are_never_chosen():
    readout = NearestMean(2, 3)
    readout.update(torch.tensor([[9.0, 9.0]]), torch.tensor([2]))
    torch.testing.assert_close(
        readout(torch.zeros(1, 2)), torch.tensor([[float("-inf"), float("-inf"), -162.0]])
    )


def test_nearest_mean_before_updates_after_reset_and_with_wrong_labels():
    readout = NearestMean(2, 2)
    with pytest.raises(PromptError, match="has seen no examples"):
        readout(torch.zeros(1, 2))
    readout.update(torch.ones(0, 2), torch.zeros(0, dtype=torch.long))
    readout.update(torch.ones(1, 2), torch.tensor([1]))
    assert readout(torch.ones(1, 2)).argmax() == 1
    readout.reset()
    with pytest.raises(PromptError, match="has seen no examples"):
        readout(torch.zeros(1, 2))
    for labels in ([0, 2], [-1, 0]):
        with pytest.raises(
            DataError, match=rf"labels from {min(labels)} to {max(labels)}; there are 2 classes"
        ):
            readout.update(torch.ones(2, 2), torch.tensor(labels))
    assert not readout.counts.any()


def test_nearest_mean_learns_without_gradients():
    readout = NearestMean(2, 2)
    assert (readout.trainable, readout.refresh, list(readout.parameters())) == (False, "epoch", [])
    readout.update(torch.ones(1, 2, requires_grad=True), torch.tensor([1]))
    assert not readout.sums.requires_grad
    assert set(readout.state_dict()) == {"sums", "counts"}
