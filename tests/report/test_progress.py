"""Signs of life: a bar in a terminal, lines in a log, nothing where nobody wants them."""

from __future__ import annotations

import pytest

from vpt.report import progress
from vpt.report.progress import progress_bar, span


def work(shown: bool) -> None:
    with progress_bar(shown) as bar:
        task = bar.add_task("features", total=4)
        for _ in range(4):
            bar.advance(task)
        for _ in bar.track(range(3), description="reading [files]"):
            pass


def test_a_log_gets_a_line_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(progress, "EVERY", -1.0)
    work(True)
    said = capsys.readouterr()
    assert said.out == ""
    lines = said.err.splitlines()
    assert lines[0].startswith("features: 1 of 4")
    assert "reading [files]: 3 of 3" in lines[-1]


def test_not_every_step_and_not_for_everybody(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    work(True)
    assert capsys.readouterr().err == ""  # all of it took less than 20 seconds
    monkeypatch.setattr(progress, "EVERY", -1.0)
    work(False)
    assert capsys.readouterr().err == ""


def test_lengths_of_time_for_people() -> None:
    assert [span(s) for s in (0.2, 42.4, 131, 360, 5000, 9000)] == [
        "1 s",
        "42 s",
        "2 min 10 s",
        "6 minutes",
        "83 minutes",
        "2.5 hours",
    ]
