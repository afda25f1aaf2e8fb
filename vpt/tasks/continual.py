"""Tasks that come one after another, each with classes of its own, and no data kept: prompts, and
what they must beat.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor
from torch.utils.data import DataLoader

from vpt.backbones import Backbone
from vpt.data import Data, Examples, joined, with_classes
from vpt.errors import DataError, TrainingError
from vpt.errors.places import is_there
from vpt.files import read, restore, save, write_atomically
from vpt.metrics import classification as metrics
from vpt.model import PromptedModel
from vpt.prompts import Prompt, Queried, parse
from vpt.readouts import NearestMean, RandomRidge, Readout, TaskHeads
from vpt.report.progress import notice
from vpt.runs.opening import opened
from vpt.training.checkpoints import CHECKPOINT, digest
from vpt.training.evaluation import accelerator_in, evaluate, matched, scores
from vpt.training.folders import PROMPT, run_folder
from vpt.training.loop import fit
from vpt.training.plan import seed_for
from vpt.training.recipe import Recipe, chosen

RECIPE = Recipe(epochs=5, lr=5e-3, readout_lr=0.02)
ONE = "deep:5"  # the one prompt of sequential and of joint training
BASELINES = ("nearest-mean", "ridge", "joint")
RESULTS = "results.json"
Method = str | Prompt | Callable[[Backbone], Prompt]


@dataclass
class Outcome:
    """What a method made of a sequence of tasks; `model` holds its prompt and heads, still
    attached.

    accuracy: `[T][i ≤ t]`, on task i's test examples after task t, all classes seen so far
        competing. sizes: how many test examples each task has. usage: per prompted block, how much
        each part of the prompt was used by each task's test examples `[T,M]`; empty for prompts
        without parts to choose from.
    """

    method: str
    tasks: list[list[str]]
    sizes: list[int]
    accuracy: list[list[float]]
    usage: list[list[list[float]]]
    model: PromptedModel
    file: Path | None = None

    @property
    def forgetting_l2p(self) -> float | None:
        """Mean over earlier tasks of the best accuracy minus the last (L2P); None for joint
        training.
        """
        return (
            metrics.forgetting_l2p(self.accuracy) if len(self.accuracy) == len(self.tasks) else None
        )

    @property
    def forgetting_coda(self) -> float | None:
        """CODA-Prompt's F_N, a much smaller number; None for joint training."""
        return (
            metrics.forgetting_coda(self.accuracy)
            if len(self.accuracy) == len(self.tasks)
            else None
        )

    @property
    def after_each_task(self) -> list[float]:
        """Accuracy over the test examples of all tasks seen so far, after each of them; one number
        for joint training.
        """
        return [float(np.average(row, weights=self.sizes[: len(row)])) for row in self.accuracy]

    @property
    def final_average(self) -> float:
        """Accuracy over all test examples after the last task."""
        return self.after_each_task[-1]

    @property
    def parts_used(self) -> float | None:
        """Which share of a prompt's parts is in use, exp(entropy of their mean weights) ÷ their
        number; 1/M (L2P: top/M) where the choice collapsed.
        """
        if not self.usage:
            return None
        shares = [
            np.mean(block, axis=0) / max(np.sum(np.mean(block, axis=0)), 1e-12)
            for block in self.usage
        ]
        return float(
            np.mean([np.exp(-np.sum(p * np.log(np.clip(p, 1e-12, None)))) / len(p) for p in shares])
        )

    def report(self) -> dict[str, Any]:
        """All numbers, as plain values."""
        return {
            "method": self.method,
            "tasks": self.tasks,
            "accuracy": self.accuracy,
            "final_average": self.final_average,
            "forgetting_l2p": self.forgetting_l2p,
            "forgetting_coda": self.forgetting_coda,
            "parts_used": self.parts_used,
            "usage": self.usage,
        }


def split(data: Data, per_task: int = 2, seed: int | None = 0) -> list[Data]:
    """One data set as a class-incremental sequence: `per_task` classes each, in an order drawn with
    `seed` (None: as they are).

    Raises `DataError` where the classes do not come out even.
    """
    names = list(data.train.classes)
    if per_task < 1 or len(names) % per_task:
        raise DataError(
            f"Found {len(names)} classes for tasks of {per_task}; needed is a number that divides"
            " them."
        )
    order = (
        names
        if seed is None
        else [names[i] for i in np.random.default_rng(seed).permutation(len(names))]
    )
    chunks = [order[i : i + per_task] for i in range(0, len(order), per_task)]
    return [
        Data(
            with_classes(data.train, own),
            with_classes(data.val, own),
            with_classes(data.test, own) if data.test is not None else None,
            own,
            [],
        )
        for own in chunks
    ]


