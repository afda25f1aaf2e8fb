"""load_data and read_parts: folders, manifests and Datasets to training, validation and test
examples.
"""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image
from torch.utils.data import Dataset

from vpt.backbones.inputs.images import Images
from vpt.backbones.inputs.sound import Sound
from vpt.data import Data, load_data, read_parts
from vpt.errors import BadFilesError, DataError

INPUTS = Images(size=8)


def picture(path, level=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), (level, 0, 255)).save(path)


def folder(root, split="", **counts):
    for name, count in counts.items():
        for k in range(count):
            picture(root / split / name / f"{k:02}.png", k)
    return root


def load(source, **more):
    return load_data(source, more.pop("inputs", INPUTS), progress=False, **more)


def names(examples):
    return {examples.name(i) for i in range(len(examples))}


def sizes(data):
    return [
        Counter(data.classes[y] for y in part.targets)
        for part in (data.train, data.val, data.test)
        if part is not None
    ]


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


def test_training_examples_are_needed(tmp_path):
    with pytest.raises(DataError, match=r"no training examples \(found only test, val\)"):
        load(folder(folder(tmp_path, "val", cat=1, dog=1), "test", cat=1, dog=1))


def test_paths_that_hold_no_data(tmp_path):
    with pytest.raises(DataError, match=r"Found nothing at .*nowhere"):
        load(tmp_path / "nowhere")
    (tmp_path / "photos.zip").write_bytes(b"PK")
    with pytest.raises(DataError, match=r"photos\.zip is not a sound zip archive"):
        load(str(tmp_path / "photos.zip"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no labelled files"):
        load(tmp_path / "empty")


# --- bad files --------------------------------------------------------------------------


def with_bad_files(root):
    folder(root, cat=6, dog=6)
    (root / "cat/empty.png").write_bytes(b"")
    (root / "cat/notes.txt").write_text("hello")
    (root / "dog/song.wav").write_bytes(b"RIFF")
    (root / "dog/noending").write_bytes(b"x")
    (root / "dog/gone.png").symlink_to(root / "nowhere.png")
    (root / "loose.jpg").write_bytes(b"x")
    whole = (root / "dog/00.png").read_bytes()
    (root / "dog/cut.png").write_bytes(whole[: len(whole) // 2])
    return root


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


# --- manifests and sound ----------------------------------------------------------------


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


# --- Datasets ---------------------------------------------------------------------------


class Torchvision(Dataset):
    def __init__(self, targets, classes=("cat", "dog"), size=(8, 8)):
        self.targets, self.classes, self.size = targets, list(classes), size

    def __len__(self):
        return len(self.targets)

    def __getitem__(self, i):
        return Image.new("RGB", self.size, (51, 0, 0)), self.targets[i]


def tensors(*labels):
    return [(torch.full((3, 8, 8), 0.1 * y), y) for y in labels]


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


def test_empty_data_sets_are_refused():
    with pytest.raises(DataError, match="without examples"):
        load({"train": tensors(0, 1), "val": []})


def test_unnamed_parts_need_not_hold_every_class():
    assert load({"train": tensors(0, 1, 2), "val": tensors(0, 1)}).classes == ["0", "1", "2"]


@pytest.mark.parametrize("source", [None, 3, {"train": None}])
def test_what_is_no_data_is_refused(source):
    with pytest.raises(DataError):
        load(source)


# --- read_parts -------------------------------------------------------------------------


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


# --- what looks wrong -------------------------------------------------------------------
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


def test_what_was_made_of_the_data_is_known(tmp_path):
    data = load(folder(tmp_path, cat=20, dog=10), seed=3, shots=2)
    assert data.made == {
        "train": "2 of each class kept",
        "test": "20% of the training data, held out with seed 3",
        "val": "20% of the training data, held out with seed 3",
    }


def test_many_files_of_many_classes_take_linear_time():
    """24,000 files of 4,000 classes took 72 seconds."""
    from pathlib import Path

    from vpt.data import loading
    from vpt.data.examples import Files
    from vpt.data.looking import Source
    from vpt.data.sources import Columns, Item, Listing
    from vpt.data.splits import hold_out

    items = [
        Item(Path(f"c{i % 4000}/f{i}.png"), f"class-{i % 4000:06d}", group=f"g{i % 2000}")
        for i in range(24_000)
    ]
    source = Source(Path("x"), Path("x"), Listing(items), Columns())
    start = time.perf_counter()
    found = loading._examples(
        items, Files([i.path for i in items], lambda p: p), INPUTS, list(range(len(items))), source
    )
    loading._check_sizes(found, 3)
    rest, held = hold_out(found, 0.2)
    assert time.perf_counter() - start < 8
    assert (len(rest), len(held)) == (20_000, 4_000)


# --- windows ----------------------------------------------------------------------------
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
