"""Requests that wait run together, in order; one that fails spoils no other; nothing is lost when
it closes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import pytest
import torch

from vpt.deploy.serving.batching import Answers, Batcher, Busy, Job, Stopped


def job(number: float, windows: int = 1) -> Job:
    return Job([torch.tensor(number)] * windows, ("it",))


def doubled(jobs: Sequence[Job]) -> list[Answers]:
    return [{"it": 2 * one.windows[0]} for one in jobs]


def held(run: Callable[[Sequence[Job]], list[Answers]]) -> tuple[threading.Event, Callable, list]:
    """(what lets the first batch go on, the same function behind it, the sizes of batches)."""
    go, sizes = threading.Event(), []

    def waits(jobs: Sequence[Job]) -> list[Answers]:
        sizes.append(sum(len(one.windows) for one in jobs))
        assert go.wait(10)
        return run(jobs)

    return go, waits, sizes


def test_what_waits_while_one_runs_is_the_next_batch_and_no_larger_than_may() -> None:
    go, run, sizes = held(doubled)
    batcher = Batcher(run, most=4, waiting=100)
    first = batcher.submit(job(1))
    while not sizes:  # it runs
        pass
    later = [batcher.submit(job(number)) for number in range(2, 8)]
    go.set()
    assert [float(one.result(10)["it"]) for one in (first, *later)] == [2 * n for n in range(1, 8)]
    assert sizes == [1, 4, 2]
    batcher.close()


def test_a_long_clip_goes_alone_and_is_not_cut() -> None:
    go, run, sizes = held(doubled)
    batcher = Batcher(run, most=3, waiting=100)
    batcher.submit(job(0))
    while not sizes:
        pass
    found = [batcher.submit(job(1, windows)) for windows in (2, 8, 1)]
    go.set()
    assert all(float(one.result(10)["it"]) == 2 for one in found)
    assert sizes == [1, 2, 8, 1]
    batcher.close()


def test_one_that_fails_spoils_no_other() -> None:
    def breaks(jobs: Sequence[Job]) -> list[Answers]:
        if any(float(one.windows[0]) == 3 for one in jobs):
            raise RuntimeError("three")
        return doubled(jobs)

    go, run, sizes = held(breaks)
    batcher = Batcher(run, most=8, waiting=100)
    batcher.submit(job(0))
    while not sizes:
        pass
    found = [batcher.submit(job(number)) for number in (2, 3, 4)]
    go.set()
    assert float(found[0].result(10)["it"]) == 4
    with pytest.raises(RuntimeError, match="three"):
        found[1].result(10)
    assert float(found[2].result(10)["it"]) == 8
    assert float(batcher.submit(job(5)).result(10)["it"]) == 10  # and it goes on
    batcher.close()


def test_what_nobody_waits_for_does_not_run() -> None:
    go, run, sizes = held(doubled)
    batcher = Batcher(run, most=8, waiting=100)
    batcher.submit(job(0))
    while not sizes:
        pass
    given_up, wanted = batcher.submit(job(1)), batcher.submit(job(2))
    assert given_up.cancel()
    go.set()
    assert float(wanted.result(10)["it"]) == 4
    assert sizes == [1, 1]
    batcher.close()


def test_no_more_wait_than_may_and_what_waits_is_answered_at_the_end() -> None:
    go, run, sizes = held(doubled)
    batcher = Batcher(run, most=1, waiting=2)
    found = [batcher.submit(job(0))]
    while not sizes:
        pass
    found += [batcher.submit(job(1)), batcher.submit(job(2))]
    assert len(batcher) == 2
    with pytest.raises(Busy):
        batcher.submit(job(3))
    closing = threading.Thread(target=batcher.close)
    closing.start()
    go.set()
    closing.join(10)
    assert [float(one.result(0)["it"]) for one in found] == [0, 2, 4]
    assert not batcher.alive
    with pytest.raises(Stopped):
        batcher.submit(job(3))
