"""Requests that wait are run together, one batch after the other, on a thread of their own."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from torch import Tensor

from vpt.data.readers import RawInput

Answers = dict[str, tuple[Tensor, list[str] | None]]  # of each task scores `[C]`, and its classes


class Busy(Exception):
    """As many requests wait as may."""


class Stopped(Exception):
    """It takes no more requests."""


@dataclass
class Job:
    """What a request asks: scores of some tasks, of one picture or of the windows of a clip."""

    windows: list[RawInput]
    tasks: tuple[str, ...]
    done: Future[Answers] = field(default_factory=Future)


class Batcher:
    """Runs jobs in the order in which they came: whatever has come while one batch ran is the next.

    So a lone request never waits for others, and the busier it is, the larger are the batches.

    run: scores of some jobs, in order.
    most: inputs in a batch; a job of more goes alone.
    waiting: how many jobs may wait.
    """

    def __init__(
        self, run: Callable[[Sequence[Job]], Sequence[Answers]], most: int, waiting: int
    ) -> None:
        self.run = run
        self.most = most
        self.waiting = waiting
        self._jobs: deque[Job] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="vpt-batches", daemon=True)
        self._thread.start()

    def __len__(self) -> int:
        """How many jobs wait."""
        return len(self._jobs)

    @property
    def alive(self) -> bool:
        """Whether it takes jobs."""
        return self._thread.is_alive() and not self._closed

    def submit(self, job: Job) -> Future[Answers]:
        """Let a job wait for its turn. Raises `Busy`, `Stopped`."""
        with self._changed:
            if not self.alive:
                raise Stopped
            if len(self._jobs) >= self.waiting:  # some may have been given up
                self._jobs = deque(one for one in self._jobs if not one.done.cancelled())
            if len(self._jobs) >= self.waiting:
                raise Busy
            self._jobs.append(job)
            self._changed.notify()
        return job.done

    def close(self) -> None:
        """Finish what waits, and take no more."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _work(self) -> None:
        while batch := self._next():
            self._answer(batch)

    def _next(self) -> list[Job]:
        """The jobs of the next batch; none when it is closed and nothing waits."""
        with self._changed:
            while not self._jobs and not self._closed:
                self._changed.wait()
            batch: list[Job] = []
            room = self.most
            while self._jobs and (not batch or room >= len(self._jobs[0].windows)):
                batch.append(self._jobs.popleft())
                room -= len(batch[-1].windows)
        return batch

    def _answer(self, batch: Sequence[Job]) -> None:
        """Run a batch; where that fails, each of its jobs alone, so that one spoils no other."""
        batch = [
            job for job in batch if job.done.running() or job.done.set_running_or_notify_cancel()
        ]
        if not batch:  # nobody waits for them any more
            return
        try:
            found = self.run(batch)
        except Exception as error:
            if len(batch) == 1:
                batch[0].done.set_exception(error)
                return
            for job in batch:
                self._answer([job])
            return
        for job, scores in zip(batch, found, strict=True):
            job.done.set_result(scores)
