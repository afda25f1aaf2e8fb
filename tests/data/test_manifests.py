"""Where labels come from: CSV manifests, and the usual mistakes in them."""

from __future__ import annotations

import pytest
from small_folders import touch

from vpt.data.manifests import list_manifest
from vpt.data.sources import Columns, Item
from vpt.errors import DataError


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
