"""What a run's checkpoint holds, and what is said of one that was altered or is another's."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from helpers import SETTINGS, colours, stop_at, tiny_model

import vpt
from vpt.errors import TrainingError
from vpt.files import pack, unpack
from vpt.training.checkpoints import (
    CHECKPOINT,
    Checkpoint,
    Position,
    digest,
    optimizer_tensors,
    restore_optimizer,
)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda h, t: h.pop("position"), "does not say where its run stands"),
        (lambda h, t: h["position"].update(x=1), "does not say where its run stands"),
        (lambda h, t: h["position"].update(epoch="x"), "does not say where its run stands"),
        (lambda h, t: h["position"].update(best=99), "does not say where its run stands"),
        (lambda h, t: h.pop("run"), "does not say where its run stands"),
        (lambda h, t: h.update(version=1), "of version 1; this vpt goes on from version"),
        (lambda h, t: t.pop("now.prompt.tokens"), "does not hold the whole state"),
        (lambda h, t: t.pop("best.readout.bias"), "does not hold the whole state"),
        (
            lambda h, t: [t.pop(name) for name in list(t) if name.startswith("optimizer")],
            "does not hold the whole state",
        ),
    ],
)
def test_a_checkpoint_that_was_altered_or_is_of_another_version_is_said(
    change, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hashed anew, some gave a KeyError, and one of another version was resumed without a word."""
    with monkeypatch.context() as patch:
        stop_at(patch, "finish_epoch", 3)
        with pytest.raises(KeyboardInterrupt):
            vpt.fit(tiny_model(), colours(), colours(seed=1), out=tmp_path, **SETTINGS)
    path = tmp_path / "checkpoint.safetensors"
    header, tensors = unpack(path.read_bytes(), "x")
    change(header, tensors)
    path.write_bytes(pack(tensors, header))
    with pytest.raises(TrainingError, match=message):
        vpt.fit(tiny_model(), colours(), colours(seed=1), out=tmp_path, resume=True, **SETTINGS)


def test_a_damaged_checkpoint_is_said(tmp_path: Path) -> None:
    (tmp_path / "checkpoint.safetensors").write_bytes(b"rubbish")
    with pytest.raises(TrainingError, match="not a sound vpt file"):
        vpt.fit(tiny_model(), colours(), out=tmp_path, resume=True, **SETTINGS)


def test_what_was_saved_is_what_is_loaded(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path, {"lr": 0.1, "seed": 0}, Accelerator())
    assert checkpoint.load(resume=True) is None
    rows = [{"epoch": 0, "val_loss": 0.5}]
    position = Position(epoch=2, update=3, sums=[1.0, 2.0, 3.0], rows=rows)
    checkpoint.save(position, {"now.x": torch.arange(3.0)})
    assert (tmp_path / CHECKPOINT).exists()
    again, tensors = checkpoint.load(resume=True)
    assert again == position
    assert tensors["now.x"].tolist() == [0, 1, 2]
    with pytest.raises(TrainingError, match="was stopped in epoch 2"):
        checkpoint.load(resume=False)
    other = Checkpoint(tmp_path, {"lr": 0.2, "seed": 0}, Accelerator())
    with pytest.raises(TrainingError, match=r"lr: was 0\.1, is 0\.2"):
        other.load(resume=True)


def test_a_run_without_a_folder_has_none() -> None:
    checkpoint = Checkpoint(None, {}, Accelerator())
    checkpoint.save(Position(), {})
    assert checkpoint.load(resume=True) is None
    assert not checkpoint.due()


def test_an_optimizer_comes_back() -> None:
    def stepped(count: int) -> torch.optim.Optimizer:
        p = torch.nn.Parameter(torch.ones(2))
        optimizer = torch.optim.AdamW([p])
        for _ in range(count):
            p.grad = torch.ones(2)
            optimizer.step()
        return optimizer

    tensors, fresh = optimizer_tensors(stepped(2), "optimizer"), stepped(0)
    restore_optimizer(fresh, tensors, "optimizer", begun=True)
    assert optimizer_tensors(fresh, "x").keys() == {"x.0.step", "x.0.exp_avg", "x.0.exp_avg_sq"}
    assert fresh.state_dict()["state"][0]["step"] == 2
    with pytest.raises(KeyError):
        restore_optimizer(stepped(0), {}, "optimizer", begun=True)
    assert optimizer_tensors(None, "none") == {}


def test_a_digest_is_of_values() -> None:
    assert digest({"a": 1, "b": [2]}) == digest({"b": [2], "a": 1}) != digest({"a": 1, "b": [3]})
