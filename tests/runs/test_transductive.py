"""vpt predict --adapt: the files that are classified are learned from."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from families import open_tiny
from helpers import colours, pictures

import vpt
from vpt.errors import DataError, TrainingError
from vpt.runs import transductive
from vpt.runs.transductive import predict_adapted
from vpt.training import side_by_side


@pytest.fixture(autouse=True)
def _few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(side_by_side, "STEPS", 10)
    monkeypatch.setattr(side_by_side, "FEWEST", 10)


def a_run(root: Path, **told: Any) -> Path:
    pictures(root / "data/train", colours(18))
    pictures(root / "data/test", colours(12, 2))
    told |= {"out": root / "run", "progress": False}
    vpt.adapt(root / "data", open_tiny("timm ViT"), **told).model.close()
    return root / "run"


def test_files_are_classified_by_what_learned_from_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, before = a_run(tmp_path), (tmp_path / "run/prompt.vpt").read_bytes()
    files = pictures(tmp_path / "new", colours(30, 5), flat=True)
    found = predict_adapted(run, files, 2, backbone=open_tiny("timm ViT"), progress=True)
    assert [Path(one.name).name for one in found] == sorted(path.name for path in files.iterdir())
    assert all(len(one.probabilities) == 2 for one in found)
    said = " ".join(capsys.readouterr().err.split())
    assert "Transductive: it learns again" in said
    assert "(30 to learn from)" in said
    one_by_one = (path for path in sorted(files.iterdir()))
    same = predict_adapted(run, one_by_one, 2, backbone=open_tiny("timm ViT"))
    assert [one.probabilities for one in same] == [one.probabilities for one in found]
    assert (run / "prompt.vpt").read_bytes() == before


def test_what_the_run_learned_from_without_labels_is_learned_from_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    more = pictures(tmp_path / "more", colours(20, 5), flat=True)
    run = a_run(tmp_path, unlabelled=more)
    files = pictures(tmp_path / "new", colours(20, 6), flat=True)

    def said(given: Path) -> str:
        predict_adapted(run, given, backbone=open_tiny("timm ViT"), progress=True)
        return " ".join(capsys.readouterr().err.split())

    heard = said(files)
    assert "(20 to learn from)" in heard
    assert "without labels is learned from again, too (20)" in heard
    assert "40 examples without labels" in heard
    assert "has nothing beside these files" in said(more)
    monkeypatch.setattr(transductive, "MOST", 30)
    assert "is learned from again, too (10)" in said(files)
    monkeypatch.setattr(transductive, "MOST", 20)
    assert "is left out: the files are enough" in said(files)
    shutil.move(more, tmp_path / "elsewhere")
    assert "is not there any more, and left out" in said(files)


def test_the_tested_files_themselves_may_be_classified_so(tmp_path: Path) -> None:
    run = a_run(tmp_path)
    found = predict_adapted(run, tmp_path / "data/test", backbone=open_tiny("timm ViT"))
    assert len(found) == 12


def test_runs_that_cannot_learn_again_say_why(tmp_path: Path) -> None:
    run = a_run(tmp_path)
    files = pictures(tmp_path / "new", colours(6, 5), flat=True)
    (tmp_path / "data/train/red/bad.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match="cannot be read as the run read them: 1 of"):
        predict_adapted(run, files, backbone=open_tiny("timm ViT"))
    shutil.move(tmp_path / "data", tmp_path / "elsewhere")
    with pytest.raises(DataError, match="any more"):
        predict_adapted(run, files, backbone=open_tiny("timm ViT"))
    vpt.adapt({"train": colours(18)}, open_tiny("timm ViT"), out=tmp_path / "given", progress=False)
    with pytest.raises(DataError, match="handed over"):
        predict_adapted(tmp_path / "given", files, backbone=open_tiny("timm ViT"))
    (run / "metrics.json").unlink()
    with pytest.raises(TrainingError, match="does not say how it learned"):
        predict_adapted(run, files, backbone=open_tiny("timm ViT"))
