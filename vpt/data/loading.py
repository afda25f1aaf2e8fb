"""From a folder, a CSV manifest or a torch Dataset to labelled training, validation and test
examples.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from vpt.data.examples import Examples, Files, same_groups, wrap
from vpt.data.hub import from_hub, hub_classes, is_hub_dataset
from vpt.data.looking import Source, copies, look
from vpt.data.readers import Reader, fit_image, kind_of, suffixes
from vpt.data.sources import SPLITS, Columns, Item
from vpt.data.splits import few_shot, hold_out, whole_number
from vpt.errors import BadFilesError, DataError
from vpt.report.progress import progress_bar
from vpt.sites import InputsLike, takes_images

SKIP = ", or go on without them: skip_bad=True (--skip-bad)"
BUNDLED = {"image": "vpt:vit-p8-64", "sound": "vpt:ast-tiny"}  # for what kind of data they are
CALLED = {"train": "training", "val": "validation", "test": "test"}  # parts, for people
WORDS = {"image": "pictures", "sound": "sound"}


@dataclass
class Data:
    """Training, validation and test examples with their class names. test is None where there is
    none.

    skipped: files that were left out as bad, as (path, reason). made: part → how it came about.
        notes: what was understood of the source. careful: what looks wrong with it. lengths: of the
        files of sound, in seconds.
    """

    train: Examples
    val: Examples
    test: Examples | None
    classes: list[str]
    skipped: list[tuple[str, str]]
    made: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    careful: list[str] = field(default_factory=list)
    lengths: list[float] = field(default_factory=list)

    @property
    def parts(self) -> dict[str, Examples]:
        """The parts that there are, by name."""
        given = {"train": self.train, "val": self.val, "test": self.test}
        return {name: part for name, part in given.items() if part is not None}


def load_data(
    source: Any,
    inputs: InputsLike,
    *,
    shots: int | None = None,
    val_share: float = 0.2,
    test_share: float = 0.2,
    seed: int = 0,
    skip_bad: bool = False,
    classes: Sequence[str] | None = None,
    label: str | None = None,
    group: str | Sequence[str] | None = None,
    split_by: str | None = None,
    progress: bool = True,
) -> Data:
    """Open labelled data for a backbone's `inputs`, split it, and read every file once, before any
    training.

    source: a folder (`class/file` or `split/class/file`) or a zip archive of one, a CSV manifest
        (path,label[,group][,split]), one of these that `look` has listed, a torch Dataset of
        (input, label[, group]), a `datasets.Dataset`, or a mapping of "train" (and "val", "test")
        to these. Sound is mixed to mono and resampled; a clip that is longer than the backbone
        hears has several windows.
    shots: keep k training examples of each class.
    val_share, test_share: of the training examples, held out where a split is not given, stratified
        and seeded: `test_share` only where there is neither validation nor test data. Copies of one
        file stay on one side.
    classes: names of a Dataset's labels (folders and manifests name their own).
    label, group: what these columns are called in a manifest or `datasets.Dataset`, if not "label"
        and "group"; several group columns make a group of each combination. A group is handed to
        objectives and metrics.
    split_by: a column whose values each stay on one side when examples are held out (a person, a
        speaker, a track).

    Raises `DataError`; `BadFilesError` listing every file that cannot be used, unless `skip_bad`.
    """
    if isinstance(source, Data):
        told = {
            "shots": shots,
            "label": label,
            "group": group,
            "split_by": split_by,
            "classes": classes,
        }
        if wanted := [name for name, value in told.items() if value is not None]:
            raise DataError(
                f"Found {', '.join(wanted)} for data that are loaded already; say it where they"
                " are: vpt.load_data(…)."
            )
        return source
    if not hasattr(inputs, "kind"):
        raise DataError(
            f"Found inputs={type(inputs).__name__}; needed is what a backbone takes: load_data(…,"
            " backbone.inputs)."
        )
    whole_number(seed=seed, **({} if shots is None else {"shots": shots}))
    skipped: list[tuple[str, str]] = []
    notes: list[str] = []
    careful: list[str] = []
    lengths: list[float] = []
    if isinstance(source, (str, Path)):
        source = look(source, label, group, split_by)
    if isinstance(source, Source):
        lengths = source.lengths if inputs.kind == "sound" else []
        parts, skipped = _from_files(source, inputs, skip_bad, progress)
        notes, careful = list(source.listing.notes), list(source.listing.careful)
    else:
        given = {SPLITS.get(str(k), k): v for k, v in _named(source) if v is not None}
        if "train" not in given or set(given) - {"train", "val", "test"}:
            raise DataError(
                f"Found data with parts {sorted(map(str, given))}; needed is 'train', and if wanted"
                " 'val' and 'test'."
            )
        names = classes or hub_classes([v for v in given.values() if is_hub_dataset(v)], label)
        columns = Columns.named(label, group, split_by)
        parts = _same_numbering({k: _wrapped(v, inputs, names, columns) for k, v in given.items()})
        parts, skipped = _without_bad(parts, skip_bad, progress)
    parts = same_groups(parts)
    train = parts["train"]
    made = dict.fromkeys(parts, "given")
    _check_classes(parts)
    _check_sizes(
        train,
        1 + ("val" not in parts) + ("val" not in parts and "test" not in parts and test_share > 0),
    )
    for part, share in (("test", test_share if "val" not in parts else 0), ("val", val_share)):
        if part not in parts and (share or part == "val"):
            train, parts[part] = hold_out(train, share, seed, CALLED[part])
            made |= {"train": "what is left", part: _held(train, parts[part], share, seed)}
    if shots is not None:
        train = few_shot(train, shots, seed)
        made["train"] = f"{shots} of each class kept"
    data = Data(
        train,
        parts["val"],
        parts.get("test"),
        train.classes,
        skipped,
        made,
        notes,
        careful,
        lengths,
    )
    data.careful += _twins(data) + _on_two_sides(data) + _lacking(data)
    return data


def read_parts(
    path: Path | Source,
    inputs: InputsLike,
    part: str = "test",
    progress: bool = True,
    label: str | None = None,
    group: str | Sequence[str] | None = None,
) -> Examples:
    """The examples of one split of a folder or manifest, or all of them where it has no splits.
    Raises `DataError`.
    """
    source = path if isinstance(path, Source) else look(path, label, group)
    parts, _ = _from_files(source, inputs, skip_bad=False, progress=progress, needed=None)
    if part in parts:
        return parts[part]
    if set(parts) != {"train"} or (source.root / "train").is_dir():
        raise DataError(
            f"{source.path} has no {part} split (found {', '.join(parts)}); say one of these."
        )
    return parts["train"]


def _held(train: Examples, held: Examples, share: float, seed: int) -> str:
    """How a part was held out, with the share that it came to: of a few persons a fifth may be no
    whole one.
    """
    found = len(held) / (len(train) + len(held))
    asked = f" ({share:.0%} asked for)" if abs(found - share) > 0.05 else ""
    by = f", no {train.apart} on two sides" if train.apart else ""
    return (
        f"{found if asked else share:.0%} of the training data{asked}, held out with seed"
        f" {seed}{by}"
    )


def _same_numbering(parts: dict[str, Examples]) -> dict[str, Examples]:
    """Classes that are only numbered are counted over all parts."""
    if not any(part.named for part in parts.values()):
        longest = max((part.classes for part in parts.values()), key=len)
        for part in parts.values():
            part.classes = list(longest)
    return parts


def _named(source: Any) -> list[tuple[Any, Any]]:
    return list(source.items()) if isinstance(source, Mapping) else [("train", source)]


def _wrapped(
    source: Any, inputs: InputsLike, classes: Sequence[str] | None, columns: Columns
) -> Examples:
    if is_hub_dataset(source):
        return from_hub(source, inputs, classes, columns)
    if columns.apart is not None and getattr(source, "apart", None) != columns.apart:
        raise DataError(
            f"Found {type(source).__name__}, which has no column {columns.apart} to split by;"
            " needed is a CSV or a datasets.Dataset, or Examples with units=…."
        )
    return wrap(source, classes, lambda x: _convert(x, inputs))


def _without_bad(
    parts: dict[str, Examples], skip_bad: bool, progress: bool
) -> tuple[dict[str, Examples], list[tuple[str, str]]]:
    """Read every row that is decoded here, and leave out or list those that cannot be used."""
    skipped: list[tuple[str, str]] = []
    total = 0
    for name, part in parts.items():
        if not isinstance(part.get, Files):
            continue
        bad = {}
        with progress_bar(progress) as bar:
            for i in bar.track(range(len(part)), description=f"reading {name}"):
                if reason := part.get.reason(part.indices[i]):
                    bad[i] = reason
        total += len(part)
        skipped += [(f"{name}, {part.name(i)}", reason) for i, reason in bad.items()]
        parts[name] = part.subset([i for i in range(len(part)) if i not in bad])
    if skipped and not skip_bad:
        raise BadFilesError(skipped, total, SKIP)
    return parts, skipped


def _convert(x: Any, inputs: InputsLike) -> Any:
    """A PIL picture of a torchvision data set → tensor `[C,H,W]` in [0,1]; anything else as it
    is.
    """
    if isinstance(x, Image.Image) and takes_images(inputs):
        return fit_image(x, inputs).float() / 255
    return x


def _from_files(
    source: Source, inputs: InputsLike, skip_bad: bool, progress: bool, needed: str | None = "train"
) -> tuple[dict[str, Examples], list[tuple[str, str]]]:
    path, items = source.path, source.listing.items
    if takes_images(inputs) and inputs.frames:
        raise DataError(
            "Video files are not read; pass a torch Dataset of (video [frames,C,H,W] in [0,1],"
            " label)."
        )
    if source.kind is not None and source.kind != inputs.kind:
        raise DataError(
            f"{path} holds {WORDS[source.kind]} ({_endings(items)}), and this backbone takes"
            f" {WORDS[inputs.kind]}. Use one for {WORDS[source.kind]}: {BUNDLED[source.kind]} is"
            f" bundled (--backbone {BUNDLED[source.kind]}, or leave it out)."
        )
    others = [i for i, item in enumerate(items) if kind_of(item.path) not in (None, inputs.kind)]
    # of a folder: a cover beside the sounds, say; a table means what it lists
    if others and source.root.is_dir():
        source.listing.notes.append(
            f"{len(others)} files of another kind ({items[others[0]].path.name}, …) left out"
        )
        items = [item for item in items if kind_of(item.path) == inputs.kind]
    files = Files([item.path for item in items], Reader(inputs), source.archive)
    bad = _scan(items, files, inputs.kind, progress)
    shown = source.shown
    if bad and not skip_bad:
        raise BadFilesError(
            [(shown(items[i].path), reason) for i, reason in bad.items()],
            len(items),
            SKIP if needed else "",
        )
    good = [i for i in range(len(items)) if i not in bad]
    if not good:
        raise DataError(
            f"None of the {len(items)} files in {path} can be used; the first:"
            f" {next(iter(bad.values()))}."
        )
    examples = _examples(items, files, inputs, good, source)
    by_split: dict[str, list[int]] = defaultdict(list)
    for n, i in enumerate(good):
        by_split[items[i].split or "train"].append(n)
    parts = {name: examples.subset(by_split[name]) for name in sorted(by_split)}
    if needed is not None and needed not in parts:
        raise DataError(f"{path} has no training examples (found only {', '.join(parts)}).")
    return parts, [(shown(items[i].path), reason) for i, reason in bad.items()]


def _endings(items: list[Item]) -> str:
    found = Counter(item.path.suffix.lower() for item in items)
    return ", ".join(
        f"{count} {ending or 'without ending'}" for ending, count in found.most_common(3)
    )


def _examples(
    items: list[Item], files: Files, inputs: InputsLike, good: list[int], source: Source
) -> Examples:
    classes = {name: y for y, name in enumerate(sorted({items[i].label for i in good}))}
    named = {items[i].group for i in good} - {None}
    groups = {name: g for g, name in enumerate(sorted(str(name) for name in named))}
    files.copies = copies([item.path for item in items])
    units: list[int] | None = None
    if source.columns.apart is not None:
        number: dict[str, int] = {}
        units = [number.setdefault(item.unit or "", len(number)) for item in items]
    elif files.copies:
        units = [files.copies.get(i, i) for i in range(len(items))]
    return Examples(
        files,
        [classes.get(item.label, -1) for item in items],
        list(classes),
        groups=[groups.get(item.group or "", -1) for item in items] if groups else None,
        group_names=list(groups) or None,
        names=[source.shown(item.path) for item in items],
        sample_rate=getattr(inputs, "sample_rate", None),
        indices=good,
        units=units,
        apart=source.columns.apart,
    )


def _scan(items: list[Item], files: Files, kind: str, progress: bool) -> dict[int, str]:
    """Number → reason of every file that cannot be used. What is read here is kept for training."""
    bad: dict[int, str] = {}
    with progress_bar(progress) as bar:
        for i in bar.track(range(len(items)), description="reading files"):
            reason = items[i].misplaced
            if reason is None and kind_of(items[i].path) != kind:
                reason = (
                    f"not {kind} ({items[i].path.suffix or 'no ending'}; read are"
                    f" {', '.join(suffixes(kind))})"
                )
            if reason := reason or files.reason(i):
                bad[i] = reason
    return bad


# what looks wrong -----------------------------------------------------------------------
def _twins(data: Data) -> list[str]:
    """Files with the same bytes in two parts, or under two labels."""
    places: dict[int, list[tuple[str, Examples, int]]] = defaultdict(list)
    for name, part in data.parts.items():
        known = getattr(part.get, "copies", {})
        for i, index in enumerate(part.indices):
            if index in known:
                places[known[index]].append((name, part, i))
    found = []
    for one, other in (("train", "test"), ("train", "val"), ("val", "test")):
        both = [
            where for where in places.values() if {one, other} <= {name for name, _, _ in where}
        ]
        if both:
            first = [part.name(i) for name, part, i in both[0] if name in (one, other)][:2]
            found.append(
                f"{_files(len(both))} in {one} and in {other}, byte for byte ({' = '.join(first)}):"
                " what is measured on them says nothing"
            )
    torn = [
        where for where in places.values() if len({part.targets[i] for _, part, i in where}) > 1
    ]
    if torn:
        first = [f"{part.name(i)}: {part.classes[part.targets[i]]}" for _, part, i in torn[0]][:2]
        found.append(
            f"{_files(len(torn))} there under two labels, byte for byte ({', '.join(first)})"
        )
    return found


def _lacking(data: Data) -> list[str]:
    """Parts that cannot say how good a model is: without examples of some classes, or the training
    data themselves.
    """
    found = []
    for name, part in data.parts.items():
        if name == "train":
            continue
        counts = Counter(part.targets)
        missing = [own for y, own in enumerate(part.classes) if not counts[y]]
        if missing:
            more = f", … ({len(missing)} in all)" if len(missing) > 5 else ""
            found.append(
                f"the {CALLED[name]} data have no examples of {', '.join(missing[:5])}{more}"
            )
        if part.get is data.train.get and set(part.indices) & set(data.train.indices):
            found.append(
                f"the {CALLED[name]} data are training data: what is measured on them says nothing"
            )
    return found


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


def _check_sizes(train: Examples, needed: int) -> None:
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


def _check_classes(parts: dict[str, Examples]) -> None:
    """Every class that is tested must have been trained, under the same name."""
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
            " are two or more."
        )
