"""Zip archives of a folder."""

from __future__ import annotations

import gc
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import vpt
from vpt.data import read_parts
from vpt.data.archives import Archive
from vpt.errors import BadFilesError, DataError

INPUTS = vpt.Images(size=(8, 8))


def pack(path: Path, inside: str = "", bad: bool = False) -> Path:
    """Four pictures of each of two classes, under `inside`."""
    picture = path.with_suffix(".png")
    with zipfile.ZipFile(path, "w") as archive:
        for number, label in enumerate(("cat", "dog")):
            for k in range(4):
                Image.fromarray(np.full((8, 8, 3), 20 * k + number, np.uint8)).save(picture)
                archive.write(picture, f"{inside}{label}/{k}.png")
        if bad:
            archive.writestr(f"{inside}dog/bad.png", b"")
        archive.writestr("__MACOSX/._x", b"x")
    return path


@pytest.mark.parametrize("inside", ["", "photos/", "a/b/", "train/"])
def test_a_zipped_folder_is_that_folder(tmp_path: Path, inside: str) -> None:
    data = vpt.load_data(
        pack(tmp_path / "d.zip", inside), INPUTS, val_share=0.25, test_share=0.25, progress=False
    )
    assert data.classes == ["cat", "dog"]
    whole = [part for part in (data.train, data.val, data.test) if part is not None]
    seen = sorted(
        round(float(part[i][0][0, 0, 0]) * 255) for part in whole for i in range(len(part))
    )
    assert seen == sorted(20 * k + number for k in range(4) for number in range(2))


def test_bad_files_are_named_as_they_are_called_in_the_archive(tmp_path: Path) -> None:
    path = pack(tmp_path / "d.zip", "photos/", bad=True)
    with pytest.raises(BadFilesError, match=r"d\.zip/photos/dog/bad\.png: empty file"):
        vpt.load_data(path, INPUTS, progress=False)
    assert len(read_parts(pack(tmp_path / "e.zip"), INPUTS, progress=False)) == 8


def test_it_is_gone_with_the_data(tmp_path: Path) -> None:
    data = vpt.load_data(pack(tmp_path / "d.zip"), INPUTS, progress=False)
    folder = data.train.get.keep._place
    assert folder.is_dir()
    del data
    gc.collect()
    assert not folder.exists()


def test_upward_names_stay_inside_and_damaged_archives_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "up.zip", "w") as archive:
        archive.writestr("../../evil/a.png", b"x")
    archive = Archive(tmp_path / "up.zip")
    assert not (tmp_path.parent / "evil").exists()
    assert archive.root.is_dir()
    whole = pack(tmp_path / "d.zip").read_bytes()
    for data in (b"", b"PK", whole[: len(whole) // 2]):
        (tmp_path / "cut.zip").write_bytes(data)
        with pytest.raises(DataError, match="not a sound zip archive"):
            vpt.load_data(tmp_path / "cut.zip", INPUTS, progress=False)


def test_a_manifest_in_it_says_labels_and_splits(tmp_path: Path) -> None:
    pack(tmp_path / "d.zip", "photos/all/")
    with zipfile.ZipFile(tmp_path / "d.zip", "a") as archive:
        rows = [
            f"all/{label}/{k}.png,{'xy'[k % 2]},{'test' if k > 1 else 'train'}"
            for label in ("cat", "dog")
            for k in range(4)
        ]
        archive.writestr("photos/labels.csv", "path,label,split\n" + "\n".join(rows) + "\n")
    data = vpt.load_data(tmp_path / "d.zip", INPUTS, val_share=0.5, progress=False)
    assert data.classes == ["x", "y"]
    assert len(data.test) == 4
    assert data.test.name(0).startswith(f"{tmp_path / 'd.zip'}/photos/all/")


def test_what_lies_beside_the_folder_and_names_in_utf_8_without_a_flag(tmp_path: Path) -> None:
    whole = tmp_path / "e.zip"
    with (
        zipfile.ZipFile(pack(tmp_path / "d.zip", "photos/")) as old,
        zipfile.ZipFile(whole, "w") as new,
    ):
        new.writestr("README.txt", "hello")
        for info in old.infolist():
            new.writestr(zipfile.ZipInfo(info.filename.replace("cat/", "@@@@/")), old.read(info))
    # Python would set the flag
    whole.write_bytes(whole.read_bytes().replace(b"@@@@", "\u00e9 c".encode()))
    data = vpt.load_data(whole, INPUTS, val_share=0.25, test_share=0.25, progress=False)
    assert data.classes == ["dog", "\u00e9 c"]


def test_training_data_alone_are_not_scored_as_test_data(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no test split"):
        read_parts(pack(tmp_path / "d.zip", "train/"), INPUTS, progress=False)


def test_examples_of_files_may_be_pickled(tmp_path: Path) -> None:
    data = vpt.load_data(pack(tmp_path / "d.zip"), INPUTS, progress=False)
    twin = pickle.loads(pickle.dumps(data.train))
    assert np.array_equal(twin[0][0], data.train[0][0])


def test_names_that_claim_to_be_utf_8_and_are_not(tmp_path: Path) -> None:
    """A UnicodeDecodeError."""
    pack(tmp_path / "d.zip")
    with zipfile.ZipFile(tmp_path / "d.zip", "a") as archive:
        archive.writestr("é/a.png", b"x")
    data = (tmp_path / "d.zip").read_bytes()
    (tmp_path / "d.zip").write_bytes(data.replace("é".encode(), b"\xff\xfe"))
    with pytest.raises(DataError, match="not a sound zip archive"):
        vpt.load_data(tmp_path / "d.zip", INPUTS, progress=False)


@pytest.mark.parametrize("place", ["../{name}/cat.png", "{folder}/{name}/cat.png"])
def test_a_table_in_an_archive_names_nothing_outside_of_it(place: str, tmp_path: Path) -> None:
    """Twelve pictures from beside it were read, and an absolute path was a ValueError."""
    (tmp_path / "own").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "own" / "cat.png")
    with zipfile.ZipFile(tmp_path / "d.zip", "w") as archive:
        archive.write(tmp_path / "own" / "cat.png", "in.png")
        named = place.format(name="own", folder=tmp_path)
        archive.writestr("m.csv", f"path,label\nin.png,cat\n{named},dog\n")
    with pytest.raises(DataError, match=r"lie outside of the archive|are not there"):
        vpt.load_data(tmp_path / "d.zip", INPUTS, progress=False)
