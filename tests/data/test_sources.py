"""Names of columns, and what a listing says of its files."""

from __future__ import annotations

from pathlib import Path

import pytest

from vpt.data.sources import Columns, Item, Listing
from vpt.errors import DataError


def test_columns_are_named_one_by_one_or_several() -> None:
    assert Columns.named("x", "sex") == Columns("x", ("sex",))
    assert Columns.named(group=["sex", "age"], apart="who") == Columns(None, ("sex", "age"), "who")
    assert Columns.named() == Columns()


def test_the_group_column_is_group_unless_others_are_named() -> None:
    assert Columns().groups(["path", "group"], "m.csv") == ("group",)
    assert Columns().groups(["path"], "m.csv") == ()
    assert Columns(group=("sex",)).groups(["sex", "group"], "m.csv") == ("sex",)
    with pytest.raises(DataError, match=r"m\.csv has no group column age \(found path, sex\)"):
        Columns(group=("sex", "age")).groups(["path", "sex"], "m.csv")


@pytest.mark.parametrize(
    ("names", "kind"),
    [(("a.png", "b.wav", "c.jpg"), "image"), (("a.wav", "b.txt"), "sound"), (("a.txt",), None)],
)
def test_the_kind_is_that_of_most_files(names: tuple[str, ...], kind: str | None) -> None:
    assert Listing([Item(Path(name), "x") for name in names]).kind == kind
