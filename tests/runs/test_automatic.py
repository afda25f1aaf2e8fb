"""prompt="auto" from data to a saved file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from families import open_tiny
from helpers import colours

import vpt
from vpt.data import Examples
from vpt.errors import PromptFileError, TrainingError
from vpt.files.beforehand import load_queries, save_queries
from vpt.tasks.beforehand import learn_beforehand, see
from vpt.training import side_by_side


@pytest.fixture(autouse=True)
def _few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(side_by_side, "STEPS", 10)
    monkeypatch.setattr(side_by_side, "FEWEST", 10)


def data(count: int = 30) -> dict[str, Examples]:
    return {"train": colours(count), "test": colours(15, 2)}


def run(name: str = "timm ViT", source: Any = None, **options: Any) -> vpt.Result:
    return vpt.adapt(source or data(), open_tiny(name), "auto", progress=False, **options)


def test_every_label_is_used_and_the_file_says_what_was_chosen(tmp_path: Path) -> None:
    result = run(out=tmp_path)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["train_n"] == 30  # what was held out, too
    assert metrics["out_of_fold"]["n"] == metrics["val_n"] == 30
    assert metrics["val_accuracy"] == metrics["out_of_fold"]["accuracy"]
    assert "validation examples are learned from, too" in metrics["data"]["notes"][-1]
    names = [row["candidate"] for row in metrics["chosen"]["table"]]
    assert names == [
        "nearest mean",
        "probe cls",
        "probe cls+mean",
        "probe blocks",
        "queries:4",
    ]
    assert metrics["chosen"]["names"]
    assert {"val", "test", "C"} <= metrics["baselines"]["linear_probe"].keys()
    x = torch.stack([data()["test"][i][0] for i in range(5)])
    result.model.eval()
    out = result.model(x)
    assert vpt.evaluate(result.model, data()["test"])["accuracy"] == metrics["test_accuracy"]
    backbone = result.model.backbone
    result.model.close()
    again = vpt.load(tmp_path / "prompt.vpt", backbone)
    assert torch.equal(again(x), out)


@pytest.mark.parametrize("kind", ["nearest mean", "probe blocks", "queries:4", "both"])
def test_each_kind_is_fitted_on_all_and_gives_what_was_tested(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vpt.runs import candidates

    own = candidates.choose

    def choose(*given: Any) -> Any:
        found = own(*given)
        names = ["probe cls+mean", "queries:4"] if kind == "both" else [kind]
        return found.__class__(**(found.as_dict() | {"name": kind, "names": names}))

    monkeypatch.setattr(candidates, "choose", choose)
    result = run()
    test = vpt.evaluate(result.model.eval(), data()["test"])
    assert test["accuracy"] == result.report.test_accuracy
    if kind == "nearest mean":
        assert test["accuracy"] == result.report.baselines["nearest_mean"]["test"]
    assert bool(result.model.prompt.reads) == (kind in ("queries:4", "both"))
    result.model.close()


@pytest.mark.parametrize("name", ["CNN", "timm Swin", "timm CaiT"])
def test_models_that_no_query_reads_choose_among_what_there_is(name: str) -> None:
    size = open_tiny(name).inputs.shape[-1]
    source = {"train": colours(18, size=size), "test": colours(9, 2, size=size)}
    table = run(name, source).report.chosen["table"]
    assert any(row["candidate"] == "queries:4" for row in table) == (name == "timm Swin")


def test_one_example_of_each_class_is_said() -> None:
    report = run(shots=1).report
    assert report.chosen["names"] == ["probe cls"]
    assert "nothing can be held out" in report.verdict
    assert report.out_of_fold["n"] == 0
    assert report.val_n > 0


def test_a_validation_split_that_is_given_is_learned_from_unless_told_otherwise() -> None:
    source = data() | {"val": colours(12, 1)}
    report = run(source=source).report
    assert report.train_n == report.out_of_fold["n"] == report.val_n == 42
    assert "validation examples are learned from" in report.data["notes"][-1]
    report = run(source=source, val_apart=True).report
    assert report.train_n == report.out_of_fold["n"] == 30
    assert not report.data["notes"]
    assert report.val_n == 12


def test_a_probe_alone_can_be_asked_for() -> None:
    report = run(probe_only=True).report
    assert (report.method, report.chosen["names"]) == ("linear probe", ["probe cls"])
    assert report.verdict == "taken is the linear probe, without a prompt: as was asked for"
    assert set(report.parts["test"]["methods"]) == {"nearest mean", "linear probe"}
    assert report.parameters_trained["prompt"] == 0
    with pytest.raises(TrainingError, match="goes with 'auto' only"):
        vpt.adapt(data(), open_tiny("timm ViT"), "deep:1", probe_only=True)


def test_it_repeats() -> None:
    one, two = (run().report for _ in range(2))
    assert one.chosen == two.chosen
    assert one.test_accuracy == two.test_accuracy


def test_what_it_decides_by_itself_is_refused() -> None:
    with pytest.raises(TrainingError, match="Found epochs, readout with prompt='auto'"):
        run(epochs=3, readout="map:bayes")
    with pytest.raises(TrainingError, match="Found augment, recipe with prompt='auto'"):
        run(augment="crop", recipe=vpt.Recipe())


def test_a_model_that_gives_nan_is_said() -> None:
    backbone = open_tiny("timm ViT")
    with torch.no_grad():
        backbone.model.norm.weight.fill_(float("nan"))
    with pytest.raises(vpt.errors.BackboneError, match="gives NaN for 30 of 30 examples"):
        vpt.adapt(data(), backbone, "auto", progress=False)
    assert backbone.attachment is None


def test_queries_learned_beforehand_are_where_a_task_begins(tmp_path: Path) -> None:
    backbone = open_tiny("timm ViT")
    known = {"one": see(backbone, colours(24, 1)), "other": see(backbone, colours(24, 2))}
    prompt = learn_beforehand(known, steps=4)[0]
    file = save_queries(tmp_path / "queries.vpt", prompt, backbone)
    begun = load_queries(file, backbone)
    result = run(start=file)
    assert result.report.parts  # judged out of fold as always
    # with one example of each class they are read as they are, and saved with the probe
    alone = {"train": colours(3), "val": colours(3, 4), "test": colours(15, 2)}
    one = run(source=alone, start=file, val_apart=True, out=tmp_path / "run")
    assert one.report.chosen["name"] == "queries as they are"
    for rows, same in zip(one.model.prompt.queries, begun.queries, strict=True):
        assert torch.equal(rows, same)
    read = one.model.readout
    assert read.named.text == "cls+queries"
    accuracy = vpt.evaluate(one.model, alone["test"])["accuracy"]
    assert accuracy == one.report.test_accuracy
    without = run(source=alone, val_apart=True)
    assert without.report.chosen["name"] == "probe cls"


def test_a_file_to_begin_from_goes_with_auto_and_this_model_only(tmp_path: Path) -> None:
    backbone = open_tiny("timm ViT")
    known = {"one": see(backbone, colours(24, 1)), "other": see(backbone, colours(24, 2))}
    file = save_queries(tmp_path / "q.vpt", learn_beforehand(known, steps=2)[0], backbone)
    with pytest.raises(TrainingError, match="with start"):
        vpt.adapt(data(), open_tiny("timm ViT"), "deep:2", start=file)
    with pytest.raises(PromptFileError):
        vpt.adapt(data(), open_tiny("timm ViT"), start=tmp_path / "nothing.vpt", progress=False)
    with pytest.raises(PromptFileError):
        vpt.adapt(data(), open_tiny("timm EVA-02"), start=file, progress=False)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_model_in_half_precision_is_read_as_it_is(dtype: torch.dtype) -> None:
    backbone = open_tiny("timm ViT")
    result = vpt.adapt(data(), backbone, progress=False)
    result.model.close()
    whole = result.answers["test"]
    model = backbone.model.to(dtype)
    backbone.release()
    half = vpt.adapt(data(), vpt.load_backbone(model), progress=False)
    assert half.model.backbone.dtype == dtype
    assert "queries:4" in [row["candidate"] for row in half.metrics["chosen"]["table"]]
    for name, scores in half.answers["test"].scores.items():
        if name in whole.scores and name != "nearest mean":
            apart = (scores.softmax(1) - whole.scores[name].softmax(1)).abs().max()
            assert float(apart) < 0.1


def test_a_probe_has_no_place_where_queries_begin(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="probe_only with start"):
        run(probe_only=True, start=tmp_path / "queries.vpt")
