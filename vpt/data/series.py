"""Files that are numbered in series, by their names: frames of one track, words of one speaker.

A picture that was held out and its neighbour of the same track that was learned from are nearly
one picture. What is chosen by such examples looks better than it is, and too sure.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace

from vpt.data.sources import Item, Listing
from vpt.errors import DataError

SERIES = "series"  # as a column to split by: by the names of the files
FILE = "file"  # each file is its own
FEWEST = 5  # series of each class, or their names say nothing: as many as folds
MOST = 1 / 3  # of a class in one series, likewise

# a name, something between, a number: 00002_00011_00029, george-12, frame 7, walk (3)
NUMBERED = re.compile(r"(.*?[^ _.()-])[ _.(-]+\d+\)?")


def series_of(item: Item) -> str | None:
    """The series that a file belongs to by its name, or None.

    The name of its class in front is left out, so that a speaker is one in all classes
    ("seven_george_3"), but not where only a number is left ("00002_00011_00029"): such numbers
    begin anew in each class.
    """
    found = NUMBERED.fullmatch(item.path.stem)
    if found is None:
        return None
    name = found[1]
    if name.casefold().startswith(item.label.casefold()):
        rest = name[len(item.label) :].strip(" _.()-")
        if re.search(r"[^\W\d]", rest):
            return rest
    return f"{item.label}/{name}"


def keep_together(listing: Listing, asked: str | None) -> bool:
    """Give each file its series as the unit that stays on one side; whether that was done.

    Unless it was asked for, it is done only where the names say so plainly: every class has at
    least `FEWEST` series, none of which holds more than `MOST` of it. Raises `DataError` for what
    cannot be asked of a folder.
    """
    if asked == FILE:
        return False
    names = [series_of(item) for item in listing.items]
    plain = _plain(listing.items, names)
    if asked is None and not plain:
        return False
    if not any(names):
        raise DataError(
            f"Found no files that are numbered in {SERIES}, such as george_1 and george_2; needed"
            " is a CSV with a column to split by, or no split_by (--split-by)."
        )
    listing.items = [
        replace(item, unit=name if name is not None else str(item.path))
        for item, name in zip(listing.items, names, strict=True)
    ]
    count, example = len(set(filter(None, names))), _example(listing.items, names)
    listing.notes.append(
        f"files are numbered in {count} series ({example}): where some are held out, a series"
        " stays on one side (--split-by file: each file is its own)"
    )
    return True


def _plain(items: Sequence[Item], names: Sequence[str | None]) -> bool:
    """Whether names say plainly what belongs together, among those that are learned from."""
    classes: dict[str, Counter[str]] = defaultdict(Counter)
    for item, name in zip(items, names, strict=True):
        if item.misplaced is None and item.split in (None, "train"):
            classes[item.label][name if name is not None else str(item.path)] += 1
    several = any(counts.most_common(1)[0][1] > 1 for counts in classes.values())
    return several and all(
        len(counts) >= FEWEST and counts.most_common(1)[0][1] <= MOST * counts.total()
        for counts in classes.values()
    )


def _example(items: Sequence[Item], names: Sequence[str | None]) -> str:
    """Two files of the largest series."""
    largest = Counter(filter(None, names)).most_common(1)[0][0]
    two = [item.path.name for item, name in zip(items, names, strict=True) if name == largest]
    return ", ".join(two[:2]) + ", …" * (len(two) > 2)
