"""Fitting: exact under accumulation, processes and kills; the best prompt kept; divergence
survived.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from families import open_tiny
from helpers import SETTINGS, colours, state, tiny_model
from helpers import main as tasks_main

import vpt
from vpt.errors import DataError, TrainingError
from vpt.training.plan import batches, schedule

HERE = Path(__file__).parents[1]
ENVIRONMENT = os.environ | {
    "OMP_NUM_THREADS": "1",
    "PYTHONPATH": os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")]),
    "ACCELERATE_USE_CPU": "true",
    "CUDA_VISIBLE_DEVICES": "",
}


def test_equals_a_loop_written_by_hand() -> None:
    data, model, twin = colours(), tiny_model(), tiny_model()
    history = vpt.fit(model, data, **(SETTINGS | {"epochs": 2}))
    optimizer = torch.optim.AdamW(
        [
            {"params": twin.prompt.parameters(), "lr": 0.05},
            {"params": twin.readout.parameters(), "lr": 0.025},
        ],
        weight_decay=1e-4,
    )
    base, update = [0.05, 0.025], 0
    for epoch in (1, 2):
        for batch in batches(48, 10, 0, epoch):
            x, y = (
                torch.stack([data[i][0] for i in batch]),
                torch.tensor([data[i][1] for i in batch]),
            )
            for group, lr in zip(optimizer.param_groups, base, strict=True):
                group["lr"] = lr * schedule(update, 10, 0.1)
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(twin(x), y).backward()
            optimizer.step()
            update += 1
    assert torch.allclose(state(model), state(twin), atol=1e-6)
    assert [row["epoch"] for row in history.rows] == [0, 1, 2]


def test_it_learns_and_keeps_the_best_epoch() -> None:
    model, val = tiny_model(), colours(24, seed=1)
    history = vpt.fit(model, colours(), val, **(SETTINGS | {"epochs": 40, "readout_lr": 1.0}))
    ranks = [-row["val_loss"] for row in history.rows]
    assert history.best == ranks.index(max(ranks))
    assert vpt.evaluate(model, val)["accuracy"] == history.rows[history.best]["val_accuracy"] > 0.9
    assert vpt.evaluate(model, val)["loss"] == pytest.approx(history.rows[history.best]["val_loss"])


def test_nearest_mean_learns_by_update() -> None:
    backbone = open_tiny("timm ViT")
    model = vpt.PromptedModel(backbone, None, vpt.NearestMean(32, ["red", "green", "blue"]))
    data = colours()
    vpt.fit(model, data, progress=False)
    features = torch.stack([backbone.features(data[i][0][None])[0] for i in range(48)])
    means = torch.stack([features[torch.tensor(data.targets) == c].mean(0) for c in range(3)])
    assert torch.allclose(model.readout.sums / model.readout.counts[:, None], means, atol=1e-5)
    model.swap(vpt.DeepTokens.like(backbone, 2))
    rows = vpt.fit(model, data, data, epochs=4, lr=0.1, progress=False).rows
    assert min(row["val_loss"] for row in rows[1:]) < rows[0]["val_loss"]


def test_random_numbers_of_the_caller_are_left_alone() -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    model = tiny_model(dropout=0.3)
    torch.manual_seed(7)
    vpt.fit(model, colours(), **(SETTINGS | {"epochs": 1}))
    assert torch.equal(torch.rand(3), expected)


def test_an_objective_that_is_none() -> None:
    with pytest.raises(TrainingError, match="Found str as objective"):
        vpt.fit(tiny_model(), colours(), objective="foo", **SETTINGS)


def test_wrong_data() -> None:
    model = tiny_model()
    with pytest.raises(DataError, match="Classes of the data that the model does not have: violet"):
        vpt.fit(
            model, vpt.data.Examples(lambda i: torch.rand(3, 32, 32), [0, 1], ["violet", "red"])
        )
    with pytest.raises(DataError, match="label 7"):
        vpt.fit(
            model, torch.utils.data.TensorDataset(torch.rand(2, 3, 32, 32), torch.tensor([0, 7]))
        )
    with pytest.raises(DataError, match="without examples"):
        vpt.fit(model, colours().subset([]))
    with pytest.raises(vpt.errors.InputError, match="Divide by 255"):
        vpt.fit(
            model,
            torch.utils.data.TensorDataset(
                torch.zeros(2, 3, 32, 32, dtype=torch.uint8), torch.tensor([0, 1])
            ),
        )


def test_labels_are_matched_by_name_never_by_order() -> None:
    model, data = tiny_model(), colours(24, seed=1)
    vpt.fit(model, colours(), data, **SETTINGS)
    names = ["blue", "red", "green"]
    turned = vpt.data.Examples(data.get, [names.index(data.classes[y]) for y in data.labels], names)
    assert vpt.evaluate(model, turned) == vpt.evaluate(model, data)


def test_sound_at_another_rate_is_refused() -> None:
    backbone = open_tiny("user's keyword transformer")
    model = vpt.PromptedModel(backbone, None, vpt.Linear(24, 2))
    data = vpt.data.Examples(lambda i: torch.randn(20, 8), [0, 1], ["a", "b"], sample_rate=16000)
    with pytest.raises(DataError, match="16000 Hz; this backbone needs 8000 Hz"):
        vpt.fit(model, data)


# resuming -------------------------------------------------------------------------------
def script(out: Path, epochs: int, dropout: float, *kinds: str) -> list[str]:
    return [sys.executable, str(HERE / "helpers.py"), str(out), str(epochs), str(dropout), *kinds]


def kill_and_resume(tmp_path: Path, runs: int, kills: int, kind: str) -> None:
    """`runs` runs, each killed `kills` times at random moments before it may end, must all end with
    the undisturbed bytes.
    """
    start = time.monotonic()
    subprocess.run(
        script(tmp_path / "whole", 6, 0.2, kind), env=ENVIRONMENT, check=True, capture_output=True
    )
    length, draw = time.monotonic() - start, random.Random(0)
    expected = (tmp_path / "whole" / kind / "final.vpt").read_bytes()
    for number in range(runs):
        out = tmp_path / f"cut{number}"
        for _ in range(kills):
            process = subprocess.Popen(
                script(out, 6, 0.2, kind),
                env=ENVIRONMENT,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            time.sleep(length * draw.uniform(0.5, 1.0))  # the first half is importing
            process.kill()
            process.wait()
        subprocess.run(script(out, 6, 0.2, kind), env=ENVIRONMENT, check=True, capture_output=True)
        assert (out / kind / "final.vpt").read_bytes() == expected
        assert not [p for p in (out / kind).iterdir() if p.suffix == ".tmp"]


KINDS = [
    "linear-plain",
    "map-plain",
    "linear-fair-dp",
    "linear-fair-eo",
    "linear-gap",
    "linear-worst",
]


@pytest.mark.long
@pytest.mark.parametrize("kind", ["linear-plain", "linear-fair-eo", "map-plain", "linear-gap"])
def test_kill_9_then_resume(tmp_path: Path, kind: str) -> None:
    kill_and_resume(tmp_path, 1, 1, kind)


@pytest.mark.long
def test_kill_9_at_a_hundred_random_moments(tmp_path: Path) -> None:
    kill_and_resume(tmp_path, 20, 5, "linear-plain")


@pytest.mark.parametrize(
    "kinds", [["map-plain", "linear-fair-eo"], pytest.param(KINDS, marks=pytest.mark.long)]
)
def test_two_processes_equal_one(kinds: list[str], tmp_path: Path) -> None:
    tasks_main(str(tmp_path / "one"), "2", "0.0", *kinds)
    # not `accelerate launch --cpu`, which without MPI starts one process only
    command = [
        "-m",
        "torch.distributed.run",
        "--nproc_per_node",
        "2",
        "--master_port",
        str(20000 + os.getpid() % 20000),
    ]
    done = subprocess.run(
        [sys.executable, *command, *script(tmp_path / "two", 2, 0.0, *kinds)[1:]],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("2 processes") == 2
    for kind in kinds:
        one, two = (vpt.files.read(tmp_path / n / kind / "final.vpt")[1] for n in ("one", "two"))
        assert one.keys() == two.keys()
        assert all(torch.allclose(one[name], two[name], atol=1e-5) for name in one), kind
        rows = [
            [
                json.loads(line)
                for line in (tmp_path / n / kind / "history.jsonl").read_text().splitlines()
            ]
            for n in ("one", "two")
        ]
        assert rows[0][-1]["val_loss"] == pytest.approx(rows[1][-1]["val_loss"], abs=1e-5)
        assert rows[0][-1]["loss"] == pytest.approx(rows[1][-1]["loss"], abs=1e-4)
