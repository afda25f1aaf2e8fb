"""What a correction is made from: a readout that can be corrected, the examples that are to be
right, and what else there is.
"""

from __future__ import annotations

from functools import reduce
from pathlib import Path

from vpt.data import Examples, look, read_parts
from vpt.data.joining import appended
from vpt.data.reading import from_files
from vpt.errors import DataError, PromptFileError, TrainingError
from vpt.files.naming import PROMPT
from vpt.model import PromptedModel
from vpt.readouts.corrected import Corrected
from vpt.runs.corrected import Checked
from vpt.runs.journal import digests_of
from vpt.runs.moments import MEMORY, Moments, features_of
from vpt.training.evaluation import matched

MOST = 1000  # examples of a correction; more are a task to learn


def correctable(model: PromptedModel) -> Corrected:
    """The model's readout with nothing added yet, or with earlier corrections."""
    if isinstance(model.readout, Corrected):
        return model.readout
    made = features_of(model)
    if made is None:
        raise TrainingError(
            f"This run's readout, {type(model.readout).__name__}, cannot be corrected; needed is"
            " one of features without tasks ('linear', or 'identity' of a model with one linear"
            " classifier)."
        )
    return Corrected(made).to(model.backbone.device).eval()


def read_matched(
    model: PromptedModel, data: str | Path | Examples, label: str | None, part: str, progress: bool
) -> Examples:
    """Examples matched to a model. part: of data that have several. Raises `DataError`."""
    if isinstance(data, (str, Path)):
        inputs = model.backbone.inputs
        data = read_parts(look(data, label), inputs, part=part, progress=progress)
    return matched(model, data)


def without(examples: Examples, digests: list[str]) -> Examples:
    """Examples but those of these digests. Raises `DataError` where none is left."""
    known = set(digests)
    left = [i for i, digest in enumerate(digests_of(examples)) if digest not in known]
    if not left:
        raise DataError("The check set holds nothing but what is to be right; needed are others.")
    return examples.subset(left)


def to_be_right(
    model: PromptedModel, data: str | Path | Examples, label: str | None, progress: bool
) -> Examples:
    """What is to be right. Raises `DataError`."""
    if isinstance(data, (str, Path)):  # all of it, whatever splits it has
        parts, _ = from_files(look(data, label), model.backbone.inputs, False, progress, None)
        data = reduce(appended, parts.values())
    examples = matched(model, data)
    if len(examples) > MOST:
        raise DataError(
            f"Found {len(examples)} examples; a correction takes {MOST} at most. So many are worth"
            " a new run: vpt adapt on all of them."
        )
    return examples


def remembered(place: Path, readout: Corrected, checked: bool) -> Moments | None:
    """What the run remembers; None where a check set is to say it. Raises `TrainingError`."""
    moments = Moments.load(place.parent / MEMORY) if place.name == PROMPT else None
    if moments is None and not checked:
        raise TrainingError(
            f"{place.parent} remembers nothing of what it learned from ({MEMORY} is not there), so"
            " that nobody knows what else a correction would change. Give labelled examples that"
            " say so: check=… (--check DATA)."
        )
    if moments is not None and len(moments.mean) != readout.features:
        raise PromptFileError(
            f"{place.parent / MEMORY} is of {len(moments.mean)} features, and this run reads"
            f" {readout.features}: they are of two runs."
        )
    return moments


def moments_of_check(checked: Checked | None) -> Moments:
    """Those of a check set, where the run remembers nothing."""
    if checked is None:
        raise TrainingError("Found neither what the run remembers nor a check set.")
    return Moments.of(checked.features, checked.said, checked.y)
