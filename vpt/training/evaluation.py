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

from vpt.backbones import Backbone
from vpt.backbones.precision import DTYPES, say_if_slow
from vpt.data.examples import Examples
from vpt.data.wrapping import wrap
from vpt.errors import BackboneError, DataError
from vpt.errors.needs import whole
from vpt.metrics.classification import Scored, classification
from vpt.model import PromptedModel
from vpt.report.progress import progress_bar
from vpt.sites import Raw

MOST_GROUPS = 20  # of a few examples each
EACH = 5  # examples of a group, where there are more
# what a loader gives: inputs, labels `[B]`, and groups `[B]` where there are any
Batch = tuple[Raw, Tensor, *tuple[Tensor, ...]]


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
    data: Dataset[object],
    *,
    batch_size: int = 64,
    accelerator: Accelerator | None = None,
    progress: bool = False,
) -> Scored:
    """Accuracy, loss, n and per-class accuracy of a model on labelled data, over all processes.
    Raises `DataError`.
    """
    examples = matched(model, data)
    logits, y = scores(
        model, examples, batch_size=batch_size, accelerator=accelerator, progress=progress
    )
    return classification(logits, y, model.classes, examples.together)


def scores(
    model: PromptedModel,
    examples: Examples,
    *,
    outputs: bool = False,
    batch_size: int = 64,
    accelerator: Accelerator | None = None,
    progress: bool = False,
    what: str = "evaluating",
) -> tuple[Tensor, Tensor]:
    """(class scores `[n,C]`, labels `[n]`) in order, on the CPU. Of a clip that is longer than what
    the model hears: the mean over its windows. Raises `DataError`, `BackboneError`.

    model: whose scores they are.
    examples: matched to it.
    outputs: what the readout reads, instead of its scores.
    batch_size: examples at a time.
    accelerator: on which it is computed.
    progress: whether to show how far it is.
    what: what it is called then.
    """
    whole(DataError, batch_size=batch_size)
    accelerator = accelerator or accelerator_in("no")
    model.to(accelerator.device)
    heard, clips = examples.windows()
    order = list(range(accelerator.process_index, len(heard), accelerator.num_processes))
    loader = DataLoader(Subset(heard, order), batch_size=batch_size)

    def scored(batch: Batch) -> Tensor:
        with model.asked(tasks_of(model, batch)):
            out = model.outputs(batch[0]) if outputs else model(batch[0])
        return out.float().cpu()

    was = model.training
    model.eval()
    values: list[Tensor] = []
    labels: list[Tensor] = []
    shown = progress and accelerator.is_main_process
    try:
        with torch.no_grad(), accelerator.autocast(), progress_bar(shown) as bar:
            task = bar.add_task(what, total=len(loader))
            for batch in loader:
                values.append(scored(batch))
                labels.append(torch.as_tensor(batch[1]))
                bar.advance(task)
    finally:
        model.train(was)
    answers, y = _in_order(order, values, labels, accelerator)
    refuse_nan(model.backbone, answers)
    if len(clips) == len(examples):
        return answers, y
    which = torch.tensor(clips)
    first = torch.searchsorted(which, torch.arange(len(examples)))
    return of_clips(answers, which), y[first]


def _in_order(
    order: list[int], values: list[Tensor], labels: list[Tensor], accelerator: Accelerator
) -> tuple[Tensor, Tensor]:
    """(values, labels) of all processes, in the order of the examples. order: this process's."""
    parts = [(order, values, labels)]
    if accelerator.num_processes > 1:
        parts = gather_object(parts)
    back = torch.argsort(torch.tensor([i for order, _, _ in parts for i in order]))
    together = torch.cat([value for _, values, _ in parts for value in values])
    y = torch.cat([label for _, _, labels in parts for label in labels])
    return together[back], y[back]


def refuse_nan(backbone: Backbone, values: Tensor) -> None:
    """Raise `BackboneError` for answers that are no numbers: an accuracy of them would look like
    one.
    """
    bad = values.isnan().flatten(1).any(1)
    if bad.any():
        raise BackboneError(
            f"{type(backbone.model).__name__} gives NaN for {int(bad.sum())} of {len(values)}"
            " examples. Its weights or its precision are at fault (dtype='fp32', precision='no'),"
            " or a prompt that diverged (a smaller lr)."
        )


def of_clips(values: Tensor, clips: Tensor) -> Tensor:
    """The mean over the windows of each clip: `[n,…]` → `[m,…]`. clips `[n]`: which each window is
    of, in order.
    """
    count = torch.bincount(clips)
    sums = values.new_zeros(len(count), *values.shape[1:]).index_add_(0, clips, values)
    return sums / count.view(-1, *[1] * (values.ndim - 1))


def tasks_of(model: PromptedModel, batch: Batch) -> Tensor | None:
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
    classes, count = model.classes, model.readout.count
    if classes is None or not examples.named or examples.classes == classes:
        if count is not None and max(examples.targets) >= count:
            raise DataError(
                f"Found label {max(examples.targets)}; the model has {count} classes, so labels are"
                f" 0 to {count - 1}."
            )
        # only numbered, and the last ones do not occur
        if count is not None and len(examples.classes) < count:
            names = classes if classes is not None else [str(c) for c in range(count)]
            return examples.renamed(names, examples.labels)
        return examples
    used = [examples.classes[y] for y in sorted(set(examples.targets))]
    missing = [name for name in used if name not in classes]
    if missing:
        raise DataError(
            f"Classes of the data that the model does not have: {', '.join(missing[:10])}. It has"
            f" {', '.join(classes[:10])}."
        )
    position = {
        y: classes.index(name) for y, name in enumerate(examples.classes) if name in classes
    }
    return examples.renamed(classes, [position.get(y, -1) for y in examples.labels])


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
    used = sorted(set(groups))
    if len(used) > MOST_GROUPS and len(groups) < EACH * len(used):
        names = [(examples.group_names or [])[g] for g in used[:4]]
        raise DataError(
            f"Found {len(used)} groups among {len(groups)} {what} examples ({', '.join(names)}, …):"
            " that looks like free text, or like the name of each. Needed is a column of a few"
            f" groups, of {EACH} examples or more (--group)."
        )
    return examples
