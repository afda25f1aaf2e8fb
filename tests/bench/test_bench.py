"""One run of the bench on the smallest setting: its report and its files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from vpt import cli
from vpt.bench.bench import bench, machine
from vpt.bench.steps import Setting
from vpt.errors import VptError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bench")
    words = (
        "bench --backbone test_vit --weights random --batch-size 2 --tokens 3 --repeats 2 --images"
        " 5 --no-memory --out"
    )
    cli.app([*words.split(), str(folder)], standalone_mode=False)
    return folder


def test_the_report_holds_every_round(folder: Path) -> None:
    report = json.loads((folder / "bench.json").read_text())
    names = "machine setting repeats seconds operations late import ratios"
    assert list(report) == names.split()
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
    assert report["setting"]["tokens"] == [3]
    assert report["late"]["blocks"] == [5, 5]
    assert len(report["late"]["off"]) == len(report["late"]["on"]) == 3
    assert report["import"]["torch"] > 0
    assert report["ratios"]["ours 3 train"].keys() == {"plain", "operations", "insert"}
    assert (folder / "bench.png").read_bytes().startswith(b"\x89PNG")


def test_the_machine_is_named() -> None:
    on = machine(Setting())
    assert (on.threads, on.torch) == (torch.get_num_threads(), torch.__version__)
    assert on.device


@pytest.mark.parametrize("given", [{"repeats": 0}, {"images": -1}])
def test_settings_that_cannot_be(given: dict[str, int]) -> None:
    with pytest.raises(VptError, match="needed are at least 1, and at least 0"):
        bench(Setting(batch=2, tokens=(3,)), **given)
