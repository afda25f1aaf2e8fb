"""An open training loop on accelerate: any number of processes, resumable to the bit, the best
prompt kept.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from rich.progress import Progress
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from vpt.data import Examples, augment
from vpt.errors import DivergedError, PromptFileError, TrainingError
from vpt.files import learned, learned_copy, restore, write_atomically
from vpt.model import PromptedModel
from vpt.objectives import Classification, Gradients, Objective
from vpt.report.progress import notice, progress_bar
from vpt.training.checkpoints import (
    Checkpoint,
    Position,
    digest,
    optimizer_tensors,
    restore_optimizer,
)
from vpt.training.counting import adding_up, average_buffers, learn_statistics
from vpt.training.evaluation import accelerator_in, evaluate, matched, tasks_of
from vpt.training.folders import run_folder
from vpt.training.gradients import add_gradients, check_reach, no_gradients, reduce_gradients
from vpt.training.late import GIGABYTES, UNSTEADY, Say, full, late_features, without_cache
from vpt.training.plan import batches, chunks, schedule, seed_for
from vpt.training.recipe import Recipe, updated
from vpt.training.steadying import CUT, MOST_CUTS, leaves, noted, watched


@dataclass
class History:
    """One row per epoch (epoch 0: before training); `best` is the epoch whose prompt the model
    holds now.

    cuts: how often the rate was cut to a quarter, because training left its start by far.
    """

    rows: list[dict[str, Any]]
    best: int
    cuts: int = 0


def fit(
    model: PromptedModel,
    train: Dataset,
    val: Dataset | None = None,
    *,
    objective: Objective | None = None,
    recipe: Recipe | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    workers: int = 0,
    cache_gigabytes: float = GIGABYTES,
    progress: bool = True,
    **settings: Any,
) -> History:
    """Train a model's prompt and readout; afterwards it holds the state of least loss on `val`
    (without one, or with an objective by group, the last).

    train, val: datasets of (input, label[, group]). objective: `Classification()` by default.
        recipe, or its fields as settings (epochs=…, lr=…). out: a folder for history.jsonl and
        checkpoints. resume: go on from there after a kill; the numbers are those of an undisturbed
        run. overwrite: begin anew in a folder that holds a run. workers: processes that read and
        prepare the data. cache_gigabytes: how much may be kept of what enters the first prompted
        block, where that is not block 0. Raises `TrainingError`; `DivergedError` on NaN or
        infinity, with the last good prompt in the model; `DataError` for data that does not fit.
    """
    recipe = updated(recipe or Recipe(), **settings)
    if isinstance(workers, bool) or not isinstance(workers, int) or workers < 0:
        raise TrainingError(f"Found workers={workers!r}; needed is a whole number of at least 0.")
    accelerator = accelerator_in(recipe.precision)
    train_examples, val_examples = (
        matched(model, train),
        (matched(model, val) if val is not None else None),
    )
    objective = objective or Classification()
    if not isinstance(objective, Objective):
        raise TrainingError(
            f"Found {type(objective).__name__} as objective; needed is e.g. vpt.GapPenalty(1.0), or"
            " None."
        )
    objective.bind(
        train_examples.targets,
        train_examples.grouped,
        train_examples.classes,
        train_examples.group_names,
    )
    model.to(accelerator.device)
    run = _Run(model, train_examples, val_examples, objective, recipe, accelerator, workers)
    say = partial(notice, shown=progress and accelerator.is_main_process)
    identity = run.identity()
    devices = [accelerator.device] if accelerator.device.type == "cuda" else []
    model.eval()
    kept = late_features(model.backbone, model.attachment.sites, recipe.kept, say, cache_gigabytes)
    with run_folder(out, resume, overwrite) as folder:
        run.checkpoint = Checkpoint(folder, identity, accelerator)
        with torch.random.fork_rng(devices=devices), compiled(model, recipe.compile), kept:
            return run.go(resume, progress, say)


class _Run:
    """One training run: the state that `fit` carries from update to update."""

    checkpoint: Checkpoint

    def __init__(
        self,
        model: PromptedModel,
        train: Examples,
        val: Examples | None,
        objective: Objective,
        recipe: Recipe,
        accelerator: Accelerator,
        workers: int,
    ) -> None:
        self.model, self.train, self.val, self.recipe, self.workers = (
            model,
            train,
            val,
            recipe,
            workers,
        )
        self.accelerator, self.objective = accelerator, objective.to(accelerator.device)
        self.parts = {name: values for name, values in model.trained_parameters().items() if values}
        rates = {"prompt": recipe.lr, "readout": recipe.lr * recipe.readout_lr}
        groups = [
            {"params": [p], "base": rates[name]}
            for name, values in self.parts.items()
            for p in values
        ]
        self.optimizer: Any = None
        if groups:
            self.optimizer = accelerator.prepare(
                torch.optim.AdamW(groups, lr=recipe.lr, weight_decay=recipe.weight_decay)
            )
        self.own_optimizer = self.objective.optimizer()
        if self.own_optimizer is not None:
            self.parts["objective"] = list(self.objective.parameters())
        self.per_epoch = len(batches(len(train), recipe.batch_size, recipe.seed, 1))
        self.position = Position()
        self.unsteady = False  # whether the training examples change from one reading to the next
        self.best = self.start = learned_copy(self.model)
        self.begun = {name: value.clone() for name, value in self.objective.state_dict().items()}

    def identity(self) -> dict[str, Any]:
        """What two runs must share for one to go on where the other stopped."""
        return {
            **asdict(self.recipe),
            "objective": type(self.objective).__name__ + digest(self.objective.config()),
            "prompt": digest(self.model.prompt.config()),
            "readout": digest(self.model.readout.config()),
            "learns": digest(
                [name for name, p in self.model.named_parameters() if p.requires_grad]
            ),
            "backbone": self.model.backbone.fingerprint(),
            "weights": str(self.model.backbone.dtype).removeprefix("torch."),
            "train": digest(
                [self.train.targets, self.train.classes, self.train.grouped, self.train.group_names]
            ),
            "val": digest(self.val.targets) if self.val is not None else None,
        }

    # the whole run ----------------------------------------------------------------------
    def go(self, resume: bool, progress: bool, say: Say) -> History:
        """From the start or the checkpoint to the end, then back to the best state."""
        batch = next(iter(DataLoader(self.train, batch_size=min(4, len(self.train)))))
        with self.model.asked(tasks_of(self.model, batch)):
            check_reach(self.model, batch[0])
        self._fill_cache(progress, say)
        found = self.checkpoint.load(resume)
        if found is not None:
            try:
                self._restore(*found)
            except (
                KeyError,
                IndexError,
                TypeError,
                ValueError,
                RuntimeError,
                PromptFileError,
            ) as error:
                raise TrainingError(
                    f"{self.checkpoint.path} does not hold the whole state of this run ({error})."
                    " Start again elsewhere (out=…)."
                ) from error
        else:
            learn_statistics(self.model, self.train, first=True)
            self.start = learned_copy(self.model)
            self._finish_epoch(0, [])
        self._set_peaks()
        with progress_bar(progress and self.accelerator.is_main_process) as bar:
            total = self.recipe.epochs * self.per_epoch
            done = (self.position.epoch - 1) * self.per_epoch + self.position.update
            task = bar.add_task(self._says(), total=total, completed=done)
            while not self.position.finished:
                if not self._epoch(bar, task):
                    say(self._begin_anew())
                    bar.update(task, completed=0, description=self._says())
                    continue
                average_buffers(self.model.prompt, self.accelerator)
                learn_statistics(self.model, self.train)
                self._finish_epoch(self.position.epoch, self.position.sums)
                bar.update(task, description=self._says())
        restore(self.model, self.best)
        self.model.eval()
        return History(self.position.rows, self.position.best, self.position.cuts)

    def _says(self) -> str:
        row = self.position.rows[-1] if self.position.rows else {}
        accuracy = f", validation {row['val_accuracy']:.1%}" if "val_accuracy" in row else ""
        return (
            f"epoch {min(self.position.epoch, self.recipe.epochs)} of"
            f" {self.recipe.epochs}{accuracy}"
        )

    def _fill_cache(self, progress: bool, say: Say) -> None:
        """Queries, and what enters the first prompted block, in the order of the data: so that they
        are the same after a kill.
        """
        cache, queries = self.model.backbone.cache, self.model.backbone.queries
        queries.clear()
        if (
            cache is None and not self.model.attachment.wants_query
        ) or self.recipe.augment != "none":
            return
        what = (
            "what the bare model makes of the data"
            if cache is None
            else "what enters the first prompted block"
        )
        loaders = [
            DataLoader(view.windows()[0], batch_size=64, num_workers=self.workers)
            for view in self.train.views()
        ]
        with (
            progress_bar(progress and self.accelerator.is_main_process) as bar,
            torch.no_grad(),
            self.accelerator.autocast(),
        ):
            task = bar.add_task(what, total=sum(map(len, loaders)))
            for batch in chain.from_iterable(loaders):
                with self.model.asked(tasks_of(self.model, batch)):
                    self.model.outputs(batch[0])
                bar.advance(task)
            if cache is None:
                return
            hits = cache.hits
            batch = next(iter(loaders[0]))
            with self.model.asked(tasks_of(self.model, batch)):
                self.model.outputs(batch[0])  # once more
        if cache.hits == hits and cache.kept:
            self.unsteady = True
            cache.clear()
            say(UNSTEADY)
        elif cache.full:
            say(full(cache))

    def _epoch(self, bar: Progress, task: Any) -> bool:
        """The updates of the epoch that are still to do; False where they left the start by far."""
        with without_cache(self.model, self.recipe.augment != "none" or self.unsteady):
            return self._updates(bar, task)

    def _updates(self, bar: Progress, task: Any) -> bool:
        position = self.position
        order = batches(len(self.train), self.recipe.batch_size, self.recipe.seed, position.epoch)
        first = position.update
        mine = [self._mine(batch) for batch in order]
        plan = [part for parts in mine[first:] for part in parts if part]
        heard = self.train.drawn(self.recipe.seed, position.epoch)
        loaded = iter(DataLoader(heard, batch_sampler=plan, num_workers=self.workers))
        self.model.train()
        self.objective.train()
        for number in range(first, len(order)):
            torch.manual_seed(
                seed_for(self.recipe.seed, position.epoch, number, self.accelerator.process_index)
            )
            parts = [(part, next(loaded)) for part in mine[number] if part]
            if not self._update(
                parts, len(order[number]), (position.epoch - 1) * self.per_epoch + number
            ):
                return False
            position.update = number + 1
            bar.advance(task)
            if self.checkpoint.due():
                self._save()
        self.model.eval()
        return True

    def _set_peaks(self) -> None:
        """The rates at their peak, in units of what each part of the prompt began as."""
        names = {
            id(p): name
            for part in self.parts
            for name, p in self.model.named_parameters()
            if name.startswith(f"{part}.")
        }
        for group in self.optimizer.param_groups if self.optimizer is not None else []:
            name = names[id(group["params"][0])]
            size = _size(self.start[name]) if name.startswith("prompt.") else 1.0
            group["peak"] = group["base"] * size / CUT**self.position.cuts

    def _begin_anew(self) -> str:
        """Back to the start with a lower rate; what to say about it."""
        before, cuts = self.position, self.position.cuts + 1
        restore(self.model, self.start)
        self.best = learned_copy(self.model)
        self.objective.load_state_dict(self.begun)
        restore_optimizer(self.optimizer, {}, "optimizer", begun=False)
        restore_optimizer(self.own_optimizer, {}, "own_optimizer", begun=False)
        self.position = Position(rows=before.rows[:1], cuts=cuts)
        self._set_peaks()
        self._save()
        count = (before.epoch - 1) * self.per_epoch + before.update + 1
        return (
            f"The loss went from {before.losses[0]:.3g} to {before.losses[-1]:.3g} in {count}"
            " updates: the rate is too high here. It is cut to a quarter (lr"
            f" {self.recipe.lr / CUT**cuts:.2g}), and training begins anew."
        )

    def _mine(self, batch: list[int]) -> list[list[int]]:
        accelerator = self.accelerator
        return chunks(
            batch, accelerator.process_index, accelerator.num_processes, self.recipe.accumulate
        )

    def _finish_epoch(self, epoch: int, sums: list[float]) -> None:
        """Validate, keep the best, write the row and the checkpoint."""
        position = self.position
        row: dict[str, Any] = {"epoch": epoch}
        if epoch:
            row |= {"loss": sums[0] / sums[2], "train_accuracy": sums[1] / sums[2]}
        if self.val is not None:
            found = evaluate(self.model, self.val, accelerator=self.accelerator)
            row |= {"val_accuracy": found["accuracy"], "val_loss": found["loss"]}
        rows = position.rows
        if (
            self.val is None
            or not self.objective.keeps_best
            or not rows
            or _rank(row) > _rank(rows[position.best])
        ):
            position.best, self.best = epoch, learned_copy(self.model)
        rows.append(row)
        finished = epoch == self.recipe.epochs or self.optimizer is None
        self.position = replace(
            position, epoch=epoch if finished else epoch + 1, update=0, sums=[], finished=finished
        )
        if self.checkpoint.path is not None and self.accelerator.is_main_process:
            lines = "".join(json.dumps(r) + "\n" for r in rows)
            write_atomically(self.checkpoint.path.with_name("history.jsonl"), lines.encode())
        self._save()

    # one update -------------------------------------------------------------------------
    def _update(self, micro_batches: list[tuple[list[int], Any]], size: int, number: int) -> bool:
        """One step of the optimizer on an update of `size` examples over all processes; False where
        training left its start.
        """
        gradients: Gradients = {}
        sums = torch.zeros(3, dtype=torch.float64)
        with adding_up(self.model.readout, self.objective, self.accelerator):
            for positions, batch in micro_batches:
                self.objective.batch = torch.tensor(positions)
                losses, shown, right = self._losses(batch)
                add_gradients(gradients, losses, self.parts, len(batch[1]) / size * self._scale())
                sums += torch.tensor([shown * len(batch[1]), right, len(batch[1])])
        self.objective.batch = None
        gradients, totals = self._reduce(gradients, sums)
        self.position.sums = [
            a + b for a, b in zip(self.position.sums or [0.0] * 3, totals, strict=True)
        ]
        combined = self.objective.combine(gradients)
        finite = all(bool(torch.isfinite(g).all()) for g in combined.values())
        scaled = self.accelerator.scaler is not None and self.accelerator.scaler.is_enabled()
        total = self.recipe.epochs * self.per_epoch
        broken = not torch.isfinite(torch.tensor(totals)).all() or not (finite or scaled)
        # an objective that does not aim at the least loss may raise it on purpose
        if self.objective.keeps_best and watched(number, total) and self.position.cuts < MOST_CUTS:
            loss = totals[0] / totals[2] if not broken else float("nan")
            self.position.losses = noted(self.position.losses, loss)
            if len(self.position.losses) > 1 and leaves(self.position.losses):
                return False
        if broken:
            restore(self.model, self.best)
            raise DivergedError(
                f"Training diverged in epoch {self.position.epoch}: the loss or its gradient is not"
                f" finite. The model holds the prompt of epoch {self.position.best}. Use a smaller"
                f" lr (now {self.recipe.lr:g}), or precision='no'."
            )
        self._step(combined, schedule(number, total, self.recipe.warmup))
        return True

    def _losses(self, batch: Any) -> tuple[dict[str, Tensor], float, float]:
        """(the objective's losses, what the first of them is shown as, how many were right); the
        prompt's penalty joins the first.
        """
        x, y = batch[0], torch.as_tensor(batch[1]).to(self.accelerator.device)
        group = torch.as_tensor(batch[2]).to(y.device) if len(batch) > 2 else None
        generator = torch.Generator().manual_seed(torch.initial_seed() % (1 << 63))
        x = augment(x, self.recipe.augment, generator)
        with self.accelerator.autocast(), self.model.asked(tasks_of(self.model, batch)):
            outputs = self.model.outputs(x)
            logits = self.model.readout(outputs)
        if self.model.readout.refresh == "reuse":
            self.model.readout.update(outputs.detach(), y)
        losses = self.objective.losses(logits.float(), y, group)
        first, penalty = next(iter(losses)), self.model.prompt.penalty()
        shown = float(losses[first].detach())
        if penalty is not None:
            losses[first] = losses[first] + penalty
        return losses, shown, float((logits.detach().argmax(1) == y).sum())

    def _reduce(self, gradients: Gradients, sums: Tensor) -> tuple[Gradients, list[float]]:
        """Sum over processes (each gradient is already weighted by its share of the update), then
        unscale.
        """
        if self.accelerator.num_processes > 1:
            gradients = gradients or no_gradients(self._loss_names(), self.parts)
            gradients = reduce_gradients(gradients, self.accelerator)
            sums = (
                self.accelerator.reduce(sums.float().to(self.accelerator.device), "sum")
                .double()
                .cpu()
            )
        scale = self._scale()
        return {
            n: {k: g / scale for k, g in parts.items()} for n, parts in gradients.items()
        }, sums.tolist()

    def _scale(self) -> float:
        scaler = self.accelerator.scaler
        return float(scaler.get_scale()) if scaler is not None and scaler.is_enabled() else 1.0

    def _loss_names(self) -> list[str]:
        """The names of the losses, for a process that has no example in this update."""
        count = self.model.readout.count or 1
        y = torch.zeros(1, dtype=torch.long, device=self.accelerator.device)
        names = list(self.objective.eval().losses(torch.zeros(1, count, device=y.device), y, y))
        self.objective.train()
        return names

    def _step(self, combined: dict[str, Tensor], factor: float) -> None:
        # the optimizer of accelerate unscales again, and skips an overflow under fp16
        scale = self._scale()
        for part, values in self.parts.items():
            factor_of = scale if part != "objective" else 1.0
            for parameter, gradient in zip(
                values, combined[part].split([p.numel() for p in values]), strict=True
            ):
                parameter.grad = (gradient * factor_of).view_as(parameter).to(parameter.dtype)
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * factor
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.own_optimizer is not None:
            # else an overflow under fp16, which the other skips too
            if torch.isfinite(combined["objective"]).all():
                self.own_optimizer.step()
            self.own_optimizer.zero_grad()

    # state ------------------------------------------------------------------------------
    def _save(self) -> None:
        tensors = {f"now.{k}": v for k, v in learned(self.model).items()} | {
            f"best.{k}": v for k, v in self.best.items()
        }
        tensors |= {f"start.{k}": v for k, v in self.start.items()} | {
            f"begun.{k}": v for k, v in self.begun.items()
        }
        tensors |= {f"objective.{k}": v for k, v in self.objective.state_dict().items()}
        tensors |= optimizer_tensors(self.optimizer, "optimizer") | optimizer_tensors(
            self.own_optimizer, "own_optimizer"
        )
        self.checkpoint.save(self.position, tensors)

    def _restore(self, position: Position, tensors: dict[str, Tensor]) -> None:
        def under(prefix: str) -> dict[str, Tensor]:
            return {
                name.removeprefix(prefix): value
                for name, value in tensors.items()
                if name.startswith(prefix)
            }

        self.position, self.best, self.start, self.begun = (
            position,
            under("best."),
            under("start."),
            under("begun."),
        )
        restore(self.model, self.start)  # all three must fit
        restore(self.model, self.best)
        restore(self.model, under("now."))
        self.objective.load_state_dict(under("objective."))
        begun = position.epoch > 1 or position.update > 0
        restore_optimizer(self.optimizer, tensors, "optimizer", begun)
        restore_optimizer(self.own_optimizer, tensors, "own_optimizer", begun)


@contextmanager
def compiled(model: PromptedModel, backend: str) -> Iterator[None]:
    """Inside, the model's forward is compiled by this backend of torch.compile ("": as it is).
    Raises `TrainingError`.
    """
    if not backend:
        yield
        return
    if model.attachment.wants_query:
        raise TrainingError(
            "A prompt made from a query takes itself off and looks things up in every forward,"
            " which cannot be compiled. Train without compile=…, or make it with one_pass=True."
        )
    model.__dict__["outputs"] = torch.compile(model.outputs, backend=backend)
    try:
        yield
    except torch._dynamo.exc.TorchDynamoException as error:
        reason = " ".join(line for line in str(error).splitlines()[:2] if line)
        raise TrainingError(
            f"torch.compile ({backend}) failed on this model: {reason} Train without compile=…."
        ) from error
    finally:
        del model.__dict__["outputs"]


@torch.no_grad()
def _size(start: Tensor) -> float:
    """How large the numbers of a parameter are at the start (their RMS), where that is more than 1.

    AdamW moves each number by about the rate, whatever it is. Tokens that begin as a backbone's own
    are as large as these, 5 in one model and 1 in another, and a norm divides by that: so the rate
    is in units of it.
    """
    return max(1.0, float(start.float().square().mean().sqrt()))


def _rank(row: dict[str, Any]) -> float:
    """Higher is better: minus the validation loss. The accuracy of a few hundred examples is too
    coarse to choose by.
    """
    return -row["val_loss"]
