"""Where labels come from: folders of classes and CSV manifests, the usual litter and the usual
mistakes.
"""

from __future__ import annotations

import os

import pytest

from vpt.data.sources import Columns, Item, list_folder, list_manifest
from vpt.errors import DataError


def touch(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return root


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


# --- CSV --------------------------------------------------------------------------------


def manifest(root, text, encoding="utf-8"):
    touch(root, "a.png", "sub/b.png")
    (root / "m.csv").write_bytes(text.encode(encoding))
    return list_manifest(root / "m.csv").items


def test_manifest_with_all_columns(tmp_path):
    items = manifest(
        tmp_path, "path,label,group,split\na.png,cat,f,train\nsub/b.png,dog,,Validation\n"
    )
    assert items == [
        Item(tmp_path / "a.png", "cat", "f", "train"),
        Item(tmp_path / "sub/b.png", "dog", None, "val"),
    ]


def test_columns_by_other_names_and_groups_of_several(tmp_path):
    touch(tmp_path, "a.png", "b.png", "c.png")
    (tmp_path / "m.csv").write_text(
        "path,blond,sex,age,group\na.png,yes,f,old,x\nb.png,no,m,young,x\nc.png,no,m,,x\n"
    )
    items = list_manifest(tmp_path / "m.csv", Columns("blond", ("sex", "age"))).items
    assert [(item.label, item.group) for item in items] == [
        ("yes", "f, old"),
        ("no", "m, young"),
        ("no", None),
    ]
    with pytest.raises(
        DataError, match=r"no group column colour \(found path, blond, sex, age, group\)"
    ):
        list_manifest(tmp_path / "m.csv", Columns("blond", ("sex", "colour")))
    with pytest.raises(DataError, match=r"no column hair .*needed are path,hair"):
        list_manifest(tmp_path / "m.csv", Columns("hair"))


def test_manifest_with_the_least(tmp_path):
    items = manifest(tmp_path, "label,note,path\ncat,x,a.png\n\ndog,y,sub/b.png\n")
    assert items == [Item(tmp_path / "a.png", "cat"), Item(tmp_path / "sub/b.png", "dog")]


def test_manifest_with_absolute_paths_quotes_and_unicode(tmp_path):
    items = manifest(tmp_path, f'path,label\n"{tmp_path / "a.png"}","a, ""猫"""\n')
    assert items == [Item(tmp_path / "a.png", 'a, "猫"')]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_byte_order_mark_and_line_ends(tmp_path, end):
    assert manifest(tmp_path, f"path,label{end}a.png,cat{end}", "utf-8-sig") == [
        Item(tmp_path / "a.png", "cat")
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no rows"),
        ("path,label\n", "has no rows; needed is a header path,label"),
        ("path,class\na.png,cat\n", r"has no column label \(found path, class\)"),
        ("file,class\na.png,cat\n", "has no column path or label"),
        ("path,label\na.png,cat\n,cat\n", "line 3: empty path or label"),
        ("path,label\na.png,\n", "line 2: empty path or label"),
        ("path,label\na.png\n", "line 2: empty path or label"),
        (
            "path,label,split\na.png,cat,holdout\n",
            "line 2: found split 'holdout'; needed is train, val or test",
        ),
        ("path,label\na.png,cat\nnone.png,cat\n", r"1 of 2 files are not there: .*none\.png"),
        ("path,label\n.,cat\n", "1 of 1 files are not there"),
        ("path,label,path\na.png,cat,a.png\n", r"has 1 columns twice \(path\)"),
        ("path,label\na.png," + "x" * 200_000 + "\n", "not a CSV"),
    ],
)
def test_wrong_manifests(tmp_path, text, message):
    with pytest.raises(DataError, match=message):
        manifest(tmp_path, text)


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16"])
def test_other_encodings_are_refused(tmp_path, encoding):
    with pytest.raises(DataError, match=r"m\.csv is not a CSV in UTF-8"):
        manifest(tmp_path, "path,label\na.png,café\n", encoding)


def test_a_blank_label_is_empty(tmp_path):
    with pytest.raises(DataError, match="empty path or label"):
        manifest(tmp_path, "path,label\na.png,  \n")


def test_blanks_around_a_label_do_not_make_another_class(tmp_path):
    assert {
        item.label for item in manifest(tmp_path, "path,label\na.png,cat\nsub/b.png, cat\n")
    } == {"cat"}


def test_the_line_that_is_named_is_the_line_that_is_wrong(tmp_path):
    with pytest.raises(DataError, match="line 4: empty"):
        manifest(tmp_path, "path,label\na.png,cat\n\nsub/b.png,\n")


def test_a_path_that_cannot_exist_is_not_there(tmp_path):
    with pytest.raises(DataError, match="not there"):
        manifest(tmp_path, "path,label\n" + "x" * 5000 + ",cat\n")


def test_a_file_listed_twice_is_refused(tmp_path):
    for name in "abc":
        (tmp_path / f"{name}.png").write_bytes(b"x")
    (tmp_path / "d.csv").write_text("path,label\na.png,one\nb.png,two\nc.png,two\n./a.png,two\n")
    with pytest.raises(DataError, match=r"lists 1 files more than once: .*a\.png"):
        list_manifest(tmp_path / "d.csv")


@pytest.mark.parametrize(("separator", "word"), [(";", "semicolons"), ("\t", "tabs")])
def test_other_separators_are_read_and_said(tmp_path, separator, word):
    touch(tmp_path, "a.png")
    (tmp_path / "m.csv").write_text(f"path{separator}label\na.png{separator}one, two\n")
    found = list_manifest(tmp_path / "m.csv")
    assert [item.label for item in found.items] == ["one, two"]
    assert found.notes == [f"m.csv was read with {word} between its columns"]
    (tmp_path / "c.csv").write_text("path,label\na.png,one;two\n")
    assert list_manifest(tmp_path / "c.csv").notes == []


def test_a_column_to_split_by(tmp_path):
    touch(tmp_path, "a.png", "b.png")
    (tmp_path / "m.csv").write_text("path,label,who\na.png,x,ann\nb.png,y,bob\n")
    assert [
        item.unit for item in list_manifest(tmp_path / "m.csv", Columns(apart="who")).items
    ] == ["ann", "bob"]
    with pytest.raises(DataError, match="has no column speaker to split by"):
        list_manifest(tmp_path / "m.csv", Columns(apart="speaker"))
    (tmp_path / "m.csv").write_text("path,label,who\na.png,x,ann\nb.png,y,\n")
    with pytest.raises(DataError, match="line 3: empty who"):
        list_manifest(tmp_path / "m.csv", Columns(apart="who"))


def test_paths_may_not_leave_an_archive(tmp_path):
    touch(tmp_path, "in/a.png", "b.png")
    (tmp_path / "in" / "m.csv").write_text("path,label\na.png,x\n../b.png,y\n")
    assert len(list_manifest(tmp_path / "in" / "m.csv").items) == 2  # one's own table may
    with pytest.raises(DataError, match=r"1 of 2 files lie outside of the archive"):
        list_manifest(tmp_path / "in" / "m.csv", inside=tmp_path / "in")


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