def run(
    method: Method,
    tasks: Sequence[Data],
    backbone: str | Path | Backbone = "vpt:vit-p8-64",
    *,
    out: str | Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    part: str = "test",
    start: str = "means",
    seed: int | None = None,
    progress: bool = True,
    recipe: Recipe | None = None,
    **settings: Any,
) -> Outcome:
    """Learn tasks one after another, without going back to the data of earlier ones, and test on
    all classes seen so far.

    method: "l2p", "dual" or "coda", or any prompt as text ("coda:20@0-7", "prefix:4"), object or
        function of the backbone, tuned on one task after the other; "sequential" tunes one set of
        deep tokens so, "joint" ("joint:coda:10") learns all tasks at once, and "nearest-mean" and
        "ridge" (on random features, as RanPAC) learn no prompt. All prompts have the same heads:
        one per task, in training the others score −inf. start: how a new head begins, at its class
        "means" or at "zeros". out: a folder for the prompt file and the numbers; a run that was
        killed goes on with resume, to the same bytes, and overwrite gives up what a folder holds.
        part: what is tested on ("val" to choose settings by). recipe, or its fields as settings.
        Raises `DataError` for no task, an empty one, or a class in two of them; `TrainingError` for
        a folder of another run.
    """
    check_tasks(tasks, part)
    if start not in ("means", "zeros"):
        raise TrainingError(f"Found start={start!r}; needed is 'means' or 'zeros'.")
    recipe = chosen(recipe, RECIPE, seed=seed, **settings)
    name = method if isinstance(method, str) else type(method).__name__
    joint = isinstance(method, str) and method.partition(":")[0] == "joint"
    # which of its files are a finished run's is seen later
    with run_folder(out, resume, overwrite, finished=()) as folder:
        if folder is not None and overwrite and not resume and Accelerator().is_main_process:
            (folder / RESULTS).unlink(missing_ok=True)
        with opened(backbone) as backbone:
            sequence = _Sequence(
                list(tasks), backbone, part, recipe.seed, progress, folder, overwrite
            )
            if name in ("nearest-mean", "ridge"):
                return sequence.statistics(name, resume)
            prompt = _prompt(
                str(method).partition(":")[2] or ONE if joint else method, backbone, recipe.seed
            )
            return sequence.prompts(name, prompt, recipe, start, resume, joint)


def check_tasks(tasks: Sequence[Data], part: str = "test") -> None:
    """Raise `DataError` for no task, one without training examples or without a test part, or a
    class that two tasks have.
    """
    if (
        isinstance(tasks, (str, Data))
        or not isinstance(tasks, Sequence)
        or not all(isinstance(task, Data) for task in tasks)
    ):
        raise DataError(
            "The tasks are a list of vpt.Data, one for each: vpt.continual.split(vpt.load_data(…)),"
            " or your own."
        )
    if part not in ("test", "val"):
        raise DataError(f"Found part={part!r}; needed is 'test' or 'val'.")
    joined({f"task {t + 1}": task.train for t, task in enumerate(tasks)})
    for t, task in enumerate(tasks):
        held = getattr(task, part)
        if not _has(held):
            raise DataError(f"Task {t + 1} has no {part} examples to be tested on.")


def _has(examples: Examples | None) -> bool:
    return examples is not None and len(examples) > 0


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


def _prompt(method: Method, backbone: Backbone, seed: int) -> Prompt:
    if isinstance(method, Prompt):
        return copy.deepcopy(method)
    if not isinstance(method, str):
        return method(backbone)
    return parse(ONE if method == "sequential" else method, backbone, seed=seed)


