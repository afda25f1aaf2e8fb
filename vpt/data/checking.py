"""What is wrong with parts of a data set, which raises, and what looks wrong, which is said."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from vpt.data.examples import Examples
from vpt.data.parts import CALLED, Data
from vpt.errors import DataError


def check_sizes(train: Examples, needed: int) -> None:
    """Each class must be in each part that is made of the training data: raise `DataError` for one
    that is too small.
    """
    counts = Counter(train.targets)
    small = [
        f"{name!r} ({counts[label]})"
        for label, name in enumerate(train.classes)
        if counts[label] < needed
    ]
    if small:
        raise DataError(
            f"Classes with fewer than {needed} examples, one each for"
            f" {', '.join(('training', 'validation', 'test')[:needed])}: {', '.join(small[:10])}."
            " Add examples, remove the class, or give the splits yourself (split/class/file)."
        )


def check_classes(parts: Mapping[str, Examples], careful: Sequence[str] = ()) -> None:
    """Every class that is tested must have been trained, under the same name. careful: what looks
    wrong with the source, said where there is only one class.
    """
    train = parts["train"]
    seen = set(train.targets)
    for name, part in parts.items():
        if part.classes != train.classes:
            raise DataError(
                f"The {name} data has other classes than the training data: {part.classes[:5]} and"
                f" {train.classes[:5]}."
            )
        lost = sorted({train.classes[y] for y in part.targets if y not in seen})
        if lost:
            raise DataError(
                f"Classes in the {name} data without any training example: {', '.join(lost[:10])}."
            )
    if len(seen) < 2:
        raise DataError(
            f"Found {len(seen)} class{'es' * (len(seen) != 1)} ({', '.join(train.classes)}); needed"
            f" are two or more.{''.join(f' Careful: {doubt}.' for doubt in careful)}"
        )


def doubts(data: Data) -> list[str]:
    """What looks wrong with loaded data, a sentence each."""
    return _copies(data) + _on_two_sides(data) + _lacking(data)


def _copies(data: Data) -> list[str]:
    """Files with the same bytes in two parts, or under two labels."""
    places: dict[int, list[tuple[str, Examples, int]]] = defaultdict(list)
    for name, part in data.parts.items():
        first = getattr(part.get, "copies", {})  # of `Files`
        for i, index in enumerate(part.indices):
            if index in first:
                places[first[index]].append((name, part, i))
    doubts = []
    for one, other in (("train", "test"), ("train", "val"), ("val", "test")):
        both = [
            where for where in places.values() if {one, other} <= {name for name, _, _ in where}
        ]
        if both:
            pair = [part.name(i) for name, part, i in both[0] if name in (one, other)][:2]
            doubts.append(
                f"{_files(len(both))} in {one} and in {other}, byte for byte ({' = '.join(pair)}):"
                " what is measured on them says nothing"
            )
    torn = [
        where for where in places.values() if len({part.targets[i] for _, part, i in where}) > 1
    ]
    if torn:
        pair = [f"{part.name(i)}: {part.classes[part.targets[i]]}" for _, part, i in torn[0]][:2]
        doubts.append(
            f"{_files(len(torn))} there under two labels, byte for byte ({', '.join(pair)})"
        )
    return doubts


def _files(count: int) -> str:
    return "1 file is" if count == 1 else f"{count} files are"


def _on_two_sides(data: Data) -> list[str]:
    """What was to stay on one side, and is on two in the splits that were given."""
    apart = data.train.apart
    if apart is None:
        return []
    sides = {name: set(part.together or []) for name, part in data.parts.items()}
    pairs = [
        ("train", other) for other in ("test", "val") if sides["train"] & sides.get(other, set())
    ]
    return [
        f"{len(sides[a] & sides[b])} of {apart} are in {a} and in {b}: the splits are as they were"
        " given"
        for a, b in pairs
    ]


def _lacking(data: Data) -> list[str]:
    """Parts that cannot say how good a model is: without examples of some classes, or the training
    data themselves.
    """
    doubts = []
    for name, part in data.parts.items():
        if name == "train":
            continue
        counts = Counter(part.targets)
        missing = [label for y, label in enumerate(part.classes) if not counts[y]]
        if missing:
            more = f", … ({len(missing)} in all)" if len(missing) > 5 else ""
            doubts.append(
                f"the {CALLED[name]} data have no examples of {', '.join(missing[:5])}{more}"
            )
        if part.get is data.train.get and set(part.indices) & set(data.train.indices):
            doubts.append(
                f"the {CALLED[name]} data are training data: what is measured on them says nothing"
            )
    return doubts
