"""What a run leaves in its folder: it goes on from there after a kill, and no other run does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from families import open_tiny
from helpers import six_in_three, stop_at, tiny_model

from vpt.errors import TrainingError
from vpt.files import learned
from vpt.tasks.sequence import Outcome, run
from vpt.tasks.sequence.journal import RESULTS, Journal

QUICK = {"epochs": 2, "batch_size": 6, "lr": 0.02, "progress": False}


@pytest.mark.parametrize(
    "method", ["coda", *(pytest.param(m, marks=pytest.mark.long) for m in ("dual", "sequential"))]
)
def test_a_killed_run_goes_on_to_the_same_bytes(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def go(out: Path, resume: bool) -> Outcome:
        outcome = run(
            method, six_in_three(), open_tiny("timm ViT"), out=out, resume=resume, seed=3, **QUICK
        )
        outcome.model.close()
        return outcome

    whole = go(tmp_path / "whole", False)
    for name, place, call in (
        ("early", "step", 2),
        ("late", "step", 7),
        ("between", "finish_epoch", 6),
    ):
        with monkeypatch.context() as patch:
            stop_at(patch, place, call)
            with pytest.raises(KeyboardInterrupt):
                go(tmp_path / name, False)
        found = go(tmp_path / name, True)
        assert found.accuracy == whole.accuracy
        assert (tmp_path / name / "prompt.vpt").read_bytes() == (
            tmp_path / "whole" / "prompt.vpt"
        ).read_bytes()
    assert go(tmp_path / "whole", True).accuracy == whole.accuracy  # nothing is left to do


def test_killed_between_file_and_numbers(tmp_path: Path) -> None:
    whole = run("coda", six_in_three(), open_tiny("timm ViT"), out=tmp_path, **QUICK)
    whole.model.close()
    text = json.loads((tmp_path / "results.json").read_text())
    (tmp_path / "results.json").write_text(
        json.dumps({"identity": text["identity"], "accuracy": whole.accuracy[:2]})
    )
    again = run("coda", six_in_three(), open_tiny("timm ViT"), out=tmp_path, resume=True, **QUICK)
    assert again.accuracy == whole.accuracy
    again.model.close()


def journal(folder: Path | None, identity: str = "x", **how: bool) -> Journal:
    return Journal(folder, identity, **({"resume": True, "overwrite": False, "main": True} | how))


def test_what_was_kept_is_what_is_begun_with(tmp_path: Path) -> None:
    model = tiny_model()
    assert journal(tmp_path).begun() == ([], 0, {})
    assert json.loads((tmp_path / RESULTS).read_text()) == {"identity": "x", "accuracy": []}
    journal(tmp_path).keep(model, 2, [[0.5], [0.5, 1.0]])
    rows, done, tensors = journal(tmp_path).begun()
    assert (rows, done) == ([[0.5], [0.5, 1.0]], 2)
    assert tensors.keys() >= learned(model).keys()
    with pytest.raises(TrainingError, match="other tasks or settings"):
        journal(tmp_path, "y").begun()
    with pytest.raises(TrainingError, match="holds a run already"):
        journal(tmp_path, resume=False).begun()
    (tmp_path / RESULTS).unlink()
    with pytest.raises(TrainingError, match="finished run of another kind"):
        journal(tmp_path).begun()
    assert journal(tmp_path, overwrite=True).earlier() is None
    outcome = Outcome("x", [["a"]], [1], [[1.0]], [], model)
    assert journal(tmp_path).finish(outcome).file == tmp_path / "prompt.vpt"
    kept = json.loads((tmp_path / RESULTS).read_text())
    assert kept == {"identity": "x", **outcome.report()}


def test_without_a_folder_nothing_is_left() -> None:
    kept, model = journal(None), tiny_model()
    kept.keep(model, 1, [[1.0]])
    assert kept.begun() == ([], 0, {})
    assert kept.of_task(0) is None
    assert kept.finish(Outcome("x", [["a"]], [1], [[1.0]], [], model)).file is None
