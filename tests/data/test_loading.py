"""load_data and read_parts: folders, manifests and Datasets to training, validation and test
examples.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch
from small_folders import INPUTS, folder, load, names, picture, sizes, with_bad_files

from vpt.data import read_parts
from vpt.errors import BadFilesError, DataError


def test_a_folder_is_split_in_three(tmp_path):
    data = load(folder(tmp_path, cat=20, dog=10))
    assert data.classes == ["cat", "dog"]
    assert sizes(data) == [{"cat": 13, "dog": 6}, {"cat": 3, "dog": 2}, {"cat": 4, "dog": 2}]
    assert len(names(data.train) | names(data.val) | names(data.test)) == 30
    image, label = data.train[0]
    k = int(data.train.name(0)[-6:-4])
    assert (image.shape, image.dtype, label) == ((3, 8, 8), torch.float32, 0)
    assert torch.equal(image, torch.tensor([k, 0, 255]).div(255).view(3, 1, 1).expand(3, 8, 8))


def test_splits_repeat_with_their_seed(tmp_path):
    folder(tmp_path, cat=12, dog=12)
    found = [names(load(tmp_path, seed=seed).test) for seed in (0, 0, 1)]
    assert found[0] == found[1] != found[2]


def test_given_splits_are_kept(tmp_path):
    folder(tmp_path, "train", cat=4, dog=4)
    folder(tmp_path, "valid", cat=1, dog=2)
    data = load(tmp_path)
    assert sizes(data) == [{"cat": 4, "dog": 4}, {"cat": 1, "dog": 2}]
    assert data.test is None
    folder(tmp_path, "test", dog=3)
    assert sizes(load(tmp_path))[2] == {"dog": 3}


def test_validation_is_held_out_where_only_test_is_given(tmp_path):
    folder(tmp_path, "train", cat=10, dog=10)
    folder(tmp_path, "test", cat=3, dog=3)
    data = load(tmp_path, val_share=0.3)
    assert sizes(data) == [{"cat": 7, "dog": 7}, {"cat": 3, "dog": 3}, {"cat": 3, "dog": 3}]
    assert all("/train/" in name for name in names(data.val))
    assert all("/test/" in name for name in names(data.test))


def test_no_test_data_where_none_is_wanted(tmp_path):
    data = load(folder(tmp_path, cat=10, dog=10), test_share=0)
    assert data.test is None
    assert [sum(part.values()) for part in sizes(data)] == [16, 4]


def test_shots_thin_out_only_training(tmp_path):
    data = load(folder(tmp_path, cat=10, dog=10), shots=2, val_share=0.25)
    assert sizes(data) == [{"cat": 2, "dog": 2}, {"cat": 2, "dog": 2}, {"cat": 2, "dog": 2}]
    with pytest.raises(DataError, match=r"'cat' has 6 training examples; needed are 7"):
        load(tmp_path, shots=7, val_share=0.25)


def test_paths_that_hold_no_data(tmp_path):
    with pytest.raises(DataError, match=r"Found nothing at .*nowhere"):
        load(tmp_path / "nowhere")
    (tmp_path / "photos.zip").write_bytes(b"PK")
    with pytest.raises(DataError, match=r"photos\.zip is not a sound zip archive"):
        load(str(tmp_path / "photos.zip"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no labelled files"):
        load(tmp_path / "empty")


def parts(path, **more):
    return read_parts(path, INPUTS, progress=False, **more)


def test_read_parts_gives_one_split(tmp_path):
    folder(tmp_path, "train", cat=3, dog=3)
    folder(tmp_path, "test", cat=1, dog=2)
    assert Counter(parts(tmp_path).targets) == {0: 1, 1: 2}
    assert len(parts(tmp_path, part="train")) == 6


def test_read_parts_gives_everything_where_there_are_no_splits(tmp_path):
    found = parts(folder(tmp_path, cat=1))
    assert (len(found), found.classes) == (1, ["cat"])


def test_read_parts_refuses_bad_files(tmp_path):
    with pytest.raises(BadFilesError, match="4 of 16"):
        parts(with_bad_files(tmp_path))
    with pytest.raises(DataError, match="Found nothing at"):
        parts(tmp_path / "nowhere")


def test_read_parts_never_gives_another_split(tmp_path):
    folder(tmp_path, "train", cat=3, dog=3)
    folder(tmp_path, "val", cat=1, dog=1)
    with pytest.raises(DataError, match="test"):
        parts(tmp_path, part="test")


@pytest.mark.parametrize("shares", [{}, {"val_share": 0.4, "test_share": 0.1}])
def test_a_speaker_stays_on_one_side(tmp_path, shares):
    rows = ["path,label,who"]
    for k in range(60):
        picture(tmp_path / f"{k}.png", k)
        rows.append(f"{k}.png,{'cat' if k % 2 else 'dog'},{'abcdefghij'[k // 6]}")
    (tmp_path / "m.csv").write_text("\n".join(rows) + "\n")
    for seed in range(3):
        data = load(tmp_path / "m.csv", split_by="who", seed=seed, **shares)
        sides = []
        for part in data.parts.values():
            numbers = [int(Path(part.name(i)).stem) for i in range(len(part))]
            sides.append({"abcdefghij"[n // 6] for n in numbers})
        # each on one side
        assert sorted("".join("".join(side) for side in sides)) == list("abcdefghij")
        assert data.made["val"].endswith(f"held out with seed {seed}, no who on two sides")
    with pytest.raises(DataError, match="is a folder, which has no column who"):
        load(folder(tmp_path / "f", cat=3, dog=3), split_by="who")


def test_splits_that_cannot_be_made_by_a_column_are_said(tmp_path):
    for k in range(8):
        picture(tmp_path / f"{k}.png", k)
    rows = [f"{k}.png,{'cat' if k < 4 else 'dog'},{'ann' if k < 4 else 'bob'}" for k in range(8)]
    (tmp_path / "m.csv").write_text("path,label,who\n" + "\n".join(rows))
    with pytest.raises(
        DataError,
        match="No test data can be held out by who: whoever is held out, a class has no other",
    ):
        load(tmp_path / "m.csv", split_by="who")
    (tmp_path / "m.csv").write_text(
        "path,label,who\n" + "\n".join(row.replace("bob", "ann") for row in rows)
    )
    with pytest.raises(DataError, match="All examples are of one who"):
        load(tmp_path / "m.csv", split_by="who")


def test_what_was_made_of_the_data_is_known(tmp_path):
    data = load(folder(tmp_path, cat=20, dog=10), seed=3, shots=2)
    assert data.made == {
        "train": "2 of each class kept",
        "test": "20% of the training data, held out with seed 3",
        "val": "20% of the training data, held out with seed 3",
    }
