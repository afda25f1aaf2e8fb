"""What a source of files is told and gives: names of columns, and files with their labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from vpt.data.readers import kind_of
from vpt.errors import DataError

SPLITS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
}
JOIN = ", "  # between the names of a group of several columns


@dataclass(frozen=True)
class Columns:
    """What the columns of a table are called: of the label (None: the usual names), and of the
    group, one or several.

    Several columns make one group of each combination that occurs. group None: the column "group",
    where there is one. apart: the column whose values each stay on one side when examples are held
    out (a person, a speaker), or None.
    """

    label: str | None = None
    group: tuple[str, ...] | None = None
    apart: str | None = None

    @classmethod
    def named(
        cls,
        label: str | None = None,
        group: str | Sequence[str] | None = None,
        apart: str | None = None,
    ) -> Columns:
        """Columns as people name them: one group column as text, or several."""
        if isinstance(group, str):
            group = (group,)
        return cls(label, tuple(group) if group is not None else None, apart)

    def groups(self, found: Sequence[str], where: object) -> tuple[str, ...]:
        """The group columns among those found. Raises `DataError` for one that was named and is not
        there.
        """
        missing = [name for name in self.group or () if name not in found]
        if missing:
            raise DataError(
                f"{where} has no group column {' or '.join(missing)} (found"
                f" {', '.join(map(str, found))}); name those that say which group an example"
                " belongs to."
            )
        if self.group is not None:
            return self.group
        return ("group",) if "group" in found else ()


USUAL = Columns()


@dataclass(frozen=True)
class Item:
    """One file: its label, and its group and split where they are given; misplaced says why it
    belongs to no class.

    unit: what it belongs to that stays on one side when examples are held out.
    """

    path: Path
    label: str
    group: str | None = None
    split: str | None = None
    misplaced: str | None = None
    unit: str | None = None


@dataclass
class Listing:
    """The files of a source, none of which is read yet. notes: what was understood. careful: what
    looks wrong.
    """

    items: list[Item]
    notes: list[str] = field(default_factory=list)
    careful: list[str] = field(default_factory=list)

    @property
    def kind(self) -> str | None:
        """What most files are: "image", "sound", or None for neither."""
        counts = Counter(kind_of(item.path) for item in self.items)
        if not counts["image"] and not counts["sound"]:
            return None
        return max(("image", "sound"), key=lambda kind: counts[kind])
