"""The epochs of a run, from its start or its checkpoint to its end."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace

import torch
from rich.progress import Progress, TaskID
from torch.utils.data import DataLoader

from vpt.errors import PromptFileError, TrainingError
from vpt.files import learned_copy, restore, write_atomically
from vpt.report.progress import progress_bar
from vpt.training.checkpoints import Checkpoint, Row
from vpt.training.counting import average_buffers, learn_statistics
from vpt.training.evaluation import Batch, evaluate, tasks_of
from vpt.training.gradients import check_reach
from vpt.training.late import Say, fill_cache, without_cache
from vpt.training.plan import batches, chunks, seed_for
from vpt.training.state import State
from vpt.training.steadying import CUT
from vpt.training.update import update


class Epochs:
    """The epochs of a run.

    steady: whether the training examples are the same when they are read again.
    """

    def __init__(
        self, state: State, checkpoint: Checkpoint, workers: int, shown: bool, say: Say
    ) -> None:
        self.state = state
        self.checkpoint = checkpoint
        self.workers = workers
        self.shown = shown
        self.say = say
        self.steady = True

    def run(self, resume: bool) -> None:
        """From the start or the checkpoint to the end, then back to the best state."""
        state = self.state
        model = state.model
        few = min(4, len(state.train))
        batch: Batch = next(iter(DataLoader(state.train, batch_size=few)))
        with model.asked(tasks_of(model, batch)):
            check_reach(model, batch[0])
        model.backbone.bare_features.clear()
        if state.recipe.augment == "none":
            self.steady = fill_cache(
                model, state.train, state.accelerator, self.workers, self.shown, self.say
            )
        if not self._resumed(resume):
            learn_statistics(model, state.train, first=True)
            state.start = learned_copy(model)
            self.finish_epoch(0)
        state.set_peaks()
        with progress_bar(self.shown) as bar:
            task = bar.add_task(self._stands(), total=state.total, completed=state.done)
            while not state.position.finished:
                if not self._epoch(bar, task):
                    self._begin_anew()
                    bar.update(task, completed=0, description=self._stands())
                    continue
                average_buffers(model.prompt, state.accelerator)
                learn_statistics(model, state.train)
                self.finish_epoch(state.position.epoch)
                bar.update(task, description=self._stands())
        restore(model, state.best)
        model.eval()

    def _resumed(self, resume: bool) -> bool:
        """Whether there was a checkpoint, from which the run then goes on."""
        held = self.checkpoint.load(resume)
        if held is None:
            return False
        try:
            self.state.take(*held)
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
        return True

    def _stands(self) -> str:
        """How far the run is, for people."""
        position, epochs = self.state.position, self.state.recipe.epochs
        row = position.rows[-1] if position.rows else {}
        accuracy = f", validation {row['val_accuracy']:.1%}" if "val_accuracy" in row else ""
        return f"epoch {min(position.epoch, epochs)} of {epochs}{accuracy}"

    def _epoch(self, bar: Progress, task: TaskID) -> bool:
        """The updates of the epoch that are still to do; False where they left the start by far."""
        state = self.state
        anew = state.recipe.augment != "none" or not self.steady
        with without_cache(state.model, anew):
            state.model.train()
            state.objective.train()
            for number, size, micro_batches in self._to_do():
                if not update(state, micro_batches, size, state.done):
                    return False
                state.position.update = number + 1
                bar.advance(task)
                if self.checkpoint.due():
                    self._save()
            state.model.eval()
            return True

    def _to_do(self) -> Iterator[tuple[int, int, list[tuple[list[int], Batch]]]]:
        """For each update that is still to do in this epoch: (its number, how many examples it has
        over all processes, this process's (positions, batch)), random numbers being its own.
        """
        recipe, accelerator = self.state.recipe, self.state.accelerator
        train, position = self.state.train, self.state.position
        order = batches(len(train), recipe.batch_size, recipe.seed, position.epoch)
        process, processes = accelerator.process_index, accelerator.num_processes
        mine = [chunks(batch, process, processes, recipe.accumulate) for batch in order]
        first = position.update
        plan = [part for parts in mine[first:] for part in parts if part]
        drawn = train.drawn(recipe.seed, position.epoch)
        loaded = iter(DataLoader(drawn, batch_sampler=plan, num_workers=self.workers))
        for number in range(first, len(order)):
            torch.manual_seed(seed_for(recipe.seed, position.epoch, number, process))
            yield (
                number,
                len(order[number]),
                [(part, next(loaded)) for part in mine[number] if part],
            )

    def _begin_anew(self) -> None:
        """Back to the start with a lower rate, and say so."""
        state = self.state
        before, count = state.position, state.done + 1
        state.begin_anew()
        self._save()
        self.say(
            f"The loss went from {before.losses[0]:.3g} to {before.losses[-1]:.3g} in {count}"
            " updates: the rate is too high here. It is cut to a quarter (lr"
            f" {state.recipe.lr / CUT**state.position.cuts:.2g}), and training begins anew."
        )

    def finish_epoch(self, epoch: int) -> None:
        """Validate, keep the best, write the row and the checkpoint. epoch: 0 before training."""
        state, position = self.state, self.state.position
        row: Row = {"epoch": epoch}
        if epoch:
            loss, right, count = position.sums
            row |= {"loss": loss / count, "train_accuracy": right / count}
        if state.val is not None:
            scored = evaluate(state.model, state.val, accelerator=state.accelerator)
            row |= {"val_accuracy": scored["accuracy"], "val_loss": scored["loss"]}
        rows = position.rows
        if (
            state.val is None
            or not state.objective.keeps_best
            or not rows
            or _rank(row) > _rank(rows[position.best])
        ):
            position.best = epoch
            state.best = learned_copy(state.model)
        rows.append(row)
        finished = epoch == state.recipe.epochs or state.optimizer is None
        state.position = replace(
            position, epoch=epoch if finished else epoch + 1, update=0, sums=[], finished=finished
        )
        if self.checkpoint.path is not None and state.accelerator.is_main_process:
            lines = "".join(json.dumps(row) + "\n" for row in rows)
            write_atomically(self.checkpoint.path.with_name("history.jsonl"), lines.encode())
        self._save()

    def _save(self) -> None:
        self.checkpoint.save(self.state.position, self.state.tensors())


def _rank(row: Row) -> float:
    """Higher is better: minus the validation loss. The accuracy of a few hundred examples is too
    coarse to choose by.
    """
    return -row["val_loss"]
