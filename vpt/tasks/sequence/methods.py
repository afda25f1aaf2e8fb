"""How a sequence of tasks is learned: a prompt for one after another or all at once, and statistics
without one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from vpt.data import Examples, joined
from vpt.errors import DataError, PromptError
from vpt.files import restore
from vpt.metrics.classification import classification
from vpt.model import PromptedModel
from vpt.prompts import Prompt, Queried, QueryTokens, parse
from vpt.readouts import NearestMean, RandomRidge, TaskHeads
from vpt.readouts.named import Named
from vpt.tasks.sequence.journal import Journal, Rows
from vpt.tasks.sequence.outcome import Outcome
from vpt.tasks.sequence.reading import learn_to_read
from vpt.tasks.sequence.trial import Trial
from vpt.training.evaluation import matched
from vpt.training.loop import fit
from vpt.training.plan import seed_for
from vpt.training.recipe import Recipe


class Tuning:
    """A prompt that is tuned on the tasks, with a head for each.

    trial: the tasks.
    journal: where the run is kept.
    name: of the method, for people.
    prompt: the one that is tuned.
    recipe: by which.
    start: of a new head, "means" or "zeros".
    """

    def __init__(
        self,
        trial: Trial,
        journal: Journal,
        name: str,
        prompt: Prompt,
        recipe: Recipe,
        start: str,
    ) -> None:
        self.trial = trial
        self.journal = journal
        self.name = name
        self.prompt = prompt
        self.recipe = recipe
        self.start = start

    def one_after_another(self) -> Outcome:
        """Tune on each task in turn, never going back."""
        trial, prompt = self.trial, self.prompt
        readout = TaskHeads(trial.backbone.out_features, {"1": trial.classes[0]}, incremental=True)
        lone = [t + 1 for t, classes in enumerate(trial.classes) if len(classes) < 2]
        if lone:
            raise DataError(
                f"Task {lone[0]} has one class: with all others masked in training there is nothing"
                " to tell it from. Needed are tasks of two classes or more, or 'nearest-mean',"
                " 'ridge' or 'joint'."
            )
        with ExitStack() as undo:
            model = PromptedModel(trial.backbone, prompt, readout)
            undo.callback(model.close)  # whatever goes wrong
            rows, done, tensors = self.journal.begun()
            for t in range(1, done):
                prompt.grow()
                readout.grow(str(t + 1), trial.classes[t])
            if done:
                restore(model, tensors)
            for t, task in enumerate(trial.tasks):
                if t >= done:
                    if t:
                        prompt.grow(seed_for(trial.seed, t) % (1 << 31))
                        readout.grow(str(t + 1), trial.classes[t])
                    self._learn(model, readout, task.train, t)
                    self.journal.keep(model, t + 1, rows)
                if len(rows) <= t:
                    self._test(model, rows, t)
            outcome = self._outcome(model, rows)
            undo.pop_all()
        return outcome

    def all_at_once(self) -> Outcome:
        """Tune on all tasks together."""
        trial = self.trial
        last = len(trial.tasks) - 1
        readout = TaskHeads(
            trial.backbone.out_features, {"all": trial.all_classes}, incremental=True
        )
        with ExitStack() as undo:
            model = PromptedModel(trial.backbone, self.prompt, readout)
            undo.callback(model.close)  # whatever goes wrong
            rows, done, tensors = self.journal.begun()
            if done:
                restore(model, tensors)
            else:
                trains = {str(t + 1): task.train for t, task in enumerate(trial.tasks)}
                self._learn(model, readout, joined(trains), last)
                self.journal.keep(model, last + 1, rows)
            if not rows:
                self._test(model, rows, last)
            outcome = self._outcome(model, rows)
            undo.pop_all()
        return outcome

    def _learn(self, model: PromptedModel, readout: TaskHeads, train: Examples, t: int) -> None:
        if self.start == "means":
            with _newest(model.prompt):
                readout.start(*self.trial.features(model, train))
        fit(
            model,
            train,
            None,
            recipe=self.recipe,
            out=self.journal.of_task(t),
            resume=self.journal.resume,
            overwrite=self.journal.overwrite,
            progress=self.trial.progress,
        )

    def _test(self, model: PromptedModel, rows: Rows, t: int) -> None:
        """Add a row of accuracies, after task t, and keep it."""
        trial = self.trial
        rows.append([trial.accuracy(model, i) for i in range(t + 1)])
        average = np.average(rows[-1], weights=trial.sizes[: t + 1])
        trial.say(f"after task {t + 1} of {len(trial.tasks)}: {average:.1%} on all seen so far")
        self.journal.keep(model, t + 1, rows)

    def _outcome(self, model: PromptedModel, rows: Rows) -> Outcome:
        trial = self.trial
        usage = _usage(trial, model)
        return self.journal.finish(
            Outcome(self.name, trial.classes, trial.sizes, rows, usage, model)
        )


def count_statistics(trial: Trial, journal: Journal, name: str) -> Outcome:
    """Class means ("nearest-mean") or ridge regression ("ridge", "ridge:FEATURES") on frozen
    features: sums that no later task disturbs.

    "ridge:queries:4": on what queries read, which learn from the first task and then no more, as in
    RanPAC's first phase (McDonnell et al. 2023, section 4.1).
    """
    journal.earlier()  # quick enough to be done again
    backbone, of, prompt = trial.backbone, name.partition(":")[2] or "cls", None
    if of.startswith("queries"):
        made = parse(of, backbone, seed=trial.seed)
        if not isinstance(made, QueryTokens):
            raise PromptError(f"Found {name!r}; needed are queries alone, as in ridge:queries:4.")
        prompt, of = learn_to_read(trial, made, trial.tasks[0].train, 0)[0], "cls+queries"
    width = Named(of).width(backbone, prompt.reads if prompt is not None else 0)
    readout: RandomRidge | NearestMean = NearestMean(width, trial.all_classes)
    if name != "nearest-mean":
        readout = RandomRidge(width, trial.all_classes, seed=trial.seed, of=of)
    with ExitStack() as undo:
        model = PromptedModel(backbone, prompt, readout)
        undo.callback(model.close)  # whatever goes wrong
        rows: Rows = []
        held: list[tuple[Tensor, Tensor]] = []
        for t, task in enumerate(trial.tasks):
            train = _features(trial, model, task.train)
            if isinstance(readout, RandomRidge):
                val = _features(trial, model, task.val) if task.val else None
                _learn_ridge(readout, train, val, trial.seed)
            else:
                readout.update(*train)
            held.append(_features(trial, model, trial.tested(t)))
            rows.append([classification(readout(x), y)["accuracy"] for x, y in held])
        journal.keep(model, len(trial.tasks), rows)
        outcome = journal.finish(Outcome(name, trial.classes, trial.sizes, rows, [], model))
        undo.pop_all()
    return outcome


def _learn_ridge(
    readout: RandomRidge,
    train: tuple[Tensor, Tensor],
    val: tuple[Tensor, Tensor] | None,
    seed: int,
) -> None:
    """Add a task, λ being chosen on its validation data; without any on a fifth of the training
    data, which is then added (as RanPAC does): on what it was fitted to, the least λ always looks
    best.
    """
    x, y = train
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(seed)).to(y.device)
    cut = 0 if val is not None else len(y) // 5
    held, rest = order[:cut], order[cut:]
    readout.update(x[rest], y[rest])
    if val is not None:
        readout.choose_strength(*val)
    elif cut:
        readout.choose_strength(x[held], y[held])
    if val is not None or cut:
        readout.update(x[held], y[held])
    readout.settle()


def _features(trial: Trial, model: PromptedModel, examples: Examples) -> tuple[Tensor, Tensor]:
    """Features `[n,D]` and labels `[n]` among all classes, on the backbone's device."""
    x, y = trial.features(model, matched(model, examples))
    return x.to(trial.backbone.device), y.to(trial.backbone.device)


@torch.no_grad()
def _usage(trial: Trial, model: PromptedModel) -> list[list[list[float]]]:
    """Per prompted block, how much each part is used by each task's examples `[T,M]`; empty without
    parts to choose from.
    """
    if not isinstance(model.prompt, Queried):
        return []
    model.eval()
    rows: list[list[Tensor]] = []
    for t in range(len(trial.tasks)):
        used: list[list[Tensor]] = []
        heard = trial.tested(t).windows()[0]
        for batch in DataLoader(heard, batch_size=64):
            with trial.accelerator.autocast():
                model.outputs(batch[0])
            used.append([share * len(batch[1]) for share in model.prompt.usage()])
        rows.append([torch.stack(block).sum(0) / len(heard) for block in zip(*used, strict=True)])
    return [torch.stack(block).tolist() for block in zip(*rows, strict=True)]


@contextmanager
def _newest(prompt: Prompt) -> Iterator[None]:
    """Inside, a prompt that chooses by task takes the newest task's parts, as it does in
    training.
    """
    parts = [part for part in prompt.modules() if isinstance(part, Queried)]
    for part in parts:
        part.newest = True
    try:
        yield
    finally:
        for part in parts:
            part.newest = False
