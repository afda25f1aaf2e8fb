"""The training loop of both backbones: Muon and AdamW, a rate that falls to zero at the end, a
state that resumes exactly.
"""

from __future__ import annotations

import csv
import json
import math
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from vpt.report.progress import progress_bar


@dataclass
class Schedule:
    """How long and how fast. decay: the share of the steps, the last ones, in which the rate falls
    linearly to zero.
    """

    steps: int
    batch: int
    lr: float
    weight_decay: float
    warmup: int
    decay: float
    seed: int
    clip: float = 1.0
    save_every: int = 250

    def rate(self, step: int) -> float:
        """The factor on the learning rate at `step`."""
        rest = (self.steps - step) / max(1.0, self.decay * self.steps)
        return min(1.0, (step + 1) / max(1, self.warmup), rest)


def optimizers(model: nn.Module, schedule: Schedule) -> list[torch.optim.Optimizer]:
    """Muon (orthogonalised momentum) for the matrices inside the blocks, AdamW for all else;
    vectors do not decay.
    """
    inside = {
        n: p
        for n, p in model.named_parameters()
        if p.ndim == 2 and (".layer" in n or "blocks." in n)
    }
    others = [p for n, p in model.named_parameters() if n not in inside]
    groups = [
        {"params": [p for p in others if p.ndim > 1], "weight_decay": schedule.weight_decay},
        {"params": [p for p in others if p.ndim <= 1], "weight_decay": 0.0},
    ]
    adam = torch.optim.AdamW(groups, lr=schedule.lr, betas=(0.9, 0.99))
    if not inside:  # a CNN
        return [adam]
    muon = torch.optim.Muon(
        inside.values(),
        lr=schedule.lr,
        weight_decay=schedule.weight_decay,
        adjust_lr_fn="match_rms_adamw",
    )
    return [muon, adam]


def train(
    accelerator: Accelerator,
    model: nn.Module,
    loss: Callable[[nn.Module, int, int, int], Tensor],
    schedule: Schedule,
    out: Path,
    evaluate: Callable[[nn.Module], float],
    until: int | None = None,
) -> nn.Module:
    """Train `model` in place, continuing from `out/state` where there is one, and return it.

    loss(model, step, rank, processes): the loss of this process's share of the batch of `step`.
    Whatever is drawn in it comes from torch's generator, which is seeded by the step, so that a run
    that was killed goes on as if it had not been. evaluate: an accuracy in [0,1], logged with the
    loss in `out/log.csv` whenever the state is saved. until: stop after this step.
    """
    model.train()
    prepared, *steppers = accelerator.prepare(model, *optimizers(model, schedule))
    first = _resume(accelerator, out, schedule)
    last = schedule.steps if until is None else min(until, schedule.steps)
    seen, start, losses = time.monotonic(), first, []
    with progress_bar(accelerator.is_main_process) as bar:
        task = bar.add_task("training", total=schedule.steps, completed=first)
        for step in range(first, last):
            torch.manual_seed(
                (schedule.seed * 1_000_003 + step) * 1_009 + accelerator.process_index
            )
            for stepper in steppers:
                for group in stepper.param_groups:
                    group["lr"] = schedule.lr * schedule.rate(step)
            value = loss(prepared, step, accelerator.process_index, accelerator.num_processes)
            accelerator.backward(value)
            norm = accelerator.clip_grad_norm_(prepared.parameters(), schedule.clip)
            for stepper in steppers:
                stepper.step()
                stepper.zero_grad()
            losses.append(value.detach() + 0 * norm)  # not finite where either is not
            bar.update(task, completed=step + 1)
            if (step + 1) % schedule.save_every == 0 or step + 1 == last:
                mean = accelerator.reduce(torch.stack(losses).mean(), "mean").item()
                if not math.isfinite(mean):
                    raise SystemExit(
                        f"The loss is not finite after step {step + 1}; {out}/state holds the last"
                        " good state."
                    )
                row = {"step": step + 1, "loss": mean, "accuracy": _evaluated(evaluate, model)}
                row |= {"seconds_a_step": (time.monotonic() - seen) / (step + 1 - start)}
                _save(accelerator, out, schedule, step + 1, row)
                seen, start, losses = time.monotonic(), step + 1, []
    return model


def share(total: int, schedule: Schedule, step: int, rank: int, processes: int) -> Tensor:
    """Which of `total` examples make this process's share of the batch of `step`, each once an
    epoch, in rising order.
    """
    epoch = total // schedule.batch
    order = torch.randperm(
        total, generator=torch.Generator().manual_seed(schedule.seed + step // epoch)
    )
    return order[step % epoch * schedule.batch :][: schedule.batch][rank::processes].sort().values


def half(model: nn.Module) -> dict[str, Tensor]:
    """The weights as they are shipped: fp16 (counts as they are), on the CPU."""
    state = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    return {
        name: value.half() if value.is_floating_point() else value for name, value in state.items()
    }


def _evaluated(evaluate: Callable[[nn.Module], float], model: nn.Module) -> float:
    model.eval()
    with torch.no_grad():
        value = evaluate(model)
    model.train()
    return value


def _save(
    accelerator: Accelerator, out: Path, schedule: Schedule, step: int, row: dict[str, float]
) -> None:
    """The state under a temporary name, then renamed: a kill leaves the old one or the new one."""
    accelerator.save_state(str(out / "state.part"))
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        (out / "state.part" / "progress.json").write_text(
            json.dumps({"step": step, "schedule": asdict(schedule)})
        )
        if (out / "state").exists():
            shutil.rmtree(out / "state.old", ignore_errors=True)
            os.rename(out / "state", out / "state.old")
        os.rename(out / "state.part", out / "state")
        new = not (out / "log.csv").exists()
        with (out / "log.csv").open("a", newline="") as file:
            writer = csv.DictWriter(file, list(row))
            if new:
                writer.writeheader()
            writer.writerow(row)
        print(", ".join(f"{k} {v:.4g}" for k, v in row.items()), flush=True)
    accelerator.wait_for_everyone()


def _resume(accelerator: Accelerator, out: Path, schedule: Schedule) -> int:
    """Load the newest whole state and return its step; 0 where there is none."""
    out.mkdir(parents=True, exist_ok=True)
    for folder in (out / "state", out / "state.old"):
        if (folder / "progress.json").exists():
            found = json.loads((folder / "progress.json").read_text())
            free = ("steps", "decay", "save_every")
            other = {
                k: v
                for k, v in found["schedule"].items()
                if k not in free and v != getattr(schedule, k)
            }
            if other:
                raise SystemExit(
                    f"{folder} was trained with {other}; give the same settings, or another --out."
                )
            accelerator.load_state(str(folder))
            return int(found["step"])
    return 0
