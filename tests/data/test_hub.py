"""Data sets of Hugging Face's `datasets` library."""

from __future__ import annotations

import io

import numpy as np
import pytest
import soundfile
from PIL import Image

import vpt
from vpt.errors import BadFilesError, DataError

datasets = pytest.importorskip("datasets")
INPUTS = vpt.Images(size=(8, 8))
SOUND = vpt.Waveform(sample_rate=8000, samples=800)


def picture(value: int) -> Image.Image:
    return Image.fromarray(np.full((8, 8, 3), value, np.uint8))


def pictures(count: int = 8, **columns: object) -> object:
    features = {"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])}
    rows = {
        "image": [picture(10 * i) for i in range(count)],
        "label": [i % 2 for i in range(count)],
    }
    for name, (feature, values) in columns.items():
        features[name], rows[name] = feature, values
    return datasets.Dataset.from_dict(rows, features=datasets.Features(features))


def test_pictures_labels_and_groups() -> None:
    group = ["a", "b"] * 4
    data = vpt.load_data(
        {
            "train": pictures(group=(datasets.Value("string"), group)),
            "test": pictures(4, group=(datasets.Value("string"), ["b", "a", "b", "a"])),
        },
        INPUTS,
        progress=False,
    )
    assert data.classes == ["cat", "dog"]
    assert data.train.group_names == ["a", "b"]
    assert [round(float(data.test[i][0][0, 0, 0]) * 255) for i in range(4)] == [0, 10, 20, 30]
    assert [data.test[i][1:] for i in range(4)] == [(0, 1), (1, 0), (0, 1), (1, 0)]


def test_a_dataset_dict_names_its_own_splits() -> None:
    data = vpt.load_data(
        datasets.DatasetDict({"train": pictures(), "validation": pictures(4)}),
        INPUTS,
        progress=False,
    )
    assert [len(data.train), len(data.val), data.test] == [8, 4, None]


def test_sound_is_decoded_here_whatever_the_format() -> None:
    rows = []
    for i, kind in enumerate(["WAV", "FLAC", "MP3", "WAV"]):
        buffer = io.BytesIO()
        soundfile.write(buffer, np.sin(np.arange(1600) * 0.1 * (i + 1)) * 0.5, 16000, format=kind)
        rows.append({"bytes": buffer.getvalue(), "path": None})
    source = datasets.Dataset.from_dict({"audio": rows, "class": ["x", "y", "x", "y"]})
    source = source.cast_column("audio", datasets.Audio())
    data = vpt.load_data({"train": source, "val": source}, SOUND, progress=False)
    assert data.classes == ["x", "y"]
    waveform, length = data.train[0][0]
    assert waveform.shape == (800,)
    assert length == 800
    assert abs(float(waveform.abs().max()) - 0.5) < 0.05


def test_bad_rows_are_listed() -> None:
    features = datasets.Features(
        {"image": datasets.Image(decode=False), "label": datasets.Value("int64")}
    )
    cells = [{"bytes": b"", "path": None}] + [{"bytes": _png(i), "path": None} for i in range(7)]
    source = datasets.Dataset.from_dict(
        {"image": cells, "label": [i % 2 for i in range(8)]}, features=features
    )
    source = source.cast_column("image", datasets.Image())
    with pytest.raises(
        BadFilesError, match=r"1 of 8 files cannot be used:\n  train, row 0: empty file"
    ):
        vpt.load_data(source, INPUTS, progress=False)
    data = vpt.load_data(source, INPUTS, skip_bad=True, progress=False)
    assert len(data.skipped) == 1


def _png(value: int) -> bytes:
    buffer = io.BytesIO()
    picture(value).save(buffer, "PNG")
    return buffer.getvalue()


def test_columns_that_do_not_say_what_they_are() -> None:
    with pytest.raises(DataError, match="Found 2 columns of type Image"):
        vpt.load_data(pictures(other=(datasets.Image(), [picture(0)] * 8)), INPUTS, progress=False)
    with pytest.raises(DataError, match="Found 0 columns of type Audio among image, label"):
        vpt.load_data(pictures(), SOUND, progress=False)
    with pytest.raises(DataError, match="no column of labels among image, kind"):
        vpt.load_data(
            pictures().rename_column("label", "kind").cast_column("kind", datasets.Value("int64")),
            INPUTS,
            progress=False,
        )
    unnamed = pictures().cast_column("label", datasets.Value("int64"))
    for source in (pictures(), unnamed):
        with pytest.raises(DataError, match="streaming"):
            vpt.load_data(source.to_iterable_dataset(), INPUTS, progress=False)
    none = (
        pictures(extra=(datasets.Value("string"), [None] + ["a"] * 7))
        .remove_columns("label")
        .rename_column("extra", "label")
    )
    with pytest.raises(DataError, match="rows without a label"):
        vpt.load_data(none, INPUTS, progress=False)


def test_plain_labels_are_numbered_over_all_parts_and_other_views_are_looked_through() -> None:
    def plain(labels: list) -> object:
        rows = {"image": [picture(10 * i) for i in range(len(labels))], "label": labels}
        return datasets.Dataset.from_dict(
            rows,
            features=datasets.Features(
                {"image": datasets.Image(), "label": datasets.Value("int64")}
            ),
        )

    train = plain([0, 1, 2, 0, 1, 2]).with_format("torch", columns=["label"])
    data = vpt.load_data(
        {"train": train, "val": plain([0, 1, 2]), "test": plain([1, 2])}, INPUTS, progress=False
    )
    assert data.classes == ["0", "1", "2"]
    assert data.test.targets == [1, 2]
    named = datasets.Dataset.from_dict(
        {"image": [picture(i) for i in range(4)], "label": ["x", "y", "x", "y"]}
    ).cast_column("image", datasets.Image())
    data = vpt.load_data({"train": named, "val": named}, INPUTS, classes=["y", "x"], progress=False)
    assert data.train.targets == [1, 0, 1, 0]
    with pytest.raises(DataError, match="not among the classes"):
        vpt.load_data({"train": named, "val": named}, INPUTS, classes=["y", "z"], progress=False)


def test_rows_without_a_picture_and_paths_to_nothing_are_bad_rows() -> None:
    features = datasets.Features(
        {"image": datasets.Image(decode=False), "label": datasets.Value("int64")}
    )
    cells = [None, {"bytes": None, "path": "/nowhere/x.png"}] + [
        {"bytes": _png(i), "path": None} for i in range(8)
    ]
    source = datasets.Dataset.from_dict(
        {"image": cells, "label": [i % 2 for i in range(10)]}, features=features
    )
    with pytest.raises(BadFilesError) as caught:
        vpt.load_data(source, INPUTS, progress=False)
    assert [reason for _, reason in caught.value.bad] == [
        "nothing in this row",
        "/nowhere/x.png cannot be read: No such file or directory",
    ]


def test_named_columns_and_groups_of_several() -> None:
    more = {
        "blond": (datasets.ClassLabel(names=["no", "yes"]), [0, 1] * 4),
        "sex": (datasets.Value("string"), ["f", "m"] * 4),
        "old": (datasets.ClassLabel(names=["young", "old"]), [0, 0, 1, 1] * 2),
    }
    data = vpt.load_data(
        {"train": pictures(**more)}, INPUTS, label="blond", group=["sex", "old"], progress=False
    )
    assert data.classes == ["no", "yes"]
    assert data.train.group_names == ["f, old", "f, young", "m, old", "m, young"]
    with pytest.raises(DataError, match="no group column age"):
        vpt.load_data({"train": pictures(**more)}, INPUTS, group="age", progress=False)


def test_groups_are_numbered_alike_in_all_parts() -> None:
    parts = {
        k: pictures(group=(datasets.Value("string"), v))
        for k, v in {"train": ["b", "c"] * 4, "test": ["a", "b"] * 4}.items()
    }
    data = vpt.load_data(parts, INPUTS, progress=False)
    assert data.train.group_names == data.test.group_names == ["b", "c", "a"]
    assert set(data.train.grouped) == {0, 1}
    assert data.test.grouped == [2, 0] * 4
