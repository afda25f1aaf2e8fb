"""Listed files → examples: every file is read once, and those that cannot be used are named."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence

from vpt.data.examples import Examples
from vpt.data.files import Files
from vpt.data.looking import Source, copies
from vpt.data.readers import WORDS, Reader, kind_of, suffixes
from vpt.data.sources import Item
from vpt.errors import BadFilesError, DataError
from vpt.report.progress import progress_bar
from vpt.sites import InputsLike, takes_images

SKIP = ", or go on without them: skip_bad=True (--skip-bad)"
BUNDLED = {"image": "vpt:vit-p8-64", "sound": "vpt:ast-tiny"}  # for what kind of data they are

Bad = list[tuple[str, str]]  # (path, reason) of files that cannot be used


def from_files(
    source: Source, inputs: InputsLike, skip_bad: bool, progress: bool, needed: str | None = "train"
) -> tuple[dict[str, Examples], Bad]:
    """Split → examples of a listed source, and the files that were left out as bad.

    needed: the split that there must be, or None. Raises `DataError`; `BadFilesError` for files
        that cannot be used, unless `skip_bad`.
    """
    items = _of_kind(source, inputs)
    files = Files([item.path for item in items], Reader(inputs), source.archive)
    bad = _scan(items, files, inputs.kind, progress, source.known)
    skipped = [(source.shown(items[i].path), reason) for i, reason in bad.items()]
    if bad and not skip_bad:
        raise BadFilesError(skipped, len(items), SKIP if needed else "")
    good = [i for i in range(len(items)) if i not in bad]
    if not good:
        raise DataError(
            f"None of the {len(items)} files in {source.path} can be used; the first:"
            f" {next(iter(bad.values()))}."
        )
    examples = file_examples(items, files, inputs, good, source)
    by_split: dict[str, list[int]] = defaultdict(list)
    for position, i in enumerate(good):
        by_split[items[i].split or "train"].append(position)
    parts = {name: examples.subset(by_split[name]) for name in sorted(by_split)}
    if needed is not None and needed not in parts:
        raise DataError(f"{source.path} has no training examples (found only {', '.join(parts)}).")
    return parts, skipped


def _of_kind(source: Source, inputs: InputsLike) -> list[Item]:
    """The files that such a model can take. Raises `DataError` where most are of another kind."""
    items = source.listing.items
    if takes_images(inputs) and inputs.frames:
        raise DataError(
            "Video files are not read; pass a torch Dataset of (video [frames,C,H,W] in [0,1],"
            " label)."
        )
    if source.kind is not None and source.kind != inputs.kind:
        fitting = BUNDLED[source.kind]
        raise DataError(
            f"{source.path} holds {WORDS[source.kind]} ({_endings(items)}), and this backbone takes"
            f" {WORDS[inputs.kind]}. Use one for {WORDS[source.kind]}: {fitting} is"
            f" bundled (--backbone {fitting}, or leave it out)."
        )
    others = [item for item in items if kind_of(item.path) not in (None, inputs.kind)]
    # of a folder: a cover beside the sounds, say; a table means what it lists
    if not others or not source.root.is_dir():
        return items
    source.listing.notes.append(
        f"{len(others)} files of another kind ({others[0].path.name}, …) left out"
    )
    return [item for item in items if kind_of(item.path) == inputs.kind]


def _endings(items: Sequence[Item]) -> str:
    counts = Counter(item.path.suffix.lower() for item in items)
    return ", ".join(
        f"{count} {ending or 'without ending'}" for ending, count in counts.most_common(3)
    )


def file_examples(
    items: Sequence[Item], files: Files, inputs: InputsLike, good: Sequence[int], source: Source
) -> Examples:
    """The items that can be used as `Examples`, with groups, copies and units by name.

    good: numbers of these items.
    """
    classes = {name: y for y, name in enumerate(sorted({items[i].label for i in good}))}
    group_names = sorted({group for i in good if (group := items[i].group) is not None})
    groups = {name: g for g, name in enumerate(group_names)}
    files.copies = copies([item.path for item in items])
    units: list[int] | None = None
    if source.columns.apart is not None:
        numbers: dict[str, int] = {}
        units = [numbers.setdefault(item.unit or "", len(numbers)) for item in items]
        units = with_copies(units, files.copies)
    elif files.copies:
        units = [files.copies.get(i, i) for i in range(len(items))]
    return Examples(
        files,
        [classes.get(item.label, -1) for item in items],
        list(classes),
        groups=[groups.get(item.group or "", -1) for item in items] if groups else None,
        group_names=group_names or None,
        names=[source.shown(item.path) for item in items],
        sample_rate=getattr(inputs, "sample_rate", None),
        indices=good,
        units=units,
        apart=source.columns.apart,
    )


def with_copies(units: Sequence[int], copies: Mapping[int, int]) -> list[int]:
    """Units of which those that hold copies of one file are one.

    units: by item. copies: number of an item → of the first with the same bytes.
    """
    of = list(range(max(units, default=-1) + 1))

    def root(unit: int) -> int:
        while of[unit] != unit:
            unit = of[unit]
        return unit

    for item, first in copies.items():
        of[root(units[item])] = root(units[first])
    return [root(unit) for unit in units]


def _scan(
    items: Sequence[Item],
    files: Files,
    kind: str,
    progress: bool,
    known: Callable[[Files, int], bool] | None = None,
) -> dict[int, str]:
    """Number → reason of every file that cannot be used. What is read here is kept for training.
    known: whether a file was read before.
    """
    bad: dict[int, str] = {}
    with progress_bar(progress) as bar:
        for i in bar.track(range(len(items)), description="reading files"):
            reason = items[i].misplaced
            if reason is None and kind_of(items[i].path) != kind:
                reason = (
                    f"not {kind} ({items[i].path.suffix or 'no ending'}; read are"
                    f" {', '.join(suffixes(kind))})"
                )
            if reason is None and not (known is not None and known(files, i)):
                reason = files.reason(i)
            if reason:
                bad[i] = reason
    return bad
