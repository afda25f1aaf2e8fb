"""Datasets of torchvision and others as parts of a data set."""

from __future__ import annotations

import pytest
import torch
from small_folders import Torchvision, load, tensors

from vpt.data import Data
from vpt.errors import DataError


def test_pil_pictures_of_torchvision_data_sets_are_fitted():
    data = load(Torchvision([0, 1] * 5, size=(20, 9)))
    image, label = data.train[0]
    assert (image.shape, label, data.classes, data.skipped) == (
        (3, 8, 8),
        data.train.targets[0],
        ["cat", "dog"],
        [],
    )
    torch.testing.assert_close(image, torch.tensor([0.2, 0, 0]).view(3, 1, 1).expand(3, 8, 8))


def test_tensors_are_handed_on_with_groups():
    data = load([(*item, 1) for item in tensors(*[0, 1] * 6)], classes=["a", "b"])
    assert data.classes == ["a", "b"]
    x, y, group = data.val[0]
    assert torch.equal(x, torch.full((3, 8, 8), 0.1 * y))
    assert group == 1


def test_a_mapping_of_data_sets():
    data = load({"train": tensors(0, 1, 1), "val": tensors(1, 0), "test": None})
    assert [len(data.train), len(data.val), data.test] == [3, 2, None]
    assert data.classes == ["0", "1"]
    assert load(data) is data
    assert isinstance(data, Data)


@pytest.mark.parametrize(
    "source", [{"holdout": []}, {"val": tensors(0, 1)}, {"train": tensors(0, 1), "extra": []}, {}]
)
def test_mappings_need_train_and_know_no_more_than_three_parts(source):
    with pytest.raises(DataError, match="needed is 'train', and if wanted 'val' and 'test'"):
        load(source)


def test_empty_data_sets_are_refused():
    with pytest.raises(DataError, match="without examples"):
        load({"train": tensors(0, 1), "val": []})


def test_unnamed_parts_need_not_hold_every_class():
    assert load({"train": tensors(0, 1, 2), "val": tensors(0, 1)}).classes == ["0", "1", "2"]


@pytest.mark.parametrize("source", [None, 3, {"train": None}])
def test_what_is_no_data_is_refused(source):
    with pytest.raises(DataError):
        load(source)
