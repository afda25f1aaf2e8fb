"""A bench report with made-up numbers."""

from __future__ import annotations

from collections.abc import Mapping

from vpt.bench.report import BenchReport, Late, Machine
from vpt.bench.steps import Setting

SECONDS = {
    "plain infer": [1.0, 2.0, 4.0],
    "insert 3 train": [4.0, 8.0, 16.0],
    "ours 3 train": [2.0, 4.0, 12.0],
    "full train": [3.0, 6.0, 12.0],
}
OPERATIONS = {"plain infer": 10, "insert 3 train": 40, "ours 3 train": 25, "full train": 30}
STARTUP = {"torch": 1.0, "torch and vpt": 1.25, "vpt --help": 1.5}


def report(late: Late | None, memory: Mapping[str, int] | None) -> BenchReport:
    """Three rounds of four cases."""
    return BenchReport(
        Machine("a processor", 2, 1, "2.11"),
        Setting(tokens=(3,)),
        3,
        SECONDS,
        OPERATIONS,
        late,
        STARTUP,
        memory,
    )
