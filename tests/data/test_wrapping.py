"""Other people's data sets as examples, and what is refused of them."""

from __future__ import annotations

import pytest
import torch
from torch.utils.data import Dataset, Subset, TensorDataset

from vpt.data.examples import Examples
from vpt.data.wrapping import wrap
from vpt.errors import DataError


def same(x):
    return x


class Torchvision(Dataset):
    """As torchvision's: .classes and .targets, and items that are dear to read."""

    classes = ("café", "猫")

    def __init__(self, targets):
        self.targets, self.read = targets, []

    def __len__(self):
        return len(self.targets)

    def __getitem__(self, i):
        self.read.append(i)
        return f"picture {i}", int(self.targets[i])


@pytest.mark.parametrize("kind", [list, torch.tensor])
def test_targets_and_classes_are_used_without_reading_every_item(kind):
    data = Torchvision(kind([1, 0, 1] * 100))
    wrapped = wrap(data, None, str.upper)
    assert (wrapped.targets, wrapped.classes, wrapped.named) == (
        [1, 0, 1] * 100,
        ["café", "猫"],
        True,
    )
    assert len(set(data.read)) <= 8  # a few, to see whether they have the labels that are listed
    assert wrapped[2] == ("PICTURE 2", 1)


def test_given_classes_go_before_the_data_sets_own():
    assert wrap(Torchvision([0, 1]), ["a", "b"], same).classes == ["a", "b"]
    with pytest.raises(DataError, match="Found labels"):
        wrap(Torchvision([0, 1]), ["a"], same)


def test_items_of_three_have_groups():
    wrapped = wrap([("x", 0, 2), ("y", 1, 0)], None, same)
    assert [wrapped[i] for i in range(2)] == [("x", 0, 2), ("y", 1, 0)]
    assert wrapped.group_names == ["0", "1", "2"]
    assert (wrapped.classes, wrapped.named) == (["0", "1"], False)


def test_tensor_data_sets_and_subsets_work():
    data = TensorDataset(torch.arange(4.0), torch.tensor([0, 1, 0, 2]))
    wrapped = wrap(Subset(data, [3, 1]), None, same)
    assert (wrapped.targets, wrapped.classes) == ([2, 1], ["0", "1", "2"])
    assert float(wrapped[0][0]) == 3.0


def test_examples_pass_through_untouched():
    data = Examples(same, [0, 1], ["cat", "dog"])
    assert wrap(data, ["other", "names"], same) is data


def test_the_sample_rate_of_a_data_set_is_kept():
    class Clips(list):
        sample_rate = 22050

    assert wrap(Clips([("x", 0), ("y", 1)]), None, same).sample_rate == 22050


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (["ab", "cd"], "str"),
        ([{"image": 0, "label": 1}], "dict"),
        ([(1,)], "tuple"),
        ([(1, 2, 3, 4)], "tuple"),
        ([torch.zeros(2)], "Tensor"),
    ],
)
def test_items_of_another_kind_are_refused(data, found):
    with pytest.raises(DataError, match=rf"items are {found}; needed is \(input, label\)"):
        wrap(data, None, same)


NOT_NUMBERS = [
    pytest.param([("x", "cat"), ("y", "dog")], id="text"),
    pytest.param([("x", None), ("y", None)], id="none"),
    pytest.param([("x", torch.tensor([0, 1])), ("y", torch.tensor([1, 0]))], id="one-hot"),
    pytest.param([("x", float("nan")), ("y", 0)], id="nan"),
    pytest.param([("x", 0.7), ("y", 1.2)], id="fractions"),
    pytest.param([("x", 0, 1), ("y", 1)], id="group-missing"),
]


@pytest.mark.parametrize("data", NOT_NUMBERS)
def test_labels_that_are_no_class_numbers_are_refused(data):
    with pytest.raises(DataError):
        wrap(data, None, same)


def test_targets_of_another_length_are_refused():
    data = Torchvision([0, 1, 0])
    data.targets = [0, 1, 0, 1, 0]
    data.__class__ = type("Short", (Torchvision,), {"__len__": lambda self: 3})
    with pytest.raises(DataError, match="5"):
        wrap(data, None, same)


def test_iterable_data_sets_are_refused():
    class Stream(torch.utils.data.IterableDataset):
        def __iter__(self):
            yield "x", 0

    with pytest.raises(DataError):
        wrap(Stream(), None, same)
