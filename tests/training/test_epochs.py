"""The epochs of a run: resumed to the bit after a kill, begun anew where they leave their start."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from helpers import SETTINGS, colours, ready, state, stop_at, tiny_model

import vpt
from vpt.errors import PromptError, TrainingError


def test_a_run_that_leaves_its_start_begins_anew_at_a_lower_rate(
    capsys: pytest.CaptureFixture,
) -> None:
    """From a readout that knows nearly all, a rate that is far too high destroyed it in one epoch,
    and nothing was said.
    """
    model = ready()
    rows = vpt.fit(
        model,
        colours(96),
        colours(24, seed=1),
        **(SETTINGS | {"lr": 300.0, "epochs": 10, "progress": True}),
    )
    said = " ".join(capsys.readouterr().err.split())
    assert rows.cuts >= 1
    assert re.search(r"The loss went from \S+ to \S+ in \d+ updates: .* training begins anew", said)
    assert [row["epoch"] for row in rows.rows] == list(range(11))
    # as if it had been told the lower rate
    told = ready()
    again = vpt.fit(
        told,
        colours(96),
        colours(24, seed=1),
        **(SETTINGS | {"lr": 300.0 / 4**rows.cuts, "epochs": 10}),
    )
    assert again.cuts == 0
    assert again.rows == rows.rows
    assert torch.equal(state(model), state(told))


def test_a_prompt_that_reaches_nothing_raises() -> None:
    import transformers
    from families import HF_AST

    # 40 bins: patches of 16 every 10 read the first 36, so a patch in the last 4 is never seen
    backbone = vpt.load_backbone(
        transformers.ASTForAudioClassification(
            transformers.ASTConfig(**HF_AST | {"num_mel_bins": 40})
        )
    )
    model = vpt.PromptedModel(
        backbone, vpt.Patch.like(backbone, 4, corner="top_right"), vpt.Identity()
    )
    x = backbone.inputs.example(8)
    data = torch.utils.data.TensorDataset(x, torch.arange(8) % 4)
    with pytest.raises(PromptError, match="reaches nothing"):
        vpt.fit(model, data, epochs=2, progress=False)


def test_stopped_and_resumed_in_process_is_bit_equal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vpt.training import checkpoints

    monkeypatch.setattr(checkpoints, "EVERY_SECONDS", -1.0)  # after every update
    settings, val = SETTINGS | {"augment": "crop"}, colours(24, seed=1)
    whole = tiny_model(dropout=0.2)
    rows = vpt.fit(whole, colours(), val, out=tmp_path / "whole", **settings).rows
    stop_at(monkeypatch, "step", 8)  # within epoch 2
    with pytest.raises(KeyboardInterrupt):
        vpt.fit(tiny_model(dropout=0.2), colours(), val, out=tmp_path / "cut", **settings)
    with pytest.raises(TrainingError, match=r"stopped in epoch 2.*resume=True"):
        vpt.fit(tiny_model(), colours(), val, out=tmp_path / "cut", **settings)
    with pytest.raises(TrainingError, match=r"lr: was 0\.05, is 0\.5"):
        vpt.fit(
            tiny_model(dropout=0.2),
            colours(),
            val,
            out=tmp_path / "cut",
            resume=True,
            **(settings | {"lr": 0.5}),
        )
    again = tiny_model(dropout=0.2)
    assert (
        vpt.fit(again, colours(), val, out=tmp_path / "cut", resume=True, **settings).rows == rows
    )
    assert torch.equal(state(whole), state(again))
    lines = [
        json.loads(line) for line in (tmp_path / "cut" / "history.jsonl").read_text().splitlines()
    ]
    assert lines == rows


# before the cut, and after it
@pytest.mark.parametrize("moment", [pytest.param(3, marks=pytest.mark.long), 9])
def test_a_run_that_was_cut_resumes_to_the_bit(
    moment: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vpt.training import checkpoints

    monkeypatch.setattr(checkpoints, "EVERY_SECONDS", -1.0)
    settings, val = SETTINGS | {"lr": 300.0, "epochs": 4}, colours(24, seed=1)
    whole = ready()
    history = vpt.fit(whole, colours(96), val, **settings)
    assert history.cuts
    stop_at(monkeypatch, "step", moment)
    with pytest.raises(KeyboardInterrupt):
        vpt.fit(ready(), colours(96), val, out=tmp_path, **settings)
    again = ready()
    assert vpt.fit(again, colours(96), val, out=tmp_path, resume=True, **settings) == history
    assert torch.equal(state(whole), state(again))
