"""Runs side by side, on what all of them tested."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vpt.errors import PromptFileError
from vpt.runs.comparing import compare_runs, write_comparison


def run(folder: Path, answers: dict[str, str], label: str = "a") -> Path:
    folder.mkdir()
    metrics = {"parts": {}, "method": folder.name, "data": {}, "verdict": ""}
    (folder / "metrics.json").write_text(json.dumps(metrics))
    rows = [f"test,{name},{label},{answer},0.9,0.9" for name, answer in answers.items()]
    head = "part,file,label,answer,probability,probability of label"
    (folder / "predictions.csv").write_text("\n".join([head, "val,v,a,b,1,1", *rows]))
    return folder


def test_only_what_all_have_counts_and_pairs_are_by_name(tmp_path: Path) -> None:
    first = run(tmp_path / "one", {"x": "a", "y": "b", "z": "b", "only": "b"})
    other = run(tmp_path / "two", {"z": "a", "y": "a", "x": "b"})
    found = compare_runs([first, other])
    assert [one.n for one in found] == [3, 3]
    assert [one.accuracy for one in found] == pytest.approx([1 / 3, 2 / 3])
    assert found[0].gain is None
    assert (found[1].gain.better, found[1].gain.worse) == (2, 1)
    path = write_comparison(found)
    page = path.read_text()
    assert path == first / "comparison.html"
    assert "2 runs on the same 3 examples" in page
    assert "+33.3 (" in page
    assert f"Most often right is {other}: 66.7%" in page


def test_what_belongs_together_counts_once(tmp_path: Path) -> None:
    names = {f"{person}{i}": person for person in "abcd" for i in range(10)}
    first = run(tmp_path / "one", dict.fromkeys(names, "a"))
    other = run(tmp_path / "two", {name: "a" if p in "ab" else "b" for name, p in names.items()})
    plain = compare_runs([first, other])[1]
    for folder in (first, other):
        lines = (folder / "predictions.csv").read_text().splitlines()
        rows = [f"{lines[0]},unit", f"{lines[1]},"]
        rows += [f"{line},{'abcd'.index(line.split(',')[1][0])}" for line in lines[2:]]
        (folder / "predictions.csv").write_text("\n".join(rows))
    found = compare_runs([first, other])[1]
    assert found.gain.value == plain.gain.value == -0.5
    assert found.gain.units == 4
    assert found.gain.low < plain.gain.low < plain.gain.high < found.gain.high
    assert found.interval[0] < plain.interval[0]


def test_other_tasks_are_refused(tmp_path: Path) -> None:
    first = run(tmp_path / "one", {"x": "a"})
    with pytest.raises(PromptFileError, match="Found no test example that all of"):
        compare_runs([first, run(tmp_path / "two", {"y": "a"})])
    with pytest.raises(PromptFileError, match=r"x is labelled b in .*: these are different tasks"):
        compare_runs([first, run(tmp_path / "three", {"x": "a"}, label="b")])
