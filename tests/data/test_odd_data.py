"""Data that look right and are not: each is refused by name, or said before it is learned from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from families import open_tiny
from helpers import colours
from PIL import Image
from torch.utils.data import Dataset

import vpt
from vpt.data import load_data, look
from vpt.data.augment import in_views
from vpt.errors import DataError

INPUTS = vpt.Images(32)


class Listed(Dataset):
    """A data set that lists its targets, and changes them as torchvision's do."""

    def __init__(self, targets: list[int], change: object = None, said: bool = True) -> None:
        self.targets, self.change = targets, change or (lambda y: y)
        if said:
            self.target_transform = change

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, i: int) -> tuple:
        return torch.full((3, 32, 32), i / len(self)), self.change(self.targets[i])


@pytest.mark.parametrize("said", [True, False])
def test_labels_are_those_of_the_items_where_they_are_changed(said: bool) -> None:
    """The listed targets were taken, and the wrong labels learned."""
    data = load_data(
        {"train": Listed([0, 1] * 10, lambda y: 1 - y, said), "val": Listed([0, 1] * 3)}, INPUTS
    )
    assert data.train.targets == [1, 0] * 10
    assert data.val.targets == [0, 1] * 3


class Failing(Listed):
    def __getitem__(self, i: int) -> tuple:
        return super().__getitem__(i) if i < 4 else 1 / 0


@pytest.mark.parametrize(
    ("source", "more", "message"),
    [
        (Failing([0, 1] * 4), {}, "Example 4 of Failing cannot be read: ZeroDivisionError"),
        (Listed([0, 10**12] * 10), {}, "labels number the classes from 0"),
        (Listed([0, 1] * 10), {"classes": [7, 8]}, "Found classes"),
    ],
)
def test_data_sets_that_cannot_be_used(source: Dataset, more: dict, message: str) -> None:
    with pytest.raises(DataError, match=message):
        load_data(source, INPUTS, **more)


def test_what_loaded_data_cannot_be_told_any_more() -> None:
    """A number of shots was taken no notice of."""
    data = load_data({"train": colours(30), "val": colours(6, 1)}, INPUTS)
    with pytest.raises(DataError, match="Found shots, label for data that are loaded already"):
        load_data(data, INPUTS, shots=1, label="x")
    with pytest.raises(DataError, match="Found shots"):
        vpt.adapt(data, open_tiny("timm ViT"), shots=1, progress=False)


def test_parts_that_cannot_say_how_good_a_model_is() -> None:
    train = colours(30)
    some = train.subset([i for i in range(12) if train.targets[i] != 1])
    data = load_data({"train": train, "val": colours(6, 1), "test": some}, INPUTS)
    assert any("the test data have no examples of green" in text for text in data.careful)
    assert any("the test data are training data" in text for text in data.careful)
    assert not any("validation" in text for text in data.careful)


def pictures(root: Path, *folders: str) -> Path:
    for number, folder in enumerate(folders):
        (root / folder).mkdir(parents=True)
        for i in range(4):
            Image.new("RGB", (32, 32), (number * 40, i * 50, 9)).save(root / folder / f"{i}.png")
    return root


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        (("training_set/training_set/cat", "test_set/test_set/cat"), "called like splits"),
        (("training_set/training_set", "test_set/test_set"), "lie one level too deep"),
        (("animals/cat", "animals/dog", "plants/oak", "plants/elm"), "lie one level too deep"),
    ],
)
def test_folders_that_are_hardly_the_classes(
    folders: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    assert any(message in text for text in look(pictures(tmp_path, *folders)).listing.careful)


def test_folders_within_classes_are_nothing_odd(tmp_path: Path) -> None:
    assert look(pictures(tmp_path, "cat/images", "dog/images")).listing.careful == []


def test_a_folder_has_no_columns(tmp_path: Path) -> None:
    root = pictures(tmp_path, "cat", "dog")
    for columns in ({"label": "x"}, {"group": "x"}, {"group": ("x", "y")}, {"split_by": "x"}):
        with pytest.raises(DataError, match="is a folder, which has no column x"):
            look(root, **columns)


def test_spaces_beside_the_names_of_columns(tmp_path: Path) -> None:
    pictures(tmp_path, "cat", "dog")
    rows = [f"{name}/{i}.png, {name}" for name in ("cat", "dog") for i in range(4)]
    (tmp_path / "table.csv").write_text("\n".join(["path, label", *rows]))
    assert load_data(tmp_path / "table.csv", INPUTS, progress=False).classes == ["cat", "dog"]


def test_what_was_held_out_is_said_as_it_came_to(tmp_path: Path) -> None:
    """Of three speakers a fifth is no whole one."""
    pictures(tmp_path, "cat", "dog")
    rows = [f"{name}/{i}.png,{name},s{i % 3}" for name in ("cat", "dog") for i in range(4)]
    (tmp_path / "table.csv").write_text("\n".join(["path,label,speaker", *rows]))
    made = load_data(tmp_path / "table.csv", INPUTS, split_by="speaker", progress=False).made
    assert "(20% asked for), held out with seed 0, no speaker on two sides" in made["val"]
    assert not made["val"].startswith("20%")


def test_views_do_not_depend_on_files_that_are_not_learned_from() -> None:
    x = torch.rand(6, 3, 32, 32)
    whole = vpt.data.Examples(list(x).__getitem__, [0] * 6, ["a"])
    late = vpt.data.Examples(
        list(torch.cat([torch.rand(2, 3, 32, 32), x])).__getitem__, [0] * 8, ["a"]
    ).subset(range(2, 8))
    one, other = (in_views(examples, "crop", 3, seed=1).views()[2] for examples in (whole, late))
    assert all(np.array_equal(one[i][0], other[i][0]) for i in range(6))