class _Sequence:
    """Tasks on a backbone: what every method shares."""

    def __init__(
        self,
        tasks: list[Data],
        backbone: Backbone,
        part: str,
        seed: int,
        progress: bool,
        out: Path | None,
        overwrite: bool,
    ) -> None:
        self.tasks, self.backbone, self.part, self.seed, self.progress, self.out = (
            tasks,
            backbone,
            part,
            seed,
            progress,
            out,
        )
        self.overwrite = overwrite
        self.classes = [task.train.classes for task in tasks]
        self.sizes = [len(self.tested(t)) for t in range(len(tasks))]
        self.accelerator = accelerator_in("no")
        self.main = self.accelerator.is_main_process
        self.say = partial(notice, shown=progress and self.main)

    def tested(self, t: int) -> Examples:
        """What task t is tested on."""
        return getattr(self.tasks[t], self.part)

    # prompts ----------------------------------------------------------------------------
    def prompts(
        self, name: str, prompt: Prompt, recipe: Recipe, start: str, resume: bool, joint: bool
    ) -> Outcome:
        """Tune a prompt on one task after the other, or on all at once."""
        width, count = self.backbone.out_features, len(self.tasks)
        self.accelerator = accelerator_in(recipe.precision)
        first = (
            {"all": [name for own in self.classes for name in own]}
            if joint
            else {"1": self.classes[0]}
        )
        readout = TaskHeads(width, first, incremental=True)
        if not joint and (
            lone := [t + 1 for t, classes in enumerate(self.classes) if len(classes) < 2]
        ):
            raise DataError(
                f"Task {lone[0]} has one class: with all others masked in training there is nothing"
                " to tell it from. Needed are tasks of two classes or more, or 'nearest-mean',"
                " 'ridge' or 'joint'."
            )
        identity = self._identity(name, prompt.config(), asdict(recipe), start)
        model = PromptedModel(self.backbone, prompt, readout)
        try:
            rows, done = self._found(model, identity, resume, joint)
            for t in [count - 1] if joint else range(count):
                if t and not joint and t >= done:
                    prompt.grow(seed_for(self.seed, t) % (1 << 31))
                    readout.grow(str(t + 1), self.classes[t])
                if t >= done:
                    self._learn(model, t, recipe, start, resume, joint)
                    self._keep(model, t + 1, rows, identity)
                if len(rows) <= (0 if joint else t):
                    rows.append([self._accuracy(model, i) for i in range(t + 1)])
                    average = np.average(rows[-1], weights=self.sizes[: t + 1])
                    self.say(f"after task {t + 1} of {count}: {average:.1%} on all seen so far")
                    self._keep(model, t + 1, rows, identity)
            outcome = self._outcome(name, rows, model, self._usage(model))
        except BaseException:
            model.close()
            raise
        return outcome

    def _learn(
        self, model: PromptedModel, t: int, recipe: Recipe, start: str, resume: bool, joint: bool
    ) -> None:
        readout, train = cast(TaskHeads, model.readout), self.tasks[t].train
        folder = self.out / f"task-{t + 1}" if self.out is not None else None
        if joint:
            train = joined({str(i + 1): task.train for i, task in enumerate(self.tasks)})
        if start == "means":
            with _newest(model.prompt):
                readout.start(*self._features(model, train))
        fit(
            model,
            train,
            None,
            recipe=recipe,
            out=folder,
            resume=resume,
            overwrite=self.overwrite,
            progress=self.progress,
        )

    @torch.no_grad()
    def _usage(self, model: PromptedModel) -> list[list[list[float]]]:
        """Per prompted block, how much each part is used by each task's examples `[T,M]`; empty
        without parts to choose from.
        """
        if not isinstance(model.prompt, Queried):
            return []
        model.eval()
        rows: list[list[Tensor]] = []
        for t in range(len(self.tasks)):
            found: list[list[Tensor]] = []
            heard = self.tested(t).windows()[0]
            for batch in DataLoader(heard, batch_size=64):
                with self.accelerator.autocast():
                    model.outputs(batch[0])
                found.append([used * len(batch[1]) for used in model.prompt.usage()])
            rows.append(
                [torch.stack(block).sum(0) / len(heard) for block in zip(*found, strict=True)]
            )
        return [torch.stack(block).tolist() for block in zip(*rows, strict=True)]

    def _outcome(
        self,
        name: str,
        rows: list[list[float]],
        model: PromptedModel,
        usage: list[list[list[float]]],
    ) -> Outcome:
        file = self.out / PROMPT if self.out is not None and (self.out / PROMPT).exists() else None
        outcome = Outcome(name, self.classes, self.sizes, rows, usage, model, file)
        if self.out is not None and self.main:
            identity = json.loads((self.out / RESULTS).read_text(encoding="utf-8"))["identity"]
            write_atomically(
                self.out / RESULTS,
                json.dumps({"identity": identity, **outcome.report()}, indent=1).encode(),
            )
        return outcome

    # baselines without prompts ----------------------------------------------------------
    def statistics(self, name: str, resume: bool) -> Outcome:
        """Class means or ridge regression on the frozen features: sums that no later task
        disturbs.
        """
        identity = self._identity(name)
        self._earlier(identity, resume)  # quick enough to be done again
        width, names = self.backbone.out_features, [c for own in self.classes for c in own]
        ridge = name == "ridge"
        readout: Readout = (
            RandomRidge(width, names, seed=self.seed) if ridge else NearestMean(width, names)
        )
        model = PromptedModel(self.backbone, None, readout)
        rows: list[list[float]] = []
        try:
            held: list[tuple[Tensor, Tensor]] = []
            for t, task in enumerate(self.tasks):
                train = self._named(model, task.train)
                if isinstance(readout, RandomRidge):
                    self._learn_ridge(
                        readout, train, self._named(model, task.val) if _has(task.val) else None
                    )
                else:
                    readout.update(*train)
                held.append(self._named(model, self.tested(t)))
                rows.append([metrics.classification(readout(x), y)["accuracy"] for x, y in held])
            self._keep(model, len(self.tasks), rows, identity)
            return self._outcome(name, rows, model, [])
        except BaseException:
            model.close()
            raise

    def _learn_ridge(
        self, readout: RandomRidge, train: tuple[Tensor, Tensor], val: tuple[Tensor, Tensor] | None
    ) -> None:
        """Add a task, λ being chosen on its validation data; without any on a fifth of the training
        data, which is then added (as RanPAC does): on what it was fitted to, the least λ always
        looks best.
        """
        x, y = train
        order = torch.randperm(len(y), generator=torch.Generator().manual_seed(self.seed)).to(
            y.device
        )
        cut = 0 if val is not None else len(y) // 5
        held, rest = order[:cut], order[cut:]
        readout.update(x[rest], y[rest])
        if val is not None or cut:
            readout.choose_strength(*(val if val is not None else (x[held], y[held])))
            readout.update(x[held], y[held])
        readout.settle()

    def _named(self, model: PromptedModel, examples: Examples) -> tuple[Tensor, Tensor]:
        """Features `[n,D]` and labels `[n]` among all classes, on the backbone's device."""
        x, y = self._features(model, matched(model, examples))
        return x.to(self.backbone.device), y.to(self.backbone.device)

    def _accuracy(self, model: PromptedModel, i: int) -> float:
        return evaluate(
            model, self.tested(i), accelerator=self.accelerator, progress=self.progress
        )["accuracy"]

    def _features(self, model: PromptedModel, examples: Examples) -> tuple[Tensor, Tensor]:
        return scores(
            model,
            examples,
            outputs=True,
            accelerator=self.accelerator,
            progress=self.progress,
            what="features",
        )

    # what is on disk --------------------------------------------------------------------
    def _found(
        self, model: PromptedModel, identity: str, resume: bool, joint: bool
    ) -> tuple[list[list[float]], int]:
        """(the rows of an interrupted run, how many tasks its prompt has learned), which the model
        takes over.
        """
        found = self._earlier(identity, resume)
        if self.out is None:
            return [], 0
        # so that whose the folder is is known before there is a prompt file
        if found is None and self.main:
            _write(self.out, identity, [])
        if found is None or not is_there(self.out / PROMPT):
            return [], 0
        header, tensors = read(self.out / PROMPT)
        done = int(header["trained_on"]["tasks"])
        for t in range(1, 1 if joint else done):
            model.prompt.grow()
            model.readout.grow(str(t + 1), self.classes[t])  # type: ignore[operator]
        restore(model, tensors)
        return found["accuracy"], done

    def _identity(self, *facts: Any) -> str:
        """What two runs must share for one to go on where the other stopped."""
        sizes = [
            [len(task.train), len(task.val or ()), len(self.tested(t))]
            for t, task in enumerate(self.tasks)
        ]
        return digest(
            [*facts, self.seed, self.part, self.classes, sizes, self.backbone.fingerprint()]
        )

    def _earlier(self, identity: str, resume: bool) -> dict[str, Any] | None:
        """The numbers of an earlier run in the folder; None where there is none. Raises
        `TrainingError` for another run's.
        """
        if self.out is None:
            return None
        if not is_there(self.out / RESULTS):
            if is_there(self.out / PROMPT) and not self.overwrite:
                raise TrainingError(
                    f"{self.out} holds a finished run of another kind. Choose another folder"
                    " (out=…), or overwrite=True."
                )
            return None
        found = json.loads((self.out / RESULTS).read_text(encoding="utf-8"))
        if found.get("identity") != identity:
            raise TrainingError(
                f"{self.out} holds a run of other tasks or settings. Choose another folder (out=…),"
                " or overwrite=True."
            )
        if not resume:
            raise TrainingError(
                f"{self.out} holds a run already. Go on with resume=True, choose another folder"
                " (out=…), or begin again with overwrite=True."
            )
        return found

    def _keep(
        self, model: PromptedModel, done: int, rows: list[list[float]], identity: str
    ) -> None:
        """The prompt file first, then the rows."""
        if self.out is None or not self.main:
            return
        save(self.out / PROMPT, model, trained_on={"tasks": done})
        _write(self.out, identity, rows)
        (self.out / f"task-{done}" / CHECKPOINT).unlink(missing_ok=True)


def _write(out: Path, identity: str, rows: list[list[float]]) -> None:
    write_atomically(out / RESULTS, json.dumps({"identity": identity, "accuracy": rows}).encode())
