"""What is measured in fresh processes, and what is left out when one fails."""

from __future__ import annotations

import json
import subprocess
from dataclasses import asdict

import pytest

from vpt.bench import processes as module
from vpt.bench.steps import Case, Setting

SETTING = Setting(batch=2, tokens=(3,))


@pytest.mark.long
def test_memory_is_measured_in_fresh_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    peaks = module.measure_memory(SETTING, [Case("ours", 3), Case("ours", 3, True)], False)
    assert peaks.keys() == {"ours 3 train"}  # of inference, only the plain forward
    assert peaks["ours 3 train"] > 1e6

    def fails(*args: object, **kwargs: object) -> subprocess.CompletedProcess:
        return subprocess.CompletedProcess([], 1, "", "killed")

    monkeypatch.setattr(module.subprocess, "run", fails)
    assert module.measure_memory(SETTING, [Case("plain")], False) == {}


def test_a_process_that_cannot_start_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STARTS", {"nothing": "pass"})
    assert module.time_startup(2)["nothing"] > 0
    monkeypatch.setattr(module, "STARTS", {"wrong": "raise SystemExit(3)"})
    with pytest.raises(subprocess.CalledProcessError, match="exit status 3"):
        module.time_startup(1)


def test_the_child_writes_one_number(capsys: pytest.CaptureFixture[str]) -> None:
    module.report_memory(json.dumps([asdict(SETTING), asdict(Case("plain"))]))
    assert int(capsys.readouterr().out) >= 0
    with pytest.raises(ValueError, match="Expecting value"):
        module.report_memory("no JSON")
