"""Peak memory of a piece of work."""

from __future__ import annotations

import sys

import pytest
import torch

from vpt.memory import STATM, peak_bytes


@pytest.mark.skipif(not STATM.exists(), reason="the system does not tell")
def test_the_peak_is_what_was_held_at_once_and_not_what_is_left() -> None:
    def work() -> None:
        for _ in range(3):
            held = [torch.ones(8_000_000) for _ in range(4)]  # 128 MB
            del held

    found = peak_bytes(work)
    assert 100e6 < found < 250e6
    assert peak_bytes(lambda: None) < 20e6


def test_where_the_system_does_not_tell_the_work_is_done_all_the_same(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    monkeypatch.setattr(sys.modules["vpt.memory"], "STATM", tmp_path / "nothing")
    done: list[int] = []
    assert peak_bytes(lambda: done.append(1)) == 0
    assert done == [1]
