"""Fitting: exact under accumulation, processes and kills; the best prompt kept; divergence
survived.
"""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest
import torch
from families import open_tiny
from helpers import OBJECTIVES, SETTINGS, colours, stop_at, tiny_model
from helpers import main as tasks_main

import vpt
from vpt.errors import DataError, DivergedError, PromptError, TrainingError
from vpt.files import learned, pack, unpack
from vpt.objectives import Objective
from vpt.runs.probe import fit_probe
from vpt.training.evaluation import scores
from vpt.training.plan import batches, schedule

HERE = Path(__file__).parents[1]
ENVIRONMENT = os.environ | {
    "OMP_NUM_THREADS": "1",
    "PYTHONPATH": str(HERE),
    "ACCELERATE_USE_CPU": "true",
    "CUDA_VISIBLE_DEVICES": "",
}


def state(model: vpt.PromptedModel) -> torch.Tensor:
    return torch.cat([v.flatten() for v in learned(model).values()])


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


@pytest.mark.parametrize("name", OBJECTIVES)
def test_accumulation_changes_nothing(name: str) -> None:
    one, four = tiny_model(), tiny_model()
    vpt.fit(one, colours(), objective=OBJECTIVES[name](), **SETTINGS)
    vpt.fit(four, colours(), objective=OBJECTIVES[name](), accumulate=4, **SETTINGS)
    assert torch.allclose(state(one), state(four), atol=1e-5)


def test_losses_are_combined_by_the_objective() -> None:
    class Projected(Objective):
        """g_u minus its part along g_a, on the prompt only, as fairness will need."""

        def losses(self, logits, y, group=None):
            return {"u": torch.nn.functional.cross_entropy(logits, y), "a": logits.square().mean()}

        def combine(self, gradients):
            u, a = gradients["u"], gradients["a"]
            unit = a["prompt"] / a["prompt"].norm()
            self.seen = (u["prompt"], a["prompt"])
            return {"prompt": u["prompt"] - (u["prompt"] @ unit) * unit, "readout": u["readout"]}

    model, data, objective = tiny_model(), colours(8), Projected()
    before = tiny_model()
    batch = batches(8, 8, 0, 1)[0]
    x, y = torch.stack([data[i][0] for i in batch]), torch.tensor([data[i][1] for i in batch])
    logits = before(x)
    tokens = before.prompt.tokens
    u = torch.autograd.grad(
        torch.nn.functional.cross_entropy(logits, y), tokens, retain_graph=True
    )[0].flatten()
    a = torch.autograd.grad(logits.square().mean(), tokens)[0].flatten()
    vpt.fit(
        model,
        data,
        objective=objective,
        **(SETTINGS | {"epochs": 1, "batch_size": 8, "accumulate": 2}),
    )
    assert torch.allclose(objective.seen[0], u, atol=1e-6)
    assert torch.allclose(objective.seen[1], a, atol=1e-6)


def begins_at(
    scale: float, **settings: object
) -> tuple[vpt.PromptedModel, vpt.training.loop.History, dict]:
    """A model whose tokens begin `scale` times as large, trained; and its state before."""
    model = tiny_model()
    with torch.no_grad():
        model.prompt.tokens.mul_(scale / model.prompt.tokens.square().mean().sqrt())
    before = {name: value.clone() for name, value in learned(model).items()}
    return model, vpt.fit(model, colours(), colours(24, seed=1), **(SETTINGS | settings)), before


def test_the_rate_is_in_units_of_what_the_prompt_begins_as() -> None:
    """Tokens as large as a backbone's own would barely move at the rate of small ones; the
    readout's rate is its own.
    """
    steps = {}
    for scale in (0.1, 1.0, 8.0):
        # one update, at the peak
        model, _, before = begins_at(scale, epochs=1, batch_size=48, warmup=0.0, weight_decay=0.0)
        moved = {
            name: float((value - before[name]).abs().max())
            for name, value in learned(model).items()
        }
        steps[scale] = moved["prompt.tokens"], moved["readout.weight"]
    for scale, expected in ((0.1, 0.05), (1.0, 0.05), (8.0, 0.4)):
        assert steps[scale] == pytest.approx((expected, 0.025), rel=2e-3)


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


def ready() -> vpt.PromptedModel:
    """A model whose readout begins at a probe."""
    model = tiny_model()
    model.readout.load_state_dict(
        fit_probe(*scores(model, colours(96), outputs=True), ["red", "green", "blue"])[
            0
        ].state_dict()
    )
    return model


