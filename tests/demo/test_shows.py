"""The demonstrations, on a tiny budget."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import vpt
from vpt.demo import shows as module
from vpt.errors import DataError


def test_digits_are_split_apart_and_stratified() -> None:
    data = module.digits(vpt.load_backbone("vpt:vit-p8-64"), seed=1)
    assert (len(data.train), len(data.val), len(data.test)) == (240, 60, 500)
    assert sorted(data.train.targets) == [d for d in range(10) for _ in range(24)]
    parts = [set(part.indices) for part in (data.train, data.val, data.test)]
    assert len(parts[0] | parts[1] | parts[2]) == 800
    x, y = data.test[0]
    assert x.shape == (3, 64, 64)
    assert 0 <= float(x.min()) < float(x.max()) <= 1
    assert 0 <= y < 10


def test_commands_are_split_by_voice() -> None:
    data = module.commands(vpt.load_backbone("vpt:ast-tiny"), seed=1)
    assert (len(data.train), len(data.val), len(data.test)) == (120, 80, 200)
    assert sorted(data.test.targets) == [c for c in range(10) for _ in range(20)]
    assert all("test" in data.test.name(i) for i in range(200))
    assert not any(
        "test" in part.name(i) for part in (data.train, data.val) for i in range(len(part))
    )


@pytest.mark.parametrize(
    "show",
    [
        pytest.param(module.PICTURES, id="pictures"),
        pytest.param(module.SOUNDS, id="sounds", marks=pytest.mark.long),
    ],
)
def test_rows_and_files_without_a_network(
    tmp_path: Path, show: module.Show, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object) -> None:
        raise AssertionError("the demonstration is offline")

    monkeypatch.setattr("socket.socket.connect", refuse)

    def few(backbone, seed):
        data = show.data(backbone, seed)
        for part, step in (("train", 8), ("val", 6), ("test", 40)):
            every = getattr(data, part)
            setattr(data, part, every.subset(range(0, len(every), step)))
        return data

    tiny = replace(
        show,
        data=few,
        forms={
            name: (prompt, {"epochs": 1} if settings else {})
            for name, (prompt, settings) in show.forms.items()
        },
    )
    rows = module.demo(tmp_path, seeds=1, progress=False, show=tiny)
    assert [row.name.split(" (")[0] for row in rows] == [
        "nearest mean",
        "linear probe",
        "auto",
        "border",
    ]
    assert all(len(row.accuracies) == 1 and "±" not in row.text() for row in rows)
    assert "±" in replace(rows[0], accuracies=[0.5, 0.7]).text()
    assert (tmp_path / "border-seed0" / "border.png").exists()
    assert [row.parameters for row in rows[:2]] == [1920, 1930]


@pytest.mark.long
@pytest.mark.parametrize("name", module.BIASED)
def test_biased_models_are_made_fairer_without_a_network(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object) -> None:
        raise AssertionError("the demonstration is offline")

    whole = module.tuning
    monkeypatch.setattr("socket.socket.connect", refuse)
    monkeypatch.setattr(module, "tuning", lambda case, seed: whole(case, 60, 700, seed))
    report = module.make_fairer(
        module.BIASED[name], tmp_path, progress=False, epochs=1, strengths=(1.0,)
    )
    base = report["base"]["test"]["metrics"]
    assert 0.2 <= base["average_odds_difference"]["value"] <= 0.6  # the planted bias
    assert base["balanced_accuracy"]["value"] > 0.75  # and yet it knows the label
    for file in (
        "prompt.vpt",
        "metrics.json",
        "border.png",
        "reprogrammed.png",
        "groups.png",
        "frontier.png",
    ):
        assert (tmp_path / file).stat().st_size > 0


@pytest.mark.parametrize("case", module.BIASED.values(), ids=module.BIASED)
def test_a_prompt_is_tuned_and_tested_on_other_pictures(case: module.Biased) -> None:
    parts = module.tuning(case, 30, 40, seed=1)
    assert [len(part) for part in parts.values()] == [20, 10, 40]
    seen = {
        tuple(part[i][0].flatten()[:99].tolist())
        for part in parts.values()
        for i in range(len(part))
    }
    assert len(seen) == 70
    assert vpt.load_backbone(case.model).class_names == parts["train"].classes


def test_digits_are_no_sound() -> None:
    with pytest.raises(DataError, match="Found inputs of sound"):
        module.all_digits(vpt.load_backbone("vpt:ast-tiny").inputs)
