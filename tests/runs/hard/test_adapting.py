"""prompt="hard:N" from data to a file whose queries can be looked at."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from drawings import opened
from families import open_tiny
from helpers import colours

import vpt
from vpt.errors import PromptError, TrainingError
from vpt.runs.folder import inspect
from vpt.runs.hard import adapting as module
from vpt.training import side_by_side


@pytest.fixture(autouse=True)
def _few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(side_by_side, "STEPS", 10)
    monkeypatch.setattr(side_by_side, "FEWEST", 10)


def run(prompt: str = "hard:2", count: int = 30, **options: Any) -> vpt.Result:
    data = {"train": colours(count), "test": colours(15, 2)}
    return vpt.adapt(data, open_tiny("timm ViT"), prompt, progress=False, **options)


def test_queries_are_the_tokens_that_the_file_names(tmp_path: Path) -> None:
    result = run("hard:2@0,1", out=tmp_path)
    prompt = result.model.prompt
    assert isinstance(prompt, vpt.HardQueries)
    backbone = result.model.backbone
    x = torch.stack([colours(15, 2)[i][0] for i in range(5)])
    out = result.model.eval()(x)
    result.model.close()
    train = colours(30)  # a fifth of it was held out; names count within what was left
    tokens = backbone.record(torch.stack([train[i][0] for i in range(30)]))
    grid = backbone.inputs.shape[-1] // 8
    for block, rows, taken in zip(prompt.blocks, prompt.queries, prompt.taken, strict=True):
        for row, place in zip(rows, taken, strict=True):
            at = 1 + place["row"] * grid + place["column"]
            gaps = (tokens[block]["tokens"][:, at] - row).abs().amax(1)
            assert float(gaps.min()) < 1e-4
    again = vpt.load(tmp_path, backbone)
    assert torch.equal(again(x), out)
    assert again.prompt.taken == prompt.taken
    assert torch.equal(again.prompt.crops, prompt.crops)
    assert int(prompt.crops.max()) > 0
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert "real tokens instead of soft queries" in metrics["data"]["notes"][-1]
    assert {"prompt", "linear probe"} < metrics["parts"]["test"]["methods"].keys()
    assert "training never had" not in metrics["verdict"]
    again.close()


def test_inspect_draws_what_each_query_is(tmp_path: Path) -> None:
    run(out=tmp_path / "run").model.close()
    found = inspect(tmp_path / "run", tmp_path)
    assert [Path(path).name for path in found["pictures"]] == ["prompt-crops.png"]
    assert opened((tmp_path / "prompt-crops.png").read_bytes()).std() > 5
    assert opened((tmp_path / "run" / "crops.png").read_bytes()).std() > 5
    assert found["acts"].endswith("each a real token")


def test_it_explains_itself() -> None:
    with run().model as model:
        found = vpt.explain(model, colours(3)[0][0][None])
        total = found.maps.sum() + found.outside + found.rest
        assert torch.allclose(total, found.score[0], atol=1e-4)


def test_one_example_of_each_class_is_enough() -> None:
    with run(shots=1).model as model:
        assert isinstance(model.prompt, vpt.HardQueries)


def test_more_than_memory_holds_is_said_before_anything(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "BUDGET", 1000)
    with pytest.raises(TrainingError, match=r"GiB, and .* may be taken; needed are fewer"):
        run()


def test_windows_are_refused_before_the_pass() -> None:
    data = {"train": colours(12, size=64), "test": colours(6, 2, size=64)}
    with pytest.raises(PromptError, match=r"windows|one width"):
        vpt.adapt(data, open_tiny("timm Swin"), "hard:1@0", progress=False)


def test_wrong_requests_are_refused_before_anything_is_learned() -> None:
    with pytest.raises(TrainingError, match=r"Found epochs with hard queries"):
        run(epochs=3)
    with pytest.raises(TrainingError, match=r"readout"):
        run(readout="identity")
    with pytest.raises(PromptError, match=r"not chosen yet"):
        run("hard:2+deep:2")
    with pytest.raises(PromptError, match="tokens to choose from for 4000 queries"):
        run("hard:4000")
