"""One run of the bench on the smallest setting: its report, its tables, its picture; and its
arithmetic.
"""

from __future__ import annotations

import json
import subprocess
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from vpt import cli
from vpt.bench import bench as module
from vpt.bench.bench import bench, interval, picture, ratios
from vpt.bench.steps import Setting
from vpt.errors import VptError
from vpt.report.tables import bench_tables


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bench")
    words = (
        "bench --backbone test_vit --weights random --batch-size 2 --tokens 3 --repeats 2 --images"
        " 5 --no-memory --out"
    )
    cli.app([*words.split(), str(folder)], standalone_mode=False)
    return folder


@pytest.fixture(scope="module")
def report(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "bench.json").read_text())


def test_the_report_holds_every_round(report: dict[str, Any], folder: Path) -> None:
    assert {
        "plain infer",
        "probe train",
        "insert 3 infer",
        "insert 3 train",
        "ours 3 infer",
        "ours 3 train",
        "baked 3 infer",
        "full train",
    } <= report["seconds"].keys()
    assert all(len(rounds) == 2 and min(rounds) > 0 for rounds in report["seconds"].values())
    assert report["machine"]["threads"] >= 1
    assert report["late"]["blocks"] == [5, 5]
    assert len(report["late"]["off"]) == len(report["late"]["on"]) == 3
    assert report["import"]["torch"] > 0
    assert (folder / "bench.png").read_bytes().startswith(b"\x89PNG")


def test_ratios_are_taken_round_by_round() -> None:
    seconds = {
        "plain infer": [1.0, 2.0, 4.0],
        "insert 3 train": [4.0, 8.0, 16.0],
        "ours 3 train": [2.0, 4.0, 12.0],
    }
    found = ratios(
        {
            "seconds": seconds,
            "operations": {"plain infer": 10, "insert 3 train": 40, "ours 3 train": 25},
        }
    )
    assert found["ours 3 train"]["plain"][0] == 2.0
    assert found["ours 3 train"]["insert"][0] == 0.5
    assert found["ours 3 train"]["operations"] == 2.5
    assert found["insert 3 train"]["plain"] == (4.0, 4.0, 4.0)
    assert "insert" not in found["insert 3 train"]
    value, low, high = interval([1.0, 2.0, 9.0], [1.0, 1.0, 1.0])
    assert (value, low, high) == (2.0, 1.0, 9.0)


def test_the_tables_fit_a_terminal(report: dict[str, Any]) -> None:
    report = report | {"memory": {"ours 3 train": 61_000_000, "full train": 1_234_000_000}}
    console = Console(width=80, record=True, file=StringIO())
    for table in bench_tables(report):
        console.print(table)
    text = console.export_text()
    assert "…" not in text
    for words in (
        "plain forward",
        "inserted, 3",
        "ours, 3",
        "ours, baked, 3",
        "61 MB",
        "1.2 GB",
        "times faster",
        "import vpt",
    ):
        assert words in text
    assert picture(report).startswith(b"\x89PNG")


def test_memory_is_measured_in_fresh_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    from vpt.bench.steps import Case

    setting = Setting(batch=2, tokens=(3,))
    found = module._memory(setting, [Case("ours", 3), Case("ours", 3, True)], False)
    assert found.keys() == {"ours 3 train"}  # of inference, only the plain forward
    assert found["ours 3 train"] > 1e6

    def fails(*args: Any, **kwargs: Any) -> subprocess.CompletedProcess:
        return subprocess.CompletedProcess([], 1, "", "killed")

    monkeypatch.setattr(module.subprocess, "run", fails)
    assert module._memory(setting, [Case("plain")], False) == {}


@pytest.mark.parametrize("given", [{"repeats": 0}, {"images": -1}])
def test_settings_that_cannot_be(given: dict[str, int]) -> None:
    with pytest.raises(VptError, match="needed are at least 1, and at least 0"):
        bench(Setting(batch=2, tokens=(3,)), **given)


def test_a_model_that_cannot_skip_blocks_says_so(report: dict[str, Any]) -> None:
    late = report["late"] | {"reason": "its first blocks cannot be skipped"}
    late.pop("faster")
    console = Console(width=80, record=True, file=StringIO())
    console.print(bench_tables(report | {"late": late})[1])
    assert "cannot be skipped" in console.export_text()
