"""prompt="auto" of `vpt reprogram`, from a table to the file that is used."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from families import open_tiny
from helpers import planted, planted_model, table

import vpt
from vpt.data import Data, Examples
from vpt.errors import DataError, TrainingError
from vpt.fairness.automatic import mended, usual
from vpt.fairness.reprogramming import reprogram
from vpt.metrics.audit import audit


def backbone() -> vpt.Backbone:
    return vpt.load_backbone(planted_model(), classes=("dull", "red"))


def test_a_run_from_a_table(tmp_path: Path) -> None:
    data, out = table(tmp_path / "data"), tmp_path / "run"
    result = reprogram(data, backbone(), "auto", label="look", group="sky", out=out, progress=False)
    report = json.loads((out / "metrics.json").read_text())
    assert report["recommendation"] in ("use", "keep the model", "cannot tell")
    assert [point["strength"] for point in report["points"]] == [None, 0.3, 1, 3, 10, 30]
    assert report["prompt"].startswith("no prompt")
    result.model.close()
    again = vpt.load(result.file, backbone())
    parts = vpt.load_data(
        data, again.backbone.inputs, label="look", group="sky", val_share=0.3, progress=False
    )
    chosen = next(p for p in report["points"] if p["name"] == report["chosen"])
    found = vpt.audit(parts.test, again, progress=False)
    assert found["metrics"] == chosen["test"]["metrics"]
    # all that is not for testing was tuned on, and held out once
    assert chosen["val"]["n"] == len(parts.train) + len(parts.val)
    assert (out / "report.html").is_file()


def test_it_is_fairer_on_examples_that_it_never_saw() -> None:
    own, test = backbone(), planted(600, 5)
    data = Data(planted(300, 1), planted(100, 2), test, ["dull", "red"], [])
    model, found = mended(own, data, progress=False)
    assert found.judged.recommendation == "use"
    gap, accuracy = "average_odds_difference", "accuracy"
    base, chosen = found.base.test, found.chosen.test
    assert base is not None
    assert chosen is not None
    assert chosen.value(gap) < 0.75 * base.value(gap)
    assert chosen.value(accuracy) > base.value(accuracy) - 0.02
    with torch.no_grad():
        said = model.eval()(torch.stack([test[i][0] for i in range(600)])).argmax(1)
    again = audit(test.targets, said.tolist(), test.grouped or [], test.classes, ["plain", "blue"])
    assert again.value(gap) == pytest.approx(chosen.value(gap))
    assert found.thresholds is not None
    model.close()


def test_groups_that_are_drawn_by_lot_leave_nothing_to_mend() -> None:
    own = backbone()

    def by_lot(count: int, seed: int) -> vpt.Examples:
        plain = planted(count, seed)
        draw = torch.Generator().manual_seed(seed + 9)
        groups = torch.randint(2, (count,), generator=draw).tolist()
        return vpt.Examples(
            plain.get, plain.labels, plain.classes, groups=groups, group_names=["a", "b"]
        )

    data = Data(by_lot(300, 1), by_lot(100, 2), None, ["dull", "red"], [])
    model, found = mended(own, data, progress=False)
    assert found.judged.recommendation != "use"
    model.close()


def test_what_it_decides_by_itself(tmp_path: Path) -> None:
    data, own = table(tmp_path / "data"), backbone()
    told = {"label": "look", "group": "sky", "progress": False}
    for more, message in (
        ({"epochs": 3}, "Found epochs with prompt='auto'"),
        ({"method": "adversary"}, "Found method='adversary'"),
        ({"readout": "linear"}, "Found readout"),
        ({"recipe": vpt.Recipe()}, "Found recipe"),
    ):
        with pytest.raises(TrainingError, match=message):
            reprogram(data, own, "auto", **told, **more)
    with pytest.raises(TrainingError, match="all different"):
        reprogram(data, own, "auto", strengths=[1, 1], **told)


def test_one_group() -> None:
    plain = planted(60, 0)
    alone = vpt.Examples(plain.get, plain.labels, plain.classes, groups=[0] * 60, group_names=["a"])
    with pytest.raises(DataError, match="not defined on the 120 examples"):
        mended(backbone(), Data(alone, alone, None, ["dull", "red"], []), progress=False)


def test_cells_of_a_few_are_named() -> None:
    plain = planted(200, 0)
    groups = [2 if i in (0, 2, 3) else g for i, g in enumerate(plain.grouped or [])]
    few = vpt.Examples(
        plain.get, plain.labels, plain.classes, groups=groups, group_names=["plain", "blue", "x"]
    )
    model, found = mended(backbone(), Data(few, few, None, ["dull", "red"], []), progress=False)
    assert any("dull, x: 4" in note and "red, x: 2" in note for note in found.notes)
    model.close()


def test_groups_go_by_name_however_each_part_numbers_them() -> None:
    def turned(examples: vpt.Examples) -> vpt.Examples:
        groups = [1 - g for g in examples.grouped or []]
        return vpt.Examples(
            examples.get,
            examples.labels,
            examples.classes,
            groups=groups,
            group_names=["blue", "plain"],
        )

    found = []
    for val in (planted(100, 2), turned(planted(100, 2))):
        data = Data(planted(100, 1), val, turned(planted(60, 3)), ["dull", "red"], [])
        model, frontier = mended(backbone(), data, strengths=[1.0], progress=False)
        model.close()
        found.append((frontier.base.as_dict(), frontier.judged.why))
    assert found[0] == found[1]


def test_a_group_that_only_the_test_examples_have() -> None:
    plain = planted(60, 3)
    groups = [2 if i < 6 else g for i, g in enumerate(plain.grouped or [])]
    test = vpt.Examples(
        plain.get, plain.labels, plain.classes, groups=groups, group_names=["plain", "blue", "x"]
    )
    data = Data(planted(60, 1), planted(60, 2), test, ["dull", "red"], [])
    model, found = mended(backbone(), data, strengths=[1.0], progress=False)
    assert found.thresholds is None
    assert found.picture()
    model.close()


def test_the_model_is_free_again_whatever_happens() -> None:
    own = backbone()

    def stop(text: str) -> None:
        if text == "strength 1":
            raise KeyboardInterrupt

    data = Data(planted(60, 1), planted(60, 2), None, ["dull", "red"], [])
    with pytest.raises(KeyboardInterrupt):
        mended(own, data, strengths=[1.0], progress=False, say=stop)
    assert own.attachment is None


def test_a_model_that_cannot_be_corrected_is_refused_before_the_pass() -> None:
    own = open_tiny("timm DeiT distilled")
    own.class_names = ["dull", "red", *(str(i) for i in range(own.classes - 2))]
    data = Data(planted(20, 1), planted(20, 2), None, ["dull", "red"], [])
    with pytest.raises(TrainingError, match="no linear function"):
        mended(own, data, progress=False)


def test_it_is_what_is_done_where_nothing_else_is_said(tmp_path: Path) -> None:
    data, names = table(tmp_path / "data"), {"label": "look", "group": "sky", "progress": False}
    result = reprogram(data, backbone(), **names)
    assert result.report["prompt"].startswith("no prompt")
    assert result.frontier.out_of_fold
    result.model.close()
    # a recipe is of a training
    trained = reprogram(data, backbone(), epochs=1, strengths=[5.0], **names)
    assert "border" in trained.report["prompt"]
    trained.model.close()


def test_a_model_that_cannot_be_corrected_learns_a_border(tmp_path: Path) -> None:
    data = table(tmp_path / "data", names=("0", "1"))
    own = open_tiny("timm DeiT distilled")  # its scores are the mean of two heads'
    names = {"label": "look", "group": "sky", "progress": False}
    assert usual(own, False).startswith("border:")
    assert usual(backbone(), False) == "auto"
    assert usual(backbone(), True).startswith("border:")
    with pytest.raises(TrainingError, match="cannot be corrected there"):
        reprogram(data, own, "auto", **names)


def test_what_is_asked_of_it_is_checked_where_no_prompt_is_named(tmp_path: Path) -> None:
    data, names = table(tmp_path / "data"), {"label": "look", "group": "sky", "progress": False}
    wrong = ({"criterion": "foo"}, {"budget": 7}, {"strengths": [-1.0]}, {"strengths": "1,2"})
    for one in wrong:
        with pytest.raises(TrainingError):
            reprogram(data, backbone(), **names, **one)


def test_free_text_is_no_group() -> None:
    """And so are names of persons: a gap between hundreds of them says nothing."""
    data = planted(120, 1)
    names = [f"note {i // 2}" for i in range(120)]
    each = Examples(
        data.get,
        data.labels,
        data.classes,
        groups=[i // 2 for i in range(120)],
        group_names=sorted(set(names), key=names.index),
    )
    parts = Data(each.subset(range(80)), each.subset(range(80, 120)), None, data.classes, [])
    with pytest.raises(DataError, match=r"40 groups among 80 training examples .*like free text"):
        mended(backbone(), parts, progress=False)


def test_a_group_that_the_test_examples_lack(tmp_path: Path) -> None:
    own, tuned, test = backbone(), planted(200, 1), planted(100, 2)
    plain = test.subset([i for i in range(100) if test.grouped[i] == 0])
    data = Data(tuned.subset(range(140)), tuned.subset(range(140, 200)), plain, tuned.classes, [])
    result = reprogram(data, own, out=tmp_path / "run", progress=False)
    assert "average odds difference not defined" in result.report["verdict"]
    assert (tmp_path / "run" / "report.html").is_file()
    result.model.close()
