"""From a folder, a CSV manifest or a torch Dataset to labelled training, validation and test
examples.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vpt.data.checking import check_classes, check_sizes, doubts
from vpt.data.datasets import from_datasets
from vpt.data.examples import Examples, same_groups
from vpt.data.looking import Source, look
from vpt.data.parts import CALLED, Data
from vpt.data.reading import from_files
from vpt.data.sources import Columns
from vpt.data.splits import few_shot, hold_out
from vpt.errors import DataError
from vpt.errors.needs import whole
from vpt.sites import InputsLike

MOST_SEED = (1 << 32) - 1


def load_data(
    source: object,
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
    inputs: what a backbone takes, `backbone.inputs`.
    shots: keep k training examples of each class.
    val_share: of the training examples, held out where no validation data are given, stratified and
        seeded. Copies of one file stay on one side.
    test_share: likewise, where there is neither validation nor test data.
    seed: of what is held out and kept.
    skip_bad: go on without files that cannot be used.
    classes: names of a Dataset's labels (folders and manifests name their own).
    label: what this column is called in a manifest or `datasets.Dataset`, if not "label".
    group: likewise, if not "group"; several columns make a group of each combination. A group is
        handed to objectives and metrics.
    split_by: a column whose values each stay on one side when examples are held out (a person, a
        speaker, a track). Of a folder: "series", files whose names differ in their last number, or
        "file", each by itself; by default the first where names say so plainly.
    progress: whether a bar is shown.

    Raises `DataError`; `BadFilesError` listing every file that cannot be used, unless `skip_bad`.
    """
    if isinstance(source, Data):
        options = {
            "shots": shots,
            "label": label,
            "group": group,
            "split_by": split_by,
            "classes": classes,
        }
        _refuse_options([name for name, value in options.items() if value is not None])
        return source
    if not hasattr(inputs, "kind"):
        raise DataError(
            f"Found inputs={type(inputs).__name__}; needed is what a backbone takes: load_data(…,"
            " backbone.inputs)."
        )
    numbers = {"seed": seed} if shots is None else {"seed": seed, "shots": shots}
    whole(DataError, least=0, most=MOST_SEED, numpy=True, **numbers)
    notes: list[str] = []
    careful: list[str] = []
    lengths: list[float] = []
    if isinstance(source, (str, Path)):
        source = look(source, label, group, split_by)
    if isinstance(source, Source):
        parts, skipped = from_files(source, inputs, skip_bad, progress)
        notes = list(source.listing.notes)
        careful = list(source.listing.careful)
        lengths = source.lengths if inputs.kind == "sound" else []
    else:
        columns = Columns.named(label, group, split_by)
        parts, skipped = from_datasets(source, inputs, classes, columns, skip_bad, progress)
    parts = same_groups(parts)
    check_classes(parts, careful)
    made = _split(parts, val_share, test_share, seed)
    train = parts["train"]
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
    data.careful += doubts(data)
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

    path: a folder, zip archive or CSV, or one that `look` has listed.
    inputs: what a backbone takes, `backbone.inputs`.
    part: "train", "val" or "test".
    progress: whether a bar is shown.
    label: the column of the label, as for `load_data`.
    group: the column of the group, or several.

    Raises `DataError`.
    """
    source = path if isinstance(path, Source) else look(path, label, group)
    parts, _ = from_files(source, inputs, skip_bad=False, progress=progress, needed=None)
    if part in parts:
        return parts[part]
    if set(parts) != {"train"} or (source.root / "train").is_dir():
        raise DataError(
            f"{source.path} has no {part} split (found {', '.join(parts)}); say one of these."
        )
    return parts["train"]


def _refuse_options(names: Sequence[str]) -> None:
    if names:
        raise DataError(
            f"Found {', '.join(names)} for data that are loaded already; say it where they"
            " are: vpt.load_data(…)."
        )


def _split(
    parts: dict[str, Examples], val_share: float, test_share: float, seed: int
) -> dict[str, str]:
    """Hold out what is not among the parts, from the training examples; part → how it came
    about.
    """
    made = dict.fromkeys(parts, "given")
    shares: dict[str, float] = {}
    if "val" not in parts:
        if "test" not in parts and test_share:
            shares["test"] = test_share
        shares["val"] = val_share
    check_sizes(parts["train"], 1 + len(shares))
    for name, share in shares.items():
        train, held = hold_out(parts["train"], share, seed, CALLED[name])
        parts |= {"train": train, name: held}
        made |= {"train": "what is left", name: _held(train, held, share, seed)}
    return made


def _held(train: Examples, held: Examples, share: float, seed: int) -> str:
    """How a part was held out, with the share that it came to: of a few persons a fifth may be no
    whole one.
    """
    reached = len(held) / (len(train) + len(held))
    asked = f" ({share:.0%} asked for)" if abs(reached - share) > 0.05 else ""
    by = f", no {train.apart} on two sides" if train.apart else ""
    return (
        f"{reached if asked else share:.0%} of the training data{asked}, held out with seed"
        f" {seed}{by}"
    )
