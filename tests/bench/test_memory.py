"""Peak memory of a piece of work."""

from __future__ import annotations

import subprocess
import sys

import pytest

from vpt.bench.memory import STATM, peak_bytes

PROGRAM = """
import torch
from vpt.bench.memory import peak_bytes

def work():
    held = [torch.ones(8_000_000) for _ in range(4)]  # 128 MB
    del held

torch.ones(10).sum()
print(peak_bytes(lambda: None), peak_bytes(work))
"""


@pytest.mark.skipif(not STATM.exists(), reason="the system does not tell")
def test_the_peak_is_what_was_held_and_not_what_is_left() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True
    )
    nothing, found = map(int, done.stdout.split())
    assert nothing < 20e6
    assert 100e6 < found < 300e6


def test_where_the_system_does_not_tell_the_work_is_done_all_the_same(
    monkeypatch: pytest.MonkeyPatch, tmp_path
) -> None:
    monkeypatch.setattr(sys.modules["vpt.bench.memory"], "STATM", tmp_path / "nothing")
    done: list[int] = []
    assert peak_bytes(lambda: done.append(1)) == 0
    assert done == [1]
