"""A model's scores on labelled data, over any number of processes, with labels matched by class
name.
"""

from __future__ import annotations

from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import gather_object
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset

from vpt.backbones.precision import DTYPES, say_if_slow
from vpt.data.examples import Examples
from vpt.data.wrapping import wrap
from vpt.errors import BackboneError, DataError
from vpt.metrics import classification as metrics
from vpt.model import PromptedModel
from vpt.report.progress import progress_bar


def accelerator_in(precision: str) -> Accelerator:
    """An accelerator that computes in this precision: "no" (fp32), "bf16" or "fp16", whatever this
    process did before.
    """
    if AcceleratorState._shared_state and AcceleratorState().mixed_precision != precision:
        # or accelerate refuses a second precision in one process; the process group stays
        AcceleratorState._reset_state()
    if precision != "no":
        say_if_slow(DTYPES.get(precision), "It computes in")
    return Accelerator(mixed_precision=precision)


def evaluate(
    model: PromptedModel,
    data: Dataset,
    *,
    batch_size: int = 64,
    accelerator: Accelerator | None = None,
    progress: bool = False,
) -> dict[str, Any]:
    """Accuracy, loss, n and per-class accuracy of a model on labelled data, over all processes.
    Raises `DataError`.
    """
    examples = matched(model, data)
    logits, y = scores(
        model, examples, batch_size=batch_size, accelerator=accelerator, progress=progress
    )
    return metrics.classification(logits, y, model.classes)


def scores(
    model: PromptedModel,
    examples: Dataset,
    *,
    outputs: bool = False,
    batch_size: int = 64,
    accelerator: Accelerator | None = None,
    progress: bool = False,
    what: str = "evaluating",
) -> tuple[Tensor, Tensor]:
    """(class scores `[n,C]`, labels `[n]`) in order, on the CPU. outputs: what the readout reads,
    instead of its scores.

    Of a clip that is longer than what the model hears: the mean over its windows.
    """
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
        raise DataError(f"Found batch_size={batch_size!r}; needed is a whole number of at least 1.")
    accelerator = accelerator or Accelerator()
    model.to(accelerator.device)
    heard, clips = examples.windows() if isinstance(examples, Examples) else (examples, None)
    order = list(range(accelerator.process_index, len(heard), accelerator.num_processes))  # type: ignore[arg-type]
    loader = DataLoader(Subset(heard, order), batch_size=batch_size)
    was = model.training
    model.eval()
    found: list[Tensor] = []
    labels: list[Tensor] = []
    try:
        with (
            torch.no_grad(),
            accelerator.autocast(),
            progress_bar(progress and accelerator.is_main_process) as bar,
        ):
            task = bar.add_task(what, total=len(loader))
            for batch in loader:
                with model.asked(tasks_of(model, batch)):
                    found.append(
                        (model.outputs(batch[0]) if outputs else model(batch[0])).float().cpu()
                    )
                labels.append(torch.as_tensor(batch[1]))
                bar.advance(task)
    finally:
        model.train(was)
    parts = [(order, found, labels)]
    if accelerator.num_processes > 1:
        parts = gather_object(parts)
    back = torch.argsort(torch.tensor([i for part in parts for i in part[0]]))
    values, y = (
        torch.cat([t for part in parts for t in part[1]])[back],
        torch.cat([t for part in parts for t in part[2]])[back],
    )
    _refuse_nan(model, values)
    if clips is None or len(clips) == len(examples):  # type: ignore[arg-type]
        return values, y
    return _of_clips(values, y, torch.tensor(clips))


def _refuse_nan(model: PromptedModel, values: Tensor) -> None:
    """Raise `BackboneError` for answers that are no numbers: an accuracy of them would look like
    one.
    """
    bad = values.isnan().flatten(1).any(1)
    if bad.any():
        raise BackboneError(
            f"{type(model.backbone.model).__name__} gives NaN for {int(bad.sum())} of {len(values)}"
            " examples. Its weights or its precision are at fault (dtype='fp32', precision='no'),"
            " or a prompt that diverged (a smaller lr)."
        )


def _of_clips(values: Tensor, y: Tensor, clips: Tensor) -> tuple[Tensor, Tensor]:
    """(mean over the windows of each clip, its label). clips `[n]`: which each window is of, in
    order.
    """
    count = torch.bincount(clips)
    mean = (
        values.new_zeros(len(count), values.shape[1]).index_add_(0, clips, values) / count[:, None]
    )
    return mean, y[torch.cumsum(count, 0) - count]


def tasks_of(model: PromptedModel, batch: Any) -> Tensor | None:
    """The task of each example of a batch, for models that ask: its group."""
    return torch.as_tensor(batch[2]) if model.tasks and len(batch) > 2 else None


def matched(model: PromptedModel, data: Any) -> Examples:
    """Labelled data whose labels are the model's, and, for models of several tasks, whose groups
    are the model's tasks.

    Both are matched by name, never by order. Raises `DataError`.
    """
    examples = _labels_matched(model, data)
    if not model.tasks:
        return examples
    names = examples.group_names or []
    used = {names[g] if 0 <= g < len(names) else None for g in examples.grouped or [-1]}
    if strange := sorted(str(name) for name in used - set(model.tasks)):
        raise DataError(
            f"Found examples of task {', '.join(strange[:5])}; this model has"
            f" {', '.join(model.tasks[:10])}. The group of each example must be its task:"
            " vpt.data.joined({task: examples, …})."
        )
    return examples.regrouped(model.tasks)


def _labels_matched(model: PromptedModel, data: Any) -> Examples:
    examples = wrap(data, None, lambda x: x)
    if len(examples) == 0:
        raise DataError("Found a data set without examples.")
    rate, needed = examples.sample_rate, getattr(model.backbone.inputs, "sample_rate", None)
    if rate is not None and needed is not None and rate != needed:
        raise DataError(
            f"Found sound at {rate} Hz; this backbone needs {needed} Hz. Load it with load_data(…,"
            " backbone.inputs)."
        )
    own, count = model.classes, model.readout.count
    if own is None or not examples.named or examples.classes == own:
        if count is not None and max(examples.targets) >= count:
            raise DataError(
                f"Found label {max(examples.targets)}; the model has {count} classes, so labels are"
                f" 0 to {count - 1}."
            )
        # only numbered, and the last ones do not occur
        if count is not None and len(examples.classes) < count:
            names = own if own is not None else [str(c) for c in range(count)]
            return examples.renamed(names, examples.labels)
        return examples
    used = [examples.classes[y] for y in sorted(set(examples.targets))]
    missing = [name for name in used if name not in own]
    if missing:
        raise DataError(
            f"Classes of the data that the model does not have: {', '.join(missing[:10])}. It has"
            f" {', '.join(own[:10])}."
        )
    position = {y: own.index(name) for y, name in enumerate(examples.classes) if name in own}
    return examples.renamed(own, [position.get(y, -1) for y in examples.labels])


def grouped(model: PromptedModel, data: Any, what: str) -> Examples:
    """`matched`, and a group for every example. Raises `DataError`."""
    examples = matched(model, data)
    groups = examples.grouped
    if groups is None:
        raise DataError(
            f"The {what} examples have no groups; needed is a group column in the CSV (--group), or"
            " items of (input, label, group)."
        )
    missing = [examples.name(i) for i, g in enumerate(groups) if g < 0]
    if missing:
        raise DataError(
            f"{len(missing)} of {len(groups)} {what} examples have no group:"
            f" {', '.join(missing[:5])}."
        )
    return examples
