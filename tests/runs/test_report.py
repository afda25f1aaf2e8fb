"""The report of a run: plain values as the file has them, and a verdict that fits the numbers."""

from __future__ import annotations

import json
from dataclasses import FrozenInstanceError, asdict
from pathlib import Path

import pytest
from families import open_tiny
from helpers import colours

import vpt
from vpt.runs.result import Result

KEYS = (
    "test_accuracy test_n test_per_class val_accuracy val_n train_n baselines method parts"
    " calibration verdict prompt parameters_trained backbone classes label_map seed recipe"
    " history best_epoch rate_cuts skipped data inputs seconds command chosen out_of_fold"
    " queries suspects told cost"
)


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Result:
    return vpt.adapt(
        {"train": colours(30), "val": colours(12, 1)},
        open_tiny("timm ViT"),
        "deep:1",
        out=tmp_path_factory.mktemp("run") / "run",
        augment="none",
        epochs=1,
        progress=False,
        command="vpt adapt",
    )


def test_the_file_holds_the_report_in_plain_values(result: Result) -> None:
    assert isinstance(result.folder, Path)
    written = json.loads((result.folder / "metrics.json").read_text())
    assert list(written) == KEYS.split()
    assert written == json.loads(json.dumps(result.metrics))
    assert result.metrics["recipe"] == asdict(result.report.recipe)
    assert (result.report.test_accuracy, result.report.test_n) == (None, 0)
    assert result.report.command == "vpt adapt"
    assert result.report.baselines["linear_probe"].keys() == {"val", "C"}
    assert vpt.files.read(result.folder / "prompt.vpt")[0]["scores"]["val_n"] == 12


def test_a_report_does_not_change(result: Result) -> None:
    with pytest.raises(FrozenInstanceError):
        result.report.seed = 3  # type: ignore[misc]
