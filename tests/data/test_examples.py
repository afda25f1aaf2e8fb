"""Labelled examples: files kept in memory, subsets, and Datasets of other people."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.utils.data import Dataset, Subset, TensorDataset

from vpt.data import examples as module
from vpt.data.examples import Examples, Files, wrap
from vpt.errors import DataError


def same(x):
    return x


class Reads:
    """A reader that counts, and fails for names that begin with bad."""

    def __init__(self, make=lambda: torch.full((3, 2, 2), 51, dtype=torch.uint8)):
        self.seen, self.make = [], make

    def __call__(self, path):
        self.seen.append(path.name)
        if path.name.startswith("bad"):
            raise DataError("not an image")
        return self.make()


def test_files_are_read_once_and_uint8_becomes_a_share_of_255():
    read = Reads()
    files = Files([Path("a"), Path("b")], read)
    for _ in range(2):
        assert files(0).dtype == torch.float32
        assert torch.equal(files(0), torch.full((3, 2, 2), 0.2))
    assert read.seen == ["a"]


def test_changing_what_was_given_does_not_change_what_is_kept():
    files = Files([Path("a")], Reads())
    files(0).zero_()
    assert torch.equal(files(0), torch.full((3, 2, 2), 0.2))


def test_floats_and_sound_are_handed_on_as_they_are():
    files = Files([Path("a")], Reads(lambda: (torch.tensor([0.5, -0.5]), 2)))
    waveform, length = files(0)
    assert (waveform.tolist(), length) == ([0.5, -0.5], 2)


def test_files_beyond_the_budget_are_read_again(monkeypatch):
    monkeypatch.setattr(module, "CACHE_BYTES", 20)  # one image of 12 bytes fits, two do not
    read = Reads()
    files = Files([Path("a"), Path("b")], read)
    for _ in range(2):
        files(0)
        files(1)
    assert read.seen == ["a", "b", "b"]


def test_a_bad_file_is_named_and_reasoned():
    files = Files([Path("dir/bad.png"), Path("good.png")], Reads())
    with pytest.raises(DataError, match=r"^dir/bad\.png: not an image$"):
        files(0)
    assert files.reason(0) == "not an image"
    assert files.reason(1) is None


def example_set(**more):
    return Examples(lambda i: f"x{i}", [0, 1, 1, 0], ["cat", "dog"], **more)


def test_items_without_and_with_groups():
    assert [example_set()[i] for i in range(2)] == [("x0", 0), ("x1", 1)]
    assert example_set(groups=[5, 6, 7, 8], group_names=list("abcdefghi"))[2] == ("x2", 1, 7)


def test_subsets_of_subsets_keep_order_labels_groups_names():
    data = example_set(
        groups=[0, 1, 0, 1],
        group_names=["f", "m"],
        names=["n0", "n1", "n2", "n3"],
        sample_rate=8000,
        named=False,
    )
    part = data.subset([3, 2, 0]).subset([2, 0])
    assert len(part) == 2
    assert [part[i] for i in range(2)] == [("x0", 0, 0), ("x3", 0, 1)]
    assert part.targets == [0, 0]
    assert [part.name(i) for i in range(2)] == ["n0", "n3"]
    assert (part.sample_rate, part.named, part.group_names, part.classes) == (
        8000,
        False,
        ["f", "m"],
        ["cat", "dog"],
    )


def test_examples_without_names_are_called_by_number():
    assert example_set().subset([2]).name(0) == "2"


@pytest.mark.parametrize("labels", [[0, 2], [-1, 0], [7, 0]])
def test_labels_out_of_range_are_refused(labels):
    wrong = [y for y in labels if y not in (0, 1)]
    with pytest.raises(
        DataError, match=rf"Found labels \[{wrong[0]}\]; there are 2 classes, so labels are 0 to 1"
    ):
        Examples(same, labels, ["cat", "dog"])


def test_labels_out_of_range_do_not_matter_where_they_are_not_used():
    assert Examples(same, [0, -1, 1], ["cat", "dog"], indices=[0, 2]).targets == [0, 1]


# --- other people's data sets -----------------------------------------------------------


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
    data = example_set()
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
