"""From a folder, a CSV manifest or a torch Dataset to labelled training, validation and test examples."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from vpt.data.archives import Archive
from vpt.data.augment import AUGMENTS, augment
from vpt.data.examples import Examples, Files, same_groups, wrap
from vpt.data.hub import from_hub, hub_classes, is_hub_dataset
from vpt.data.joining import balanced, joined, with_classes
from vpt.data.readers import fit_image, read_sound, reader, suffixes
from vpt.data.sources import SPLITS, USUAL, Columns, Item, list_folder, list_manifest
from vpt.data.splits import few_shot, hold_out, whole_number
from vpt.errors import BadFilesError, DataError
from vpt.places import is_there
from vpt.progress import progress_bar

__all__ = ["AUGMENTS", "Data", "Examples", "augment", "balanced", "few_shot", "hold_out", "joined", "load_data", "read_parts",
           "read_sound", "reader", "with_classes"]  # fmt: skip

SKIP = ", or go on without them: skip_bad=True (--skip-bad)"


@dataclass
class Data:
    """Training, validation and test examples with their class names. test is None where there is none.

    skipped: files that were left out as bad, as (path, reason).
    """

    train: Examples
    val: Examples
    test: Examples | None
    classes: list[str]
    skipped: list[tuple[str, str]]


def load_data(
    source: Any,
    inputs: Any,
    *,
    shots: int | None = None,
    val_share: float = 0.2,
    test_share: float = 0.2,
    seed: int = 0,
    skip_bad: bool = False,
    classes: Sequence[str] | None = None,
    label: str | None = None,
    group: str | Sequence[str] | None = None,
    progress: bool = True,
) -> Data:
    """Open labelled data for a backbone's `inputs`, split it, and read every file once, before any training.

    classes: names of a Dataset's labels (folders and manifests name their own). label, group: what these columns are called in
    a manifest or `datasets.Dataset`, if not "label" and "group"; several group columns make a group of each combination.
    source: a folder (`class/file` or `split/class/file`) or a zip archive of one, a CSV manifest (path,label[,group][,split]), a
    torch Dataset of (input, label[, group]), a `datasets.Dataset`, or a mapping of "train" (and "val", "test") to these. A group
    is handed to objectives and metrics; it does not keep examples together when they are split. Sound is mixed to mono,
    resampled, and cut to the backbone's length. Splits that are not given are held
    out of the training examples, stratified and seeded: `test_share` only where there is neither validation nor test
    data, `val_share` where there is no validation data. shots: keep k training examples of each class. Raises `DataError`;
    `BadFilesError` listing every file that cannot be used, unless `skip_bad`.
    """
    if isinstance(source, Data):
        return source
    if not hasattr(inputs, "kind"):
        raise DataError(f"Found inputs={type(inputs).__name__}; needed is what a backbone takes: load_data(…, backbone.inputs).")
    whole_number(seed=seed, **({} if shots is None else {"shots": shots}))
    skipped: list[tuple[str, str]] = []
    columns = _columns(label, group)
    if isinstance(source, (str, Path)):
        parts, skipped = _from_files(Path(source), inputs, skip_bad, progress, columns=columns)
    else:
        given = {SPLITS.get(str(k), k): v for k, v in _named(source) if v is not None}
        if "train" not in given or set(given) - {"train", "val", "test"}:
            raise DataError(
                f"Found data with parts {sorted(map(str, given))}; needed is 'train', and if wanted 'val' and 'test'."
            )
        names = classes or hub_classes([v for v in given.values() if is_hub_dataset(v)], label)
        parts = _same_numbering({k: _wrapped(v, inputs, names, columns) for k, v in given.items()})
        parts, skipped = _without_bad(parts, skip_bad, progress)
    parts = same_groups(parts)
    train = parts["train"]
    _check_classes(parts)
    _check_sizes(train, 1 + ("val" not in parts) + ("val" not in parts and "test" not in parts and test_share > 0))
    if "val" not in parts and "test" not in parts and test_share:
        train, parts["test"] = hold_out(train, test_share, seed, "test")
    if "val" not in parts:
        train, parts["val"] = hold_out(train, val_share, seed, "validation")
    if shots is not None:
        train = few_shot(train, shots, seed)
    return Data(train, parts["val"], parts.get("test"), train.classes, skipped)


def read_parts(
    path: Path,
    inputs: Any,
    part: str = "test",
    progress: bool = True,
    label: str | None = None,
    group: str | Sequence[str] | None = None,
) -> Examples:
    """The examples of one split of a folder or manifest, or all of them where it has no splits. Raises `DataError`."""
    columns = _columns(label, group)
    parts, _ = _from_files(path, inputs, skip_bad=False, progress=progress, needed=None, columns=columns)
    if part in parts:
        return parts[part]
    keep = getattr(parts.get("train", None), "get", None)
    root = keep.keep.root if isinstance(keep, Files) and keep.keep is not None else path
    if set(parts) != {"train"} or (root / "train").is_dir():
        raise DataError(f"{path} has no {part} split (found {', '.join(parts)}); name the folder that you mean.")
    return parts["train"]


def _same_numbering(parts: dict[str, Examples]) -> dict[str, Examples]:
    """Classes that are only numbered are counted over all parts."""
    if not any(part.named for part in parts.values()):
        longest = max((part.classes for part in parts.values()), key=len)
        for part in parts.values():
            part.classes = list(longest)
    return parts


def _named(source: Any) -> list[tuple[Any, Any]]:
    return list(source.items()) if isinstance(source, Mapping) else [("train", source)]


def _columns(label: str | None, group: str | Sequence[str] | None) -> Columns:
    return Columns(label, (group,) if isinstance(group, str) else tuple(group) if group is not None else None)


def _wrapped(source: Any, inputs: Any, classes: Sequence[str] | None, columns: Columns) -> Examples:
    if is_hub_dataset(source):
        return from_hub(source, inputs, classes, columns)
    return wrap(source, classes, lambda x: _convert(x, inputs))


def _without_bad(parts: dict[str, Examples], skip_bad: bool, progress: bool) -> tuple[dict[str, Examples], list[tuple[str, str]]]:
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


def _convert(x: Any, inputs: Any) -> Any:
    """A PIL picture of a torchvision data set → tensor `[C,H,W]` in [0,1]; anything else as it is."""
    return fit_image(x, inputs).float() / 255 if isinstance(x, Image.Image) else x


def _from_files(
    path: Path, inputs: Any, skip_bad: bool, progress: bool, needed: str | None = "train", columns: Columns = USUAL
) -> tuple[dict[str, Examples], list[tuple[str, str]]]:
    if not is_there(path):
        raise DataError(f"Found nothing at {path}; needed is a folder of classes, a zip archive of one, or a CSV manifest.")
    if getattr(inputs, "frames", None) and inputs.kind == "image":
        raise DataError("Video files are not read; pass a torch Dataset of (video [frames,C,H,W] in [0,1], label).")
    if path.is_file() and path.suffix.lower() not in (".csv", ".zip"):
        raise DataError(f"{path} is a file; needed is a folder of classes, a zip archive of one, or a CSV manifest (.csv).")
    archive = Archive(path) if path.suffix.lower() == ".zip" and path.is_file() else None
    root = archive.root if archive is not None else path
    shown = archive.shown if archive is not None else str
    manifest = archive.manifest if archive is not None else (path if path.is_file() else None)
    try:
        items = list_manifest(manifest, columns) if manifest is not None else list_folder(root)
    except DataError as error:
        if archive is None:
            raise
        raise DataError(str(error).replace(str(archive.root), str(path))) from error
    files = Files([item.path for item in items], reader(inputs), archive)
    bad = _scan(items, files, inputs.kind, progress)
    if bad and not skip_bad:
        raise BadFilesError([(shown(items[i].path), reason) for i, reason in bad.items()], len(items), SKIP if needed else "")
    good = [i for i in range(len(items)) if i not in bad]
    if not good:
        raise DataError(f"None of the {len(items)} files in {path} can be used; the first: {next(iter(bad.values()))}.")
    examples = _examples(items, files, inputs, good, shown)
    names = sorted({items[i].split or "train" for i in good})
    parts = {name: examples.subset([n for n, i in enumerate(good) if (items[i].split or "train") == name]) for name in names}
    if needed is not None and needed not in parts:
        raise DataError(f"{path} has no training examples (found only {', '.join(names)}).")
    return parts, [(shown(items[i].path), reason) for i, reason in bad.items()]


def _examples(items: list[Item], files: Files, inputs: Any, good: list[int], shown: Callable[[Path], str]) -> Examples:
    classes = sorted({items[i].label for i in good})
    group_names = sorted({item.group for i in good if (item := items[i]).group is not None})
    return Examples(
        files,
        [classes.index(item.label) if item.label in classes else -1 for item in items],
        classes,
        groups=[group_names.index(item.group) if item.group in group_names else -1 for item in items] if group_names else None,
        group_names=group_names or None,
        names=[shown(item.path) for item in items],
        sample_rate=getattr(inputs, "sample_rate", None),
        indices=good,
    )


def _scan(items: list[Item], files: Files, kind: str, progress: bool) -> dict[int, str]:
    """Number → reason of every file that cannot be used. What is read here is kept for training."""
    bad: dict[int, str] = {}
    with progress_bar(progress) as bar:
        for i in bar.track(range(len(items)), description="reading files"):
            reason = items[i].misplaced
            if reason is None and items[i].path.suffix.lower() not in suffixes(kind):
                reason = f"not {kind} ({items[i].path.suffix or 'no ending'}; read are {', '.join(suffixes(kind))})"
            if reason := reason or files.reason(i):
                bad[i] = reason
    return bad


def _check_sizes(train: Examples, needed: int) -> None:
    """Each class must be in each part that is made of the training data: raise `DataError` for one that is too small."""
    small = [f"{name!r} ({n})" for label, name in enumerate(train.classes) if (n := train.targets.count(label)) < needed]
    if small:
        raise DataError(
            f"Classes with fewer than {needed} examples, one each for {', '.join(('training', 'validation', 'test')[:needed])}: "
            f"{', '.join(small[:10])}. Add examples, remove the class, or give the splits yourself (split/class/file)."
        )


def _check_classes(parts: dict[str, Examples]) -> None:
    """Every class that is tested must have been trained, under the same name."""
    train = parts["train"]
    seen = set(train.targets)
    for name, part in parts.items():
        if part.classes != train.classes:
            raise DataError(
                f"The {name} data has other classes than the training data: {part.classes[:5]} and {train.classes[:5]}."
            )
        lost = sorted({train.classes[y] for y in part.targets if y not in seen})
        if lost:
            raise DataError(f"Classes in the {name} data without any training example: {', '.join(lost[:10])}.")
    if len(seen) < 2:
        raise DataError(f"Found {len(seen)} class{'es' * (len(seen) != 1)} ({', '.join(train.classes)}); needed are two or more.")
