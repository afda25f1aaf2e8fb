"""Where labels come from: folders of classes, the usual litter and the usual mistakes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from helpers import write_images
from small_folders import touch

import vpt
from vpt.data.folders import list_folder
from vpt.errors import DataError


def seen(root):
    return [
        (item.path.relative_to(root).as_posix(), item.label, item.split)
        for item in list_folder(root).items
    ]


def test_class_folders(tmp_path):
    touch(tmp_path, "dog/b.png", "cat/a.png", "cat/c.png")
    assert seen(tmp_path) == [
        ("cat/a.png", "cat", None),
        ("cat/c.png", "cat", None),
        ("dog/b.png", "dog", None),
    ]


def test_litter_is_passed_over(tmp_path):
    touch(
        tmp_path,
        "cat/a.png",
        "cat/.DS_Store",
        "cat/Thumbs.db",
        ".git/config",
        "README.txt",
        "cat/._a.png",
    )
    assert seen(tmp_path) == [("cat/a.png", "cat", None)]


def test_hidden_folders_inside_a_class_are_passed_over(tmp_path):
    touch(tmp_path, "cat/a.png", "cat/.ipynb_checkpoints/a-checkpoint.png")
    assert seen(tmp_path) == [("cat/a.png", "cat", None)]


def test_folders_inside_a_class_belong_to_it(tmp_path):
    touch(tmp_path, "cat/2024/may/a.png", "dog/b.png")
    assert seen(tmp_path) == [("cat/2024/may/a.png", "cat", None), ("dog/b.png", "dog", None)]


@pytest.mark.parametrize(
    ("folder", "split"),
    [
        ("train", "train"),
        ("training", "train"),
        ("val", "val"),
        ("valid", "val"),
        ("validation", "val"),
        ("dev", "val"),
        ("test", "test"),
        ("Train", "train"),
        ("TEST", "test"),
        ("Validation", "val"),
    ],
)
def test_split_folders_and_their_synonyms(tmp_path, folder, split):
    touch(tmp_path, f"{folder}/cat/a.png", f"{folder}/dog/b.png")
    assert seen(tmp_path) == [
        (f"{folder}/cat/a.png", "cat", split),
        (f"{folder}/dog/b.png", "dog", split),
    ]


def test_several_splits(tmp_path):
    touch(tmp_path, "train/cat/a.png", "valid/cat/b.png", "test/dog/c.png", ".cache/x/y.png")
    assert {(label, split) for _, label, split in seen(tmp_path)} == {
        ("cat", "train"),
        ("cat", "val"),
        ("dog", "test"),
    }


def test_a_folder_beside_the_splits_is_not_silently_a_class(tmp_path):
    touch(tmp_path, "train/cat/a.png", "test/cat/b.png", "unlabeled/x/c.png")
    with pytest.raises(DataError, match="unlabeled"):
        list_folder(tmp_path)


def test_unicode_and_spaces_in_class_names(tmp_path):
    touch(tmp_path, "été/a.png", "猫/b.png", "two words/c.png")
    assert [label for _, label, _ in seen(tmp_path)] == ["two words", "été", "猫"]


@pytest.mark.parametrize("names", [(), ("a.png",), ("cat/.hidden",), ("train/a.png",)])
def test_folders_without_labelled_files_are_refused(tmp_path, names):
    touch(tmp_path, *names)
    with pytest.raises(
        DataError,
        match="holds no labelled files; needed are files at CLASS/FILE or SPLIT/CLASS/FILE",
    ):
        list_folder(tmp_path)


def test_other_files_are_left_out_and_counted(tmp_path):
    """desktop.ini in a class folder stopped the whole run."""
    touch(
        tmp_path,
        "cat/a.png",
        "cat/desktop.ini",
        "dog/b.png",
        "dog/notes.txt",
        "dog/c.md",
        "dog/d.csv",
    )
    found = list_folder(tmp_path)
    assert [item.path.name for item in found.items] == ["a.png", "b.png"]
    assert found.notes == [
        "4 files (desktop.ini, c.md, d.csv, …) left out: neither pictures nor sound"
    ]
    assert found.kind == "image"


def test_empty_class_folders_are_said(tmp_path):
    touch(tmp_path, "train/cat/a.png", "train/dog/b.png")
    (tmp_path / "train" / "emu").mkdir()
    found = list_folder(tmp_path)
    assert found.careful == ["class folder emu of train without files: left out"]
    assert {item.label for item in found.items} == {"cat", "dog"}


def test_classes_one_level_too_deep_are_said(tmp_path):
    """day1/rain, day2/rain: the classes were day1 and day2, silently."""
    touch(tmp_path, "day1/rain/a.png", "day1/sun/b.png", "day2/rain/c.png", "day2/sun/d.png")
    (text,) = list_folder(tmp_path).careful
    assert (
        "the class folders (day1, day2) hold no files of their own, but folders of the same names"
        " (rain, sun)" in text
    )
    assert "one level too deep" in text


def test_folders_inside_classes_that_differ_are_not_doubted(tmp_path):
    touch(tmp_path, "cat/2024/a.png", "cat/2025/b.png", "dog/2023/c.png", "dog/d.png")
    assert list_folder(tmp_path).careful == []


def test_what_is_no_plain_file_belongs_to_no_class(tmp_path):
    """A pipe was opened, and waited for, for ever."""
    touch(tmp_path, "cat/a.png", "dog/b.png")
    os.mkfifo(tmp_path / "cat" / "pipe.png")
    (tmp_path / "cat" / "nothing.png").symlink_to(tmp_path / "gone.png")
    found = {item.path.name: item.misplaced for item in list_folder(tmp_path).items}
    assert found == {
        "a.png": None,
        "b.png": None,
        "pipe.png": "no plain file",
        "nothing.png": "a link to nothing",
    }


@pytest.mark.parametrize("deep", ["photos", "my/photos"])
def test_classes_that_lie_too_deep_under_one_folder_are_said(tmp_path: Path, deep: str) -> None:
    """The commonest slip: the folder around the folder of classes."""
    write_images(tmp_path / "data" / deep, per_class=4)
    with pytest.raises(DataError, match=r"Found 1 class .*Careful: .*one level too deep"):
        vpt.load_data(tmp_path / "data", vpt.Images((32, 32)))
