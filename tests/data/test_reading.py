"""Listed files: each is read once, and every one that cannot be used is named."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from small_folders import INPUTS, folder, load, picture, sizes, with_bad_files

from vpt.backbones.inputs.sound import Sound
from vpt.data.checking import check_sizes
from vpt.data.files import Files
from vpt.data.looking import Source
from vpt.data.reading import file_examples
from vpt.data.sources import Columns, Item, Listing
from vpt.data.splits import hold_out
from vpt.errors import BadFilesError, DataError


def test_every_bad_file_is_listed_with_its_reason(tmp_path):
    with pytest.raises(BadFilesError) as error:
        load(with_bad_files(tmp_path))
    found = {path.rsplit("/", 1)[1]: reason for path, reason in error.value.bad}
    # notes.txt, noending and song.wav are left out
    assert set(found) == {"empty.png", "cut.png", "gone.png", "loose.jpg"}
    assert found["gone.png"] == "a link to nothing"
    assert found["loose.jpg"] == "it lies beside the class folders, so it has no label"
    assert found["empty.png"] == "empty file"
    assert "4 of 16 files cannot be used" in str(error.value)
    assert all(name in str(error.value) for name in found)
    assert "skip_bad=True (--skip-bad)" in str(error.value)


def test_long_lists_of_bad_files_are_cut_in_the_message(tmp_path):
    folder(tmp_path, cat=3, dog=3)
    for k in range(23):
        (tmp_path / f"cat/bad{k:02}.png").write_bytes(b"")
    with pytest.raises(BadFilesError, match=r"\(\+3 more\)") as error:
        load(tmp_path)
    assert len(error.value.bad) == 23
    assert str(error.value).count("empty file") == 20


def test_skip_bad_goes_on_with_the_rest(tmp_path):
    data = load(with_bad_files(tmp_path), skip_bad=True)
    assert sum(sizes(data), Counter()) == {"cat": 6, "dog": 6}
    assert len(data.skipped) == 4
    assert data.notes == [
        "2 files (notes.txt, noending) left out: neither pictures nor sound",
        "1 files of another kind (song.wav, …) left out",
    ]
    assert "empty file" in {reason for _, reason in data.skipped}
    for part in (data.train, data.val, data.test):
        for i in range(len(part)):
            assert int(part[i][0][0, 0, 0] * 255 + 0.5) == int(part.name(i)[-6:-4])


def test_skipped_files_do_not_shift_the_splits(tmp_path):
    for split, count in (("test", 3), ("train", 4), ("val", 2)):
        folder(tmp_path, split, cat=count, dog=count)
        (tmp_path / split / "cat/00.png").write_bytes(b"")
    data = load(tmp_path, skip_bad=True)
    assert sizes(data) == [{"cat": 3, "dog": 4}, {"cat": 1, "dog": 2}, {"cat": 2, "dog": 3}]
    for split, part in (("train", data.train), ("val", data.val), ("test", data.test)):
        assert all(
            f"/{split}/{data.classes[y]}/" in part.name(i) for i, y in enumerate(part.targets)
        )


def test_a_class_of_bad_files_only_is_left_out(tmp_path):
    folder(tmp_path, ant=0, cat=6, dog=6)
    (tmp_path / "ant").mkdir()
    (tmp_path / "ant/a.png").write_bytes(b"")
    assert load(tmp_path, skip_bad=True).classes == ["cat", "dog"]


def test_only_bad_files_cannot_be_skipped(tmp_path):
    for name in ("cat/a.png", "dog/b.png"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text("no")
    with pytest.raises(BadFilesError, match="2 of 2"):
        load(tmp_path)
    with pytest.raises(
        DataError, match=r"None of the 2 files in .* can be used; the first: not an image"
    ):
        load(tmp_path, skip_bad=True)


def test_files_are_read_once_before_training(tmp_path):
    data = load(folder(tmp_path, cat=6, dog=6))
    for path in tmp_path.rglob("*.png"):
        path.unlink()
    assert len([data.train[i] for i in range(len(data.train))]) == len(data.train)


def test_a_manifest_with_groups_and_splits(tmp_path):
    folder(tmp_path, x=6)
    rows = [
        f"x/{k:02}.png,{'猫' if k % 2 else 'été'},{'f' if k < 3 else 'm'},{'test' if k > 3 else ''}"
        for k in range(6)
    ]
    (tmp_path / "m.csv").write_text("path,label,group,split\n" + "\n".join(rows), encoding="utf-8")
    data = load(tmp_path / "m.csv", val_share=0.5)
    assert data.classes == ["été", "猫"]
    assert (data.train.group_names, len(data.test)) == (["f", "m"], 2)
    assert [(item[1], item[2]) for item in (data.test[0], data.test[1])] == [(0, 1), (1, 1)]
    assert {data.train.groups[i] for i in data.train.indices} | {
        data.val.groups[i] for i in data.val.indices
    } == {0, 1}


def test_a_manifest_with_bad_files(tmp_path):
    picture(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"")
    (tmp_path / "m.csv").write_text("path,label\na.png,cat\nb.png,dog\n")
    with pytest.raises(BadFilesError, match=r"b\.png: empty file"):
        load(tmp_path / "m.csv")


def test_sound_folders(tmp_path):
    inputs = Sound(sample_rate=8000, samples=1000, frames=4, bins=8)
    for name, hertz in (("low", 100), ("high", 900)):
        (tmp_path / name).mkdir()
        for k in range(4):
            soundfile.write(
                tmp_path / name / f"{k}.wav",
                0.3 * np.sin(np.arange(500) * hertz / 8000 * 6.283),
                8000,
            )
    (tmp_path / "low/quiet.wav").touch()
    soundfile.write(tmp_path / "low/quiet.wav", np.zeros(100), 8000)
    picture(tmp_path / "low/cover.png")
    with pytest.raises(BadFilesError, match="1 of 9") as error:
        load(tmp_path, inputs=inputs)
    assert [reason for _, reason in error.value.bad] == ["silent"]
    data = load(tmp_path, inputs=inputs, skip_bad=True)
    assert data.notes == ["1 files of another kind (cover.png, …) left out"]
    (waveform, length), label = data.train[0]
    assert (data.classes[label], waveform.shape, length, data.train.sample_rate) == (
        "high",
        (1000,),
        500,
        8000,
    )


def test_training_examples_are_needed(tmp_path):
    with pytest.raises(DataError, match=r"no training examples \(found only test, val\)"):
        load(folder(folder(tmp_path, "val", cat=1, dog=1), "test", cat=1, dog=1))


def test_sound_for_a_model_of_pictures_names_the_model_that_would_fit(tmp_path):
    for name in ("a", "b"):
        for k in range(3):
            (tmp_path / name).mkdir(exist_ok=True)
            soundfile.write(tmp_path / name / f"{k}.wav", np.sin(np.arange(800)), 8000)
    with pytest.raises(
        DataError,
        match=r"holds sound \(6 \.wav\), and this backbone takes pictures.*vpt:ast-tiny is bundled",
    ):
        load(tmp_path)
    with pytest.raises(
        DataError, match=r"holds pictures .*and this backbone takes sound.*vpt:vit-p8-64"
    ):
        load(
            folder(tmp_path / "p", cat=3, dog=3),
            inputs=Sound(sample_rate=8000, samples=1000, frames=4, bins=8),
        )


def test_longer_clips_have_several_windows(tmp_path):
    inputs = Sound(sample_rate=8000, samples=800, frames=4, bins=8)
    for name, level in (("a", 0.1), ("b", 0.2)):
        for k in range(3):
            (tmp_path / name).mkdir(exist_ok=True)
            steps = np.repeat([level, level + 0.1, level + 0.2], 800)[: 2400 if k else 500]
            soundfile.write(tmp_path / name / f"{k}.wav", steps, 8000, subtype="FLOAT")
    data = load(tmp_path, inputs=inputs, test_share=0, val_share=0.4)
    whole, owners = data.train.windows()
    assert len(data.train) == 4
    assert [owners.count(i) for i in range(4)] == [
        3 if "0.wav" not in data.train.name(i) else 1 for i in range(4)
    ]
    for k, owner in enumerate(owners):
        assert whole.targets[k] == data.train.targets[owner]
        assert whole.name(k) == data.train.name(owner)
        waveform, length = whole[k][0]
        level = 0.1 * (whole.targets[k] + 1) + 0.1 * (k - owners.index(owner))
        assert torch.allclose(waveform[:length], torch.full((length,), level), atol=1e-4)
    images = load(folder(tmp_path / "p", cat=4, dog=4)).train
    assert images.windows() == (images, list(range(len(images))))


def test_silent_windows_are_left_out_and_a_clip_is_bad_only_if_all_are_silent(tmp_path):
    inputs = Sound(sample_rate=8000, samples=800, frames=4, bins=8)
    quiet, loud = np.zeros(800), np.full(800, 0.3)
    for name in ("a", "b"):
        for k in range(3):
            (tmp_path / name).mkdir(exist_ok=True)
            soundfile.write(
                tmp_path / name / f"{k}.wav", np.concatenate([quiet, loud, quiet, loud]), 8000
            )
    data = load(tmp_path, inputs=inputs)
    assert data.skipped == []
    assert float(data.train[0][0][0].mean()) > 0.2
    assert len(data.train.windows()[0]) == 2 * len(data.train)
    soundfile.write(tmp_path / "a" / "s.wav", np.concatenate([quiet] * 4), 8000)
    with pytest.raises(BadFilesError, match=r"s\.wav: silent"):
        load(tmp_path, inputs=inputs)


def test_many_files_of_many_classes_take_linear_time():
    """24,000 files of 4,000 classes took 72 seconds."""
    items = [
        Item(Path(f"c{i % 4000}/f{i}.png"), f"class-{i % 4000:06d}", group=f"g{i % 2000}")
        for i in range(24_000)
    ]
    source = Source(Path("x"), Path("x"), Listing(items), Columns())
    start = time.perf_counter()
    examples = file_examples(
        items, Files([i.path for i in items], lambda p: p), INPUTS, list(range(len(items))), source
    )
    check_sizes(examples, 3)
    rest, held = hold_out(examples, 0.2)
    assert time.perf_counter() - start < 8
    assert (len(rest), len(held)) == (20_000, 4_000)
