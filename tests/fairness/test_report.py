"""The report of a reprogrammed model: its names, its verdict, its files."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from helpers import planted, planted_prompted

import vpt
from vpt.data import Data
from vpt.fairness.report import BARS, POINTS, TRADEOFF, report_of, write
from vpt.fairness.tradeoff import frontier

NAMES = [
    "recommendation",
    "why",
    "changes",
    "soft",
    "verdict",
    "rule",
    "chosen",
    "criterion",
    "gap",
    "notes",
    "base",
    "points",
    "thresholds",
    "forms",
    "prompt",
    "parameters_trained",
    "backbone",
    "classes",
    "method",
    "budget",
    "bound",
    "seed",
    "recipe",
    "train_n",
    "skipped",
    "data",
    "seconds",
    "command",
]


def test_numbers_and_files(tmp_path: Path) -> None:
    model = planted_prompted()
    data = Data(planted(60, 0), planted(60, 2), None, ["dull", "red"], [])
    recipe = vpt.Recipe(epochs=1, lr=0.003, seed=4)
    found = frontier(model, data.train, data.val, strengths=[1.0], recipe=recipe, progress=False)
    report = report_of(
        model,
        found,
        data,
        recipe,
        method="penalty",
        budget=0.01,
        bound=None,
        seconds=1.5,
        command=None,
    )
    plain = report.as_dict()
    assert list(plain) == NAMES
    assert plain["base"] == found.base.as_dict()
    assert plain["points"] == [point.as_dict() for point in found.points]
    assert plain["recipe"]["seed"] == plain["seed"] == 4
    before, after = found.base.val, found.chosen.val
    gap = f"{before.value(found.gap):.3f} → {after.value(found.gap):.3f}"
    assert report.verdict.startswith(f"on validation, average odds difference {gap}, worst group")
    file = write(tmp_path, model, found, report, data.val)
    assert json.loads((tmp_path / "metrics.json").read_text()) == json.loads(json.dumps(plain))
    assert file == tmp_path / "prompt.vpt"
    assert {BARS, TRADEOFF, POINTS} < {path.name for path in tmp_path.iterdir()}
    assert {path.name for path in (tmp_path / POINTS).iterdir()} == {"alone.vpt", "1.0.vpt"}
    assert replace(report, command="vpt").as_dict()["command"] == "vpt"
