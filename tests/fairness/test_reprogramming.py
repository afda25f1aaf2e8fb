"""From a table with groups to a run's folder: its files, its numbers, its errors; and the audit of
a model or a run.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import torchvision
from families import make
from helpers import planted, planted_model, planted_sounds, table, with_planted_head

import vpt
from vpt.data import Data
from vpt.errors import DataError, PromptError, TrainingError
from vpt.fairness.audited import audit
from vpt.fairness.reprogramming import reprogram

QUICK = {"epochs": 2, "lr": 0.003, "strengths": [5.0], "progress": False}


def backbone(names: tuple[str, str] | None = ("dull", "red")) -> vpt.Backbone:
    return vpt.load_backbone(planted_model(), classes=names)


def test_tokens_by_name_start_in_the_midst_of_the_models_own(tmp_path: Path) -> None:
    """Under the model's own classifier random tokens spoil what it says before anything is
    learned.
    """
    own = backbone()
    result = reprogram(
        table(tmp_path / "data"), own, "deep:2", label="look", group="sky", **(QUICK | {"lr": 1e-9})
    )
    result.model.close()
    seen = own.record(torch.stack([planted(100, 0)[i][0] for i in range(100)]))
    rows = result.model.prompt.tokens[0].detach()
    tokens = seen[0]["tokens"].flatten(0, 1)
    assert ((rows - tokens.mean(0)) / tokens.std(0).clamp(min=1e-3)).square().mean() < 0.25**2


def test_a_run_from_a_table(tmp_path: Path) -> None:
    data, out = table(tmp_path / "data"), tmp_path / "run"
    said: list[str] = []
    result = reprogram(
        data, backbone(), "border:4", label="look", group="sky", out=out, say=said.append, **QUICK
    )
    assert said[:2] == ["accuracy alone", "strength 5"]
    wanted = {
        "prompt.vpt",
        "metrics.json",
        "border.png",
        "reprogrammed.png",
        "groups.png",
        "frontier.png",
        "points",
        "report.html",
        "memory.safetensors",
    }
    assert {p.name for p in out.iterdir()} == wanted
    assert {p.name for p in (out / "points").iterdir()} == {"alone.vpt", "5.0.vpt"}
    report = json.loads((out / "metrics.json").read_text())
    assert report == json.loads(json.dumps(result.report))
    assert report["chosen"] == result.frontier.chosen.name
    assert report["base"]["test"]["per_group"].keys() == {"plain", "blue"}
    result.model.close()
    # every point's file brings back what was reported of it
    test = vpt.load_data(
        data, result.model.backbone.inputs, label="look", group="sky", val_share=0.3, progress=False
    ).test
    for point in report["points"]:
        again = vpt.load(out / "points" / f"{point['name']}.vpt", backbone())
        assert audit(test, again, progress=False)["metrics"] == point["test"]["metrics"]
    assert audit(test, backbone(), progress=False)["metrics"] == report["base"]["test"]["metrics"]
    chosen = vpt.load(result.file, backbone())
    assert chosen.prompt.describe() == report["prompt"]
    with pytest.raises(TrainingError, match="already holds a finished run"):
        reprogram(data, backbone(), "border:4", label="look", group="sky", out=out, **QUICK)
    again = reprogram(
        data,
        backbone(),
        "full",
        label="look",
        group="sky",
        out=out,
        overwrite=True,
        **(QUICK | {"strengths": [1.0]}),
    )
    assert {p.name for p in (out / "points").iterdir()} == {"alone.vpt", "1.0.vpt"}
    again.model.close()


def test_a_run_that_was_stopped_goes_on_only_with_the_same_groups(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vpt.fairness import tradeoff

    data, out, real, calls = table(tmp_path / "data"), tmp_path / "run", tradeoff.fit, [0]

    def stopping(*args, **kwargs):
        calls[0] += 1
        if calls[0] == 2:
            raise KeyboardInterrupt
        return real(*args, **kwargs)

    monkeypatch.setattr(tradeoff, "fit", stopping)
    settings = {"label": "look", "out": out, **QUICK}
    with pytest.raises(KeyboardInterrupt):
        reprogram(data, backbone(), "full", group="sky", **settings)
    with pytest.raises(TrainingError, match="holds a run that was stopped"):
        reprogram(data, backbone(), "full", group="sky", **settings)
    with pytest.raises(TrainingError, match="other settings"):
        reprogram(data, backbone(), "full", group="day", resume=True, **settings)
    assert (
        reprogram(data, backbone(), "full", group="sky", resume=True, **settings).file
        == out / "prompt.vpt"
    )


def test_numbers_are_those_of_the_model_that_is_given_back() -> None:
    data = Data(planted(60, 0), planted(60, 2), planted(100, 1), ["dull", "red"], [])
    result = reprogram(data, backbone(), "full", **QUICK)
    found = audit(data.test, result.model, progress=False)
    chosen = result.frontier.chosen.test.as_dict()
    assert {name: found[name] for name in chosen} == chosen
    bare = result.model.backbone
    result.model.close()
    assert (
        audit(data.test, bare, progress=False)["metrics"]
        == result.report["base"]["test"]["metrics"]
    )


def test_a_passed_recipe_wins(tmp_path: Path) -> None:
    data, recipe = table(tmp_path / "data"), vpt.Recipe(seed=7, epochs=1)
    columns = {"label": "look", "group": "sky"}
    result = reprogram(
        data, backbone(), "border:2", recipe=recipe, strengths=[1.0], progress=False, **columns
    )
    result.model.close()
    assert result.report["seed"] == result.report["recipe"]["seed"] == 7


def test_groups_of_two_columns(tmp_path: Path) -> None:
    found = audit(
        table(tmp_path / "data"), backbone(), label="look", group=["sky", "day"], progress=False
    )
    assert list(found["per_group"]) == ["blue, even", "blue, odd", "plain, even", "plain, odd"]
    assert found["small"]


def test_labels_are_matched_by_name_or_where_there_is_none_by_number(tmp_path: Path) -> None:
    named = audit(
        table(tmp_path / "a"), backbone(("dull", "red")), label="look", group="sky", progress=False
    )
    turned = audit(
        table(tmp_path / "b", names=("red", "dull")),
        backbone(("red", "dull")),
        label="look",
        group="sky",
        progress=False,
    )
    numbered = audit(
        table(tmp_path / "c", names=("0", "1")),
        backbone(None),
        label="look",
        group="sky",
        progress=False,
    )
    accuracies = [found["metrics"]["accuracy"]["value"] for found in (named, turned, numbered)]
    assert accuracies[0] == accuracies[1] == accuracies[2] > 0.8
    with pytest.raises(PromptError, match="2 of 2 classes are not among the model's own: no, yes"):
        audit(
            table(tmp_path / "d", names=("no", "yes")),
            backbone(),
            label="look",
            group="sky",
            progress=False,
        )
    with pytest.raises(PromptError, match="does not name its classes"):
        audit(
            table(tmp_path / "e", names=("no", "yes")),
            backbone(None),
            label="look",
            group="sky",
            progress=False,
        )


def test_wrong_input_is_said_before_training(tmp_path: Path) -> None:
    data = table(tmp_path / "data")
    with pytest.raises(DataError, match="have no groups"):
        reprogram(data, backbone(), "border:4", label="look", **QUICK)
    with pytest.raises(DataError, match="no group column race"):
        reprogram(data, backbone(), "border:4", label="look", group="race", **QUICK)
    with pytest.raises(PromptError):
        reprogram(data, backbone(), "border:16", label="look", group="sky", **QUICK)
    with pytest.raises(DataError, match="have no groups"):
        audit(data, backbone(), label="look", progress=False)


def test_a_readout_that_cannot_be_reprogrammed_is_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="Found readout='map:bayes'; needed is 'identity'"):
        reprogram(tmp_path / "nowhere.csv", "nowhere", readout="map:bayes")


def test_tokens_and_a_new_readout_are_reprogrammed_too() -> None:
    data = Data(planted(60, 0), planted(60, 2), None, ["dull", "red"], [])
    result = reprogram(data, backbone(), "deep:2", readout="linear", **QUICK)
    assert result.report["base"]["test"] is None
    assert "on validation" in result.report["verdict"]
    assert result.report["parameters_trained"]["readout"] > 0
    # a linear probe, to begin with
    assert result.report["base"]["val"]["metrics"]["accuracy"]["value"] > 0.8
    before = vpt.load_backbone(planted_model()).fingerprint()
    backbone_again = result.model.backbone
    result.model.close()
    assert backbone_again.fingerprint() == before


def test_queries_and_a_new_readout_are_reprogrammed_too() -> None:
    data = Data(planted(60, 0), planted(60, 2), None, ["dull", "red"], [])
    result = reprogram(data, backbone(), "queries:2", readout="linear", **QUICK)
    assert result.model.readout.named.text == "queries"
    assert result.report["base"]["val"]["metrics"]["accuracy"]["value"] > 0.8
    first, second = (point.learned for point in result.frontier.points)
    assert all(not torch.equal(first[name], second[name]) for name in ("prompt.queries",))
    result.model.close()
    with pytest.raises(PromptError, match="nothing reads them"):
        reprogram(data, backbone(), "queries:2", **QUICK)
    with pytest.raises(PromptError, match="under a prompt that acts on the model"):
        reprogram(data, backbone(), "border:2+queries:2", readout="linear", **QUICK)


@pytest.mark.parametrize("method", ["penalty", "adversary", "worst"])
def test_every_method(method: str) -> None:
    data = Data(planted(60, 0), planted(60, 2), None, ["dull", "red"], [])
    result = reprogram(
        data, backbone(), "full", method=method, criterion="eo", **(QUICK | {"strengths": [0.1]})
    )
    assert [p["strength"] for p in result.report["points"]] == [None, 0.1]
    assert all(torch.isfinite(v).all() for v in result.frontier.points[1].learned.values())


def test_a_data_set_is_audited_whole() -> None:
    data = planted(60, 0)
    items = [data[i] for i in range(60)]

    class Items(torch.utils.data.Dataset):
        classes = ("dull", "red")

        def __len__(self) -> int:
            return 60

        def __getitem__(self, i: int) -> tuple:
            return items[i]

    assert audit(Items(), backbone(), progress=False)["n"] == 60
    one = data.subset([i for i in range(60) if data.targets[i] == 0]).renamed(["dull"], [0] * 60)
    with pytest.raises(DataError, match="of 1 classes to audit"):
        audit(one, backbone(), progress=False)


@pytest.mark.long
@pytest.mark.parametrize(("kind", "lr", "strength"), [("CNN", 0.003, 30.0), ("AST", 0.005, 1.0)])
def test_other_kinds_of_models_lose_some_of_their_gap(
    kind: str, lr: float, strength: float
) -> None:
    if kind == "CNN":
        inputs, names = vpt.Images(size=(32, 32), mean=(0.5,) * 3, std=(0.25,) * 3), ["dull", "red"]
        parts = [planted(200, 0), planted(100, 2), planted(300, 1)]
        torch.manual_seed(0)
        model = with_planted_head(
            torchvision.models.resnet18(num_classes=2).eval(), "fc", parts[0], inputs
        )
    else:
        model, names = make("transformers AST"), ["soft", "shrill"]
        inputs = vpt.load_backbone(model).inputs
        parts = [
            planted_sounds(200, 0, inputs),
            planted_sounds(100, 2, inputs),
            planted_sounds(300, 1, inputs),
        ]
        model = with_planted_head(model, "classifier.dense", parts[0])
    opened = vpt.load_backbone(model, inputs=inputs, classes=names)
    data = Data(*parts, names, [])
    found = reprogram(
        data, opened, "full", epochs=8, lr=lr, strengths=[strength], budget=0.1, progress=False
    ).frontier
    gap = "average_odds_difference"
    assert found.base.value(gap, "test") > 0.3
    assert found.points[1].value(gap, "test") < 0.85 * found.base.value(gap, "test")
    assert (
        found.points[1].value("balanced_accuracy", "test")
        > found.base.value("balanced_accuracy", "test") - 0.03
    )


def test_the_usual_border_is_the_papers() -> None:
    data = Data(planted(60, 0), planted(60, 2), None, ["dull", "red"], [])
    result = reprogram(data, backbone(), **(QUICK | {"epochs": 1}))
    assert "a border 3 pixels wide" in result.report["prompt"]  # of 32
