"""What `vpt bench` reports: seconds and operations of every case, and their ratios to the plain
forward.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from vpt.bench.steps import Setting
from vpt.report.pictures import Ratio
from vpt.sites import Config


@dataclass(frozen=True)
class Machine:
    """What was measured on. device: the GPU, or the processor."""

    device: str
    cores: int | None
    threads: int
    torch: str


@dataclass(frozen=True)
class Costs:
    """A case ÷ the plain forward in the same round.

    plain: its time, as the median of the rounds and a 95 % interval.
    operations: counted ones.
    insert: its time ÷ that of the same tokens inserted; None where they are no others.
    """

    plain: Ratio
    operations: float
    insert: Ratio | None = None

    def as_dict(self) -> Config:
        """By name, in plain values."""
        values: Config = {"plain": self.plain, "operations": self.operations}
        return values if self.insert is None else values | {"insert": self.insert}


@dataclass(frozen=True)
class Late:
    """Epochs of a late prompt, in seconds, without and with what enters its blocks kept.

    blocks: the first and the last.
    tokens: of the prompt, in each.
    images: of an epoch.
    off: epochs in which nothing is kept.
    on: epochs in which everything is.
    first: the epoch in which it is computed.
    faster: off ÷ on.
    reason: why nothing can be kept; then nothing is timed.
    """

    blocks: tuple[int, int]
    tokens: int
    images: int
    off: Sequence[float] = ()
    on: Sequence[float] = ()
    first: float | None = None
    faster: Ratio | None = None
    reason: str | None = None

    def as_dict(self) -> Config:
        """By name, in plain values; without what there is not."""
        optional = ("first", "faster", "reason")
        values = asdict(self)
        return {k: v for k, v in values.items() if k not in optional or v is not None}


@dataclass(frozen=True)
class BenchReport:
    """Everything that was measured on one setting. Cases go by their keys ("ours 10 train").

    machine: what was measured on.
    setting: what was measured.
    repeats: rounds; in each, every case once.
    seconds: of each case, round by round.
    operations: of each case, counted.
    late: epochs of a late prompt, where they were timed.
    startup: seconds of fresh processes, by what they do.
    memory: peak bytes of training steps, where they were measured.
    """

    machine: Machine
    setting: Setting
    repeats: int
    seconds: Mapping[str, list[float]]
    operations: Mapping[str, int]
    late: Late | None
    startup: Mapping[str, float]
    memory: Mapping[str, int] | None

    @property
    def costs(self) -> dict[str, Costs]:
        """Every case ÷ the plain forward."""
        return costs_of(self.seconds, self.operations)

    def as_dict(self) -> Config:
        """All of it in plain values, as bench.json has it."""
        values: Config = {
            "machine": asdict(self.machine),
            "setting": asdict(self.setting),
            "repeats": self.repeats,
            "seconds": dict(self.seconds),
            "operations": dict(self.operations),
        }
        if self.late is not None:
            values["late"] = self.late.as_dict()
        values["import"] = dict(self.startup)
        if self.memory is not None:
            values["memory"] = dict(self.memory)
        values["ratios"] = {key: case.as_dict() for key, case in self.costs.items()}
        return values


def costs_of(seconds: Mapping[str, list[float]], operations: Mapping[str, int]) -> dict[str, Costs]:
    """Each case ÷ the plain forward (and ÷ insertion) in the same round."""
    plain, count = seconds["plain infer"], max(1, operations["plain infer"])
    costs = {}
    for key, rounds in seconds.items():
        inserted = key.replace("ours", "insert")
        costs[key] = Costs(
            interval(rounds, plain),
            operations[key] / count,
            interval(rounds, seconds[inserted]) if inserted != key else None,
        )
    return costs


def interval(rounds: Sequence[float], others: Sequence[float]) -> Ratio:
    """(median of the rounds' ratios, and its 95 % bootstrap interval)."""
    quotients = np.array(rounds) / np.array(others)
    draws = np.random.default_rng(0).choice(quotients, (2000, len(quotients)))
    low, high = np.percentile(np.median(draws, axis=1), [2.5, 97.5])
    return float(np.median(quotients)), float(low), float(high)
