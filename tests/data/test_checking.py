"""Parts that do not go together are refused; what only looks wrong is said."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from small_folders import Torchvision, folder, load, picture, sizes, tensors

from vpt.errors import DataError


def test_a_class_with_one_example_cannot_be_split(tmp_path):
    with pytest.raises(
        DataError,
        match=r"fewer than 3 examples, one each for training, validation, test: 'dog' \(1\)",
    ):
        load(folder(tmp_path, cat=9, dog=1))


def test_classes_must_be_trained_before_they_are_tested(tmp_path):
    folder(tmp_path, "train", cat=3, dog=3)
    folder(tmp_path, "test", cat=1, emu=1)
    with pytest.raises(
        DataError, match="Classes in the test data without any training example: emu"
    ):
        load(tmp_path)


def test_one_class_is_not_enough(tmp_path):
    with pytest.raises(DataError, match=r"Found 1 class \(cat\); needed are two or more"):
        load(folder(tmp_path, cat=3))


def test_class_names_that_differ_between_parts_are_refused():
    with pytest.raises(
        DataError, match=r"test data has other classes.*\['dog', 'cat'\] and \['cat', 'dog'\]"
    ):
        load({"train": Torchvision([0, 1]), "test": Torchvision([0, 1], ("dog", "cat"))})
    with pytest.raises(DataError, match="val data has other classes"):
        load({"train": Torchvision([0, 1]), "val": Torchvision([0, 1], ("cat", "dog", "emu"))})


def test_classes_of_data_sets_must_be_trained():
    classes = ("cat", "dog", "emu")
    with pytest.raises(
        DataError, match="Classes in the val data without any training example: emu"
    ):
        load({"train": Torchvision([0, 1], classes), "val": Torchvision([0, 2], classes)})
    with pytest.raises(DataError, match=r"Found labels \[3\]; there are 3 classes"):
        load({"train": Torchvision([0, 3], classes)})
    with pytest.raises(DataError, match="Found 1 class "):
        load({"train": tensors(0, 0), "val": tensors(0)})


def test_the_same_bytes_in_two_splits_are_said(tmp_path):
    folder(tmp_path, "train", cat=4, dog=4)
    for k in range(4):
        picture(tmp_path / "train" / "dog" / f"{k:02}.png", 100 + k)
    folder(tmp_path, "test", cat=2)  # the pictures of train/cat
    picture(tmp_path / "test" / "dog" / "0.png", 200)
    data = load(tmp_path, val_share=0.5)
    found = [line for line in data.careful if "byte for byte" in line]
    # in training and in validation data that was made of it
    assert sum(int(line.split()[0]) for line in found) == 2
    text = found[0]
    assert "cat/00.png" in text or "cat/01.png" in text
    assert "says nothing" in text


def test_copies_stay_on_one_side_when_examples_are_held_out(tmp_path):
    for name, level in (("cat", 0), ("dog", 100)):
        for k in range(12):
            picture(tmp_path / name / f"{k}.png", level + k // 2)  # each picture twice
    for seed in range(5):
        data = load(tmp_path, seed=seed)
        assert data.careful == []
        assert all(min(part.values()) >= 1 for part in sizes(data))
        assert len(data.train) + len(data.val) + len(data.test) == 24


def test_copies_under_two_labels_are_said(tmp_path):
    data = load(folder(tmp_path, cat=8, dog=8))  # the same pictures under both
    assert any("are there under two labels, byte for byte" in line for line in data.careful)


def test_files_of_one_size_are_no_copies(tmp_path):
    for name in ("cat", "dog"):
        for k in range(6):
            (tmp_path / name).mkdir(exist_ok=True)
            Image.fromarray(
                np.random.default_rng([k, len(name), ord(name[0])]).integers(
                    0, 255, (8, 8, 3), np.uint8
                )
            ).save(tmp_path / name / f"{k}.bmp")
    assert load(tmp_path).careful == []


def test_given_splits_that_tear_a_speaker_are_said(tmp_path):
    for k in range(8):
        picture(tmp_path / f"{k}.png", k)
    who, split = (lambda k: "ann" if k < 6 else "bob"), (lambda k: "test" if k > 3 else "train")
    rows = [f"{k}.png,{'cat' if k % 2 else 'dog'},{who(k)},{split(k)}" for k in range(8)]
    for k in range(8, 10):
        picture(tmp_path / f"{k}.png", k)
        rows.append(f"{k}.png,{'cat' if k % 2 else 'dog'},eve,val")
    (tmp_path / "m.csv").write_text("path,label,who,split\n" + "\n".join(rows))
    data = load(tmp_path / "m.csv", split_by="who")
    assert "1 of who are in train and in test: the splits are as they were given" in data.careful