def test_divergence_keeps_the_last_good_prompt() -> None:
    model = tiny_model()

    class Breaks(vpt.Classification):
        calls = 0

        def losses(self, logits, y, group=None):
            self.calls += 1
            return {
                "x": (
                    super().losses(logits, y)["cross_entropy"]
                    * (float("nan") if self.calls > 7 else 1.0)
                )
            }

    # past the watched part of the run
    with pytest.raises(DivergedError, match=r"epoch 2.*smaller lr"):
        vpt.fit(model, colours(), colours(24, seed=1), objective=Breaks(), **SETTINGS)
    good = tiny_model()
    vpt.fit(good, colours(), colours(24, seed=1), **(SETTINGS | {"epochs": 3}))
    assert torch.isfinite(state(model)).all()
    assert vpt.evaluate(model, colours(24, seed=1))["accuracy"] >= 1 / 3


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


def test_bf16_runs_and_stays_near() -> None:
    plain, half = tiny_model(), tiny_model()
    vpt.fit(plain, colours(), **SETTINGS)
    vpt.fit(half, colours(), precision="bf16", **SETTINGS)
    assert 0 < (state(plain) - state(half)).norm() / state(plain).norm() < 0.3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": 0}, "epochs=0"),
        ({"lr": -1.0}, "lr=-1"),
        ({"lr": float("nan")}, "lr=nan"),
        ({"precision": "fp8"}, "precision"),
        ({"augment": "mixup"}, "augment"),
        ({"learning_rate": 1.0}, "learning_rate; known are epochs"),
        ({"accumulate": 0}, "accumulate"),
    ],
)
def test_wrong_settings(settings, message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        vpt.fit(tiny_model(), colours(), **settings)


def test_an_objective_that_is_none() -> None:
    with pytest.raises(TrainingError, match="Found str as objective"):
        vpt.fit(tiny_model(), colours(), objective="foo", **SETTINGS)


@pytest.mark.long
def test_compiled_training_gives_the_same() -> None:
    plain, compiled = tiny_model(), tiny_model()
    torch._dynamo.reset()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of dynamo itself
        vpt.fit(compiled, colours(), compile="aot_eager", **(SETTINGS | {"epochs": 1}))
    vpt.fit(plain, colours(), **(SETTINGS | {"epochs": 1}))
    assert torch.allclose(state(compiled), state(plain), atol=1e-4)
    assert "outputs" not in compiled.__dict__


def test_a_compiler_that_fails_is_said() -> None:
    def broken(graph: object, inputs: object) -> object:
        raise RuntimeError("no C++ compiler here")

    torch._dynamo.reset()
    torch._dynamo.register_backend(broken, name="broken")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(
            TrainingError,
            match=r"\(broken\) failed on this model.*no C\+\+ compiler.*without compile",
        ):
            vpt.fit(tiny_model(), colours(), compile="broken", **SETTINGS)


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


def test_stopped_and_resumed_in_process_is_bit_equal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vpt.training import checkpoints

    monkeypatch.setattr(checkpoints, "EVERY_SECONDS", -1.0)  # after every update
    settings, val = SETTINGS | {"augment": "crop"}, colours(24, seed=1)
    whole = tiny_model(dropout=0.2)
    rows = vpt.fit(whole, colours(), val, out=tmp_path / "whole", **settings).rows
    stop_at(monkeypatch, "_step", 8)  # within epoch 2
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
    stop_at(monkeypatch, "_step", moment)
    with pytest.raises(KeyboardInterrupt):
        vpt.fit(ready(), colours(96), val, out=tmp_path, **settings)
    again = ready()
    assert vpt.fit(again, colours(96), val, out=tmp_path, resume=True, **settings) == history
    assert torch.equal(state(whole), state(again))


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
        stop_at(patch, "_finish_epoch", 3)
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


@pytest.mark.parametrize(
    "given",
    [
        {"epochs": 1.5},
        {"epochs": True},
        {"epochs": "2"},
        {"batch_size": 2.5},
        {"seed": -1},
        {"lr": 1e39},
        {"lr": "0.1"},
        {"lr": float("nan")},
        {"readout_lr": 1e30},
        {"weight_decay": -1.0},
        {"weight_decay": float("nan")},
        {"workers": -1},
    ],
)
def test_settings_that_are_no_such_numbers_are_refused_at_once(given: dict) -> None:
    with pytest.raises(TrainingError, match=r"needed (is|are)"):
        vpt.fit(tiny_model(), colours(), **(SETTINGS | given))
