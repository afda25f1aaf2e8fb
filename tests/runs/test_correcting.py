"""Mistakes that are mended later, from a run's folder to another."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from families import open_tiny
from helpers import colours
from PIL import Image

import vpt
from vpt.data import Examples
from vpt.errors import DataError, PromptFileError, TrainingError
from vpt.runs.correcting import correct, undo_correction
from vpt.runs.journal import BEFORE, JOURNAL
from vpt.runs.moments import MEMORY, Moments

CLASSES = ["red", "green", "blue"]


def striped(count: int, seed: int, label: int = 1) -> Examples:
    """Red pictures with white stripes, which are to be green: a kind that no run has seen."""
    data = colours(3 * count, seed)
    pictures = [data[3 * i][0].clone() for i in range(count)]
    for x in pictures:
        x[:, ::4] = 1.0
    return Examples(pictures.__getitem__, [label] * count, CLASSES)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    data = {"train": colours(60), "test": colours(15, 2)}
    result = vpt.adapt(
        data, open_tiny("timm ViT"), "auto", probe_only=True, out=folder, progress=False
    )
    result.model.close()
    return folder


@pytest.fixture
def backbone() -> vpt.Backbone:
    return open_tiny("timm ViT")


def share(model: vpt.PromptedModel, data: Examples) -> float:
    return float(vpt.evaluate(model, data)["accuracy"])


def test_fresh_ones_of_a_kind_are_mended_and_the_run_is_left(
    run: Path, backbone: vpt.Backbone, tmp_path: Path
) -> None:
    before = {file: file.read_bytes() for file in run.iterdir() if file.is_file()}
    weights = backbone.fingerprint()
    with vpt.load(run, backbone) as model:
        assert share(model, striped(20, 5)) < 0.5
        accuracy = share(model, colours(90, 9))
    made = correct(
        run, striped(10, 3), out=tmp_path / "two", backbone=backbone, progress=False, budget=0.02
    )
    report = made.report
    assert share(made.model, striped(20, 5)) > 0.8
    assert share(made.model, colours(90, 9)) >= accuracy - 0.05
    assert report["mended"] == report["mistaken"] == 10
    assert report["held_out"]["mended"] >= 8
    assert report["recommendation"] == "use"
    made.model.close()
    assert {file: file.read_bytes() for file in before} == before
    assert backbone.fingerprint() == weights
    with vpt.load(tmp_path / "two", backbone) as again:
        assert share(again, striped(20, 5)) > 0.8
    # no picture is in the journal
    text = (tmp_path / "two" / JOURNAL).read_text()
    assert len(text) < 400 * 10 + 1000
    assert json.loads(text)[0]["examples"][0]["label"] == "green"


def test_corrections_add_up_and_are_undone_bit_for_bit(
    run: Path, backbone: vpt.Backbone, tmp_path: Path
) -> None:
    def mended(place: Path, data: Examples, out: str) -> None:
        options: dict[str, Any] = {"backbone": backbone, "progress": False, "budget": 0.05}
        correct(place, data, out=tmp_path / out, **options).model.close()

    mended(run, striped(6, 3), "two")
    bright = colours(60, 7)  # greens that are to be red
    other = [i for i in range(60) if bright.labels[i] == 1][:8]
    second = Examples([bright[i][0] for i in other].__getitem__, [0] * 8, CLASSES)
    with vpt.load(tmp_path / "two", backbone) as model:
        first = share(model, striped(20, 5))
    options: dict[str, Any] = {"backbone": backbone, "progress": False, "budget": 0.9}
    correct(tmp_path / "two", second, out=tmp_path / "three", **options).model.close()
    entries = json.loads((tmp_path / "three" / JOURNAL).read_text())
    assert [one["number"] for one in entries] == [1, 2]
    assert {f.name for f in (tmp_path / "three" / BEFORE).iterdir()} == {
        f"{n}{ending}" for n in (1, 2) for ending in (".vpt", ".safetensors")
    }
    assert "corrected 2 times" in (tmp_path / "three" / "report.html").read_text()
    undo_correction(tmp_path / "three", tmp_path / "again")
    assert "corrected once" in (tmp_path / "again" / "report.html").read_text()
    for name in ("prompt.vpt", MEMORY, JOURNAL):
        same = (tmp_path / "again" / name).read_bytes()
        assert same == (tmp_path / "two" / name).read_bytes()
    undo_correction(tmp_path / "again", tmp_path / "first")
    for name in ("prompt.vpt", MEMORY):
        assert (tmp_path / "first" / name).read_bytes() == (run / name).read_bytes()
    assert not (tmp_path / "first" / JOURNAL).exists()
    with pytest.raises(TrainingError, match="has no correction that could be undone"):
        undo_correction(tmp_path / "first", tmp_path / "none")
    assert first > 0.5


def test_a_check_set_says_what_else_changes(run: Path, backbone: vpt.Backbone) -> None:
    others = colours(45, 9)
    made = correct(run, striped(8, 3), check=others, backbone=backbone, progress=False, budget=0.05)
    check = made.report["check"]
    assert check["n"] == 45
    assert check["after"] == pytest.approx(share(made.model, others))
    assert check["after"] >= check["before"] - 0.05
    turned = len(check["turned_right"]) - len(check["turned_wrong"])
    assert check["after"] - check["before"] == pytest.approx(turned / 45)
    made.model.close()


def test_the_models_own_classes_are_corrected_as_well(tmp_path: Path) -> None:
    backbone = open_tiny("timm ViT")
    names = [str(c) for c in range(5)]  # of its random classifier
    with vpt.PromptedModel(backbone, vpt.Border.like(backbone, 2), vpt.Identity()).eval() as model:
        vpt.save(tmp_path / "prompt.vpt", model)
        said = model(torch.stack([striped(6, 3)[i][0] for i in range(6)]))
    wanted = (int(said[0].argmax()) + 1) % 5
    data = Examples(striped(6, 3).get, [wanted] * 6, names, named=False)
    others = Examples(colours(30).get, colours(30).labels, names, named=False)
    options: dict[str, Any] = {"backbone": backbone, "progress": False, "budget": 0.9}
    made = correct(tmp_path, data, check=others, **options)
    assert made.report["mended"] > 0
    after = made.model(torch.stack([data[i][0] for i in range(6)]))
    assert [names[c] for c in after.argmax(1)] == [e["now"] for e in made.report["examples"]]
    made.model.close()


def test_what_cannot_be_a_correction_is_said(
    run: Path, backbone: vpt.Backbone, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"backbone": backbone, "progress": False}
    wrong = striped(6, 3)
    named = Examples(wrong.get, [0] * 6, ["purple"])
    with pytest.raises(DataError, match="does not have: purple"):
        correct(run, named, **options)
    both = Examples(lambda i: wrong[i % 3][0], [2, 2, 2, 1, 1, 1], CLASSES)
    with pytest.raises(DataError, match="3 is to be green, and as 0 the same is blue"):
        correct(run, both, **options)
    with vpt.load(run, backbone) as model:
        good = colours(60, 4)
        said = model(torch.stack([good[i][0] for i in range(60)])).argmax(1)
    right = good.subset([i for i in range(60) if said[i] == good.labels[i]][:5])
    with pytest.raises(TrainingError, match="All 5 examples are right already"):
        correct(run, right, **options)
    with pytest.raises(TrainingError, match="is the run itself"):
        correct(run, wrong, out=run, **options)
    with pytest.raises(TrainingError, match="needed is a number in"):
        correct(run, wrong, budget=5, **options)
    with pytest.raises(DataError, match="1001 examples; a correction takes 1000"):
        correct(run, Examples(lambda i: wrong[0][0], [2] * 1001, CLASSES), **options)
    alone = tmp_path / "alone.vpt"
    alone.write_bytes((run / "prompt.vpt").read_bytes())
    with pytest.raises(TrainingError, match=r"remembers nothing .*--check DATA"):
        correct(alone, wrong, **options)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["alone.vpt"]


def test_a_later_correction_may_not_contradict_an_earlier_one(
    run: Path, backbone: vpt.Backbone, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"backbone": backbone, "progress": False, "budget": 0.05}
    correct(run, striped(6, 3), out=tmp_path / "two", **options).model.close()
    with pytest.raises(DataError, match="in correction 1 the same is green"):
        correct(tmp_path / "two", striped(6, 3, label=0), **options)
    (tmp_path / "two" / JOURNAL).write_text("{")
    with pytest.raises(PromptFileError, match="cannot be read"):
        correct(tmp_path / "two", striped(6, 4), **options)


def test_nothing_is_written_where_nothing_can_be_mended(
    run: Path, backbone: vpt.Backbone, tmp_path: Path
) -> None:
    plain = colours(60, 7)
    with vpt.load(run, backbone) as model:
        said = model(torch.stack([plain[i][0] for i in range(60)])).softmax(1)[:, 0]
    sure = [i for i in said.argsort().tolist() if plain.labels[i] == 0][-5:]  # are to be blue
    data = Examples([plain[i][0] for i in sure].__getitem__, [2] * len(sure), CLASSES)
    with pytest.raises(TrainingError, match="mistakes can be mended for at most"):
        correct(run, data, out=tmp_path / "two", backbone=backbone, progress=False, budget=0.0)
    assert not (tmp_path / "two" / "prompt.vpt").exists()


def test_a_single_mistake_promises_nothing(run: Path, backbone: vpt.Backbone) -> None:
    made = correct(run, striped(1, 3), backbone=backbone, progress=False, budget=0.05)
    assert made.report["held_out"] is None
    assert made.report["recommendation"] == "cannot tell"
    assert made.report["mended"] == 1
    made.model.close()


def files(folder: Path, pictures: Examples, splits: tuple[str, ...] = ()) -> Path:
    """A table of pictures, with splits in turn."""
    folder.mkdir()
    rows = ["path,label" + (",split" if splits else "")]
    for i in range(len(pictures)):
        x = (pictures[i][0] * 255).round().byte().permute(1, 2, 0).numpy()
        Image.fromarray(x).save(folder / f"{i}.png")
        split = f",{splits[i % len(splits)]}" if splits else ""
        rows.append(f"{i}.png,{CLASSES[pictures[i][1]]}{split}")
    (folder / "table.csv").write_text("\n".join(rows) + "\n")
    return folder / "table.csv"


def test_all_of_a_table_is_learned_from_and_left_out_of_the_check(
    run: Path, backbone: vpt.Backbone, tmp_path: Path
) -> None:
    table = files(tmp_path / "wrong", striped(6, 3), ("test", "val", "train"))
    everything = files(tmp_path / "all", colours(12, 9))
    options: dict[str, Any] = {"backbone": backbone, "progress": False, "budget": 0.3}
    made = correct(run, table, check=everything, **options)
    assert made.report["given"] == 6
    assert made.report["check"]["n"] == 12
    made.model.close()
    both = Examples(
        lambda i: (striped(6, 3) if i < 6 else colours(12, 9))[i % 6][0],
        [1] * 6 + [colours(12, 9).labels[i] for i in range(6)],
        CLASSES,
    )
    made = correct(run, striped(6, 3), check=both, **options)
    assert made.report["check"]["n"] == 6  # but for what is to be right
    made.model.close()
    with pytest.raises(DataError, match="nothing but what is to be right"):
        correct(run, striped(6, 3), check=striped(6, 3), **options)


def test_a_later_run_in_its_folder_takes_nothing_over(
    run: Path, backbone: vpt.Backbone, tmp_path: Path
) -> None:
    out = tmp_path / "two"
    options: dict[str, Any] = {"backbone": backbone, "progress": False, "budget": 0.05}
    correct(run, striped(6, 3), out=out, **options).model.close()
    data = {"train": colours(30), "test": colours(15, 2)}
    vpt.adapt(
        data, backbone, "auto", probe_only=True, out=out, overwrite=True, progress=False
    ).model.close()
    assert not (out / JOURNAL).exists()
    assert not (out / BEFORE).exists()
    correct(run, striped(6, 3), out=out, overwrite=True, **options).model.close()
    assert not (out / "metrics.json").exists()  # of the run that stood there
    (out / BEFORE / "1.vpt").unlink()
    with pytest.raises(PromptFileError, match=r"1\.vpt is not there, which would undo"):
        undo_correction(out, tmp_path / "three")
    # another file beside it has no part in its journal
    (out / "other.vpt").write_bytes((run / "prompt.vpt").read_bytes())
    with pytest.raises(TrainingError, match="has no correction that could be undone"):
        undo_correction(out / "other.vpt", tmp_path / "three")


def test_what_is_remembered_is_no_reason_to_lose_a_run(
    backbone: vpt.Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    def broken(*args: object) -> None:
        raise RuntimeError("eigh did not converge")

    monkeypatch.setattr(Moments, "of", broken)
    result = vpt.adapt(
        {"train": colours(30), "test": colours(15, 2)},
        backbone,
        "auto",
        probe_only=True,
        out=tmp_path,
        progress=False,
    )
    result.model.close()
    assert (tmp_path / "prompt.vpt").is_file()
    assert not (tmp_path / MEMORY).exists()
    assert "could not be said: eigh did not converge" in caplog.text
