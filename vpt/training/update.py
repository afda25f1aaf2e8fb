"""One update: gradients over micro-batches and processes, what the objective makes of them, and a
step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor

from vpt.data import augment
from vpt.errors import DivergedError
from vpt.files import restore
from vpt.objectives import Gradients
from vpt.training.counting import adding_up
from vpt.training.evaluation import Batch, tasks_of
from vpt.training.gradients import add_gradients, no_gradients, reduce_gradients
from vpt.training.plan import schedule
from vpt.training.state import State
from vpt.training.steadying import MOST_CUTS, leaves, noted, watched


def update(
    state: State, micro_batches: Sequence[tuple[list[int], Batch]], size: int, number: int
) -> bool:
    """Learn from an update of `size` examples over all processes, the run's `number`-th; False
    where training left its start by far, and nothing was learned.

    micro_batches: this process's (positions, batch). Raises `DivergedError`, with the best prompt
    in the model.
    """
    position = state.position
    gradients, sums = _gradients(state, micro_batches, size)
    before = position.sums or [0.0] * len(sums)
    position.sums = [a + b for a, b in zip(before, sums, strict=True)]
    combined = state.objective.combine(gradients)
    finite = all(bool(torch.isfinite(g).all()) for g in combined.values())
    broken = not torch.isfinite(torch.tensor(sums)).all() or not (finite or state.scaled)
    # an objective that does not aim at the least loss may raise it on purpose
    aims = state.objective.keeps_best
    if aims and watched(number, state.total) and position.cuts < MOST_CUTS:
        loss = sums[0] / sums[2] if not broken else float("nan")
        position.losses = noted(position.losses, loss)
        if len(position.losses) > 1 and leaves(position.losses):
            return False
    if broken:
        restore(state.model, state.best)
        raise DivergedError(
            f"Training diverged in epoch {position.epoch}: the loss or its gradient is not"
            f" finite. The model holds the prompt of epoch {position.best}. Use a smaller"
            f" lr (now {state.recipe.lr:g}), or precision='no'."
        )
    step(state, combined, schedule(number, state.total, state.recipe.warmup))
    return True


def step(state: State, combined: dict[str, Tensor], factor: float) -> None:
    """Step along the combined gradients of each part. factor: on the peak of the rates."""
    # the optimizer of accelerate unscales again, and skips an overflow under fp16
    scale = state.scale
    for part, values in state.parts.items():
        back = scale if part != "objective" else 1.0
        pieces = combined[part].split([p.numel() for p in values])
        for parameter, gradient in zip(values, pieces, strict=True):
            parameter.grad = (gradient * back).view_as(parameter).to(parameter.dtype)
    if state.optimizer is not None:
        for group in state.optimizer.param_groups:
            group["lr"] = group["peak"] * factor
        state.optimizer.step()
        state.optimizer.zero_grad()
    if state.objective_optimizer is not None:
        # else an overflow under fp16, which the other skips too
        if torch.isfinite(combined["objective"]).all():
            state.objective_optimizer.step()
        state.objective_optimizer.zero_grad()


def _gradients(
    state: State, micro_batches: Sequence[tuple[list[int], Batch]], size: int
) -> tuple[Gradients, list[float]]:
    """(the gradient of every loss, over all processes; sums of the shown loss, of those that were
    right, and of examples).
    """
    gradients: Gradients = {}
    sums = torch.zeros(3, dtype=torch.float64)
    with adding_up(state.model.readout, state.objective, state.accelerator):
        for positions, batch in micro_batches:
            state.objective.batch = torch.tensor(positions)
            losses, shown, right = _losses(state, batch)
            count = len(batch[1])
            add_gradients(gradients, losses, state.parts, count / size * state.scale)
            sums += torch.tensor([shown * count, right, count])
    state.objective.batch = None
    return _reduced(state, gradients, sums)


def _losses(state: State, batch: Batch) -> tuple[dict[str, Tensor], float, float]:
    """(the objective's losses, what the first of them is shown as, how many were right); the
    prompt's penalty joins the first.
    """
    model = state.model
    y = torch.as_tensor(batch[1]).to(state.accelerator.device)
    group = torch.as_tensor(batch[2]).to(y.device) if len(batch) > 2 else None
    generator = torch.Generator().manual_seed(torch.initial_seed() % (1 << 63))
    # which says so itself where these are no images
    x = augment(cast(Tensor, batch[0]), state.recipe.augment, generator)
    with state.accelerator.autocast(), model.asked(tasks_of(model, batch)):
        outputs = model.outputs(x)
        logits = model.readout(outputs)
    if model.readout.refresh == "reuse":
        model.readout.update(outputs.detach(), y)
    losses = state.objective.losses(logits.float(), y, group)
    first, penalty = next(iter(losses)), model.prompt.penalty()
    shown = float(losses[first].detach())
    if penalty is not None:
        losses[first] = losses[first] + penalty
    return losses, shown, float((logits.detach().argmax(1) == y).sum())


def _reduced(state: State, gradients: Gradients, sums: Tensor) -> tuple[Gradients, list[float]]:
    """Both summed over processes (each gradient is already weighted by its share of the update),
    and gradients unscaled.
    """
    accelerator = state.accelerator
    if accelerator.num_processes > 1:
        gradients = gradients or no_gradients(_loss_names(state), state.parts)
        gradients = reduce_gradients(gradients, accelerator)
        sums = accelerator.reduce(sums.float().to(accelerator.device), "sum").double().cpu()
    scale = state.scale
    unscaled = {
        name: {part: gradient / scale for part, gradient in parts.items()}
        for name, parts in gradients.items()
    }
    return unscaled, sums.tolist()


def _loss_names(state: State) -> list[str]:
    """The names of the losses, for a process that has no example in this update."""
    count = state.model.readout.count or 1
    y = torch.zeros(1, dtype=torch.long, device=state.accelerator.device)
    names = list(state.objective.eval().losses(torch.zeros(1, count, device=y.device), y, y))
    state.objective.train()
    return names
