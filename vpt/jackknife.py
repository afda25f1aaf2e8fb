"""Which training examples make a prompt unfair or wrong, and the prompt without them, without refitting (FairIJ).

The fair infinitesimal jackknife (Sattigeri et al. 2022) on what was learned alone, prompt and readout: θ are a few thousand
numbers, so that every example's gradient is kept and the linear system is solved exactly.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call, jacrev, vmap
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.data import default_collate

from vpt.data import Examples
from vpt.errors import DataError, TrainingError
from vpt.evaluation import evaluate, matched
from vpt.model import PromptedModel
from vpt.progress import progress_bar

MEASURES = ("dp", "eopp", "eo", "loss")
KINK = 1e-3  # |u| is taken as √(u² + KINK²), which has a slope at 0
BYTES = 8 << 30  # of gradients kept at once


@dataclass
class Influence:
    """What each training example does to a measure on validation, and the means to take some of them out.

    values `[N]`: how much the measure would rise if the example counted a little more, −∇Mᵀ H⁻¹ g; those above zero make it
    worse. measure: its value on validation as things stand.
    """

    model: PromptedModel
    train: Examples
    val: Examples
    of: str
    values: Tensor
    measure: float
    _change: Tensor  # [N,P]: H⁻¹ g of every example, what leaving it out adds to θ
    _before: dict[str, Tensor] = field(default_factory=dict)

    def ranked(self, count: int | None = None) -> list[dict[str, Any]]:
        """The examples that make the measure worst, first: [{"position", "name", "label", "group", "influence"}]."""
        groups, names = self.train.grouped, self.train.group_names
        rows = []
        for i in torch.argsort(self.values, descending=True).tolist()[:count]:
            group = names[groups[i]] if groups is not None and names is not None and groups[i] >= 0 else None
            label = self.train.classes[self.train.targets[i]]
            rows.append({"position": i, "name": self.train.name(i), "label": label, "group": group,
                         "influence": float(self.values[i])})  # fmt: skip
        return rows

    def set_aside(self, examples: int | Sequence[int]) -> list[int]:
        """Give the model the prompt it would have without these training examples (or the worst `examples` of them).

        θ + Σ H⁻¹ g over those set aside, from the prompt as it was found: what was set aside before counts no more. `undo` brings
        that one back, bit for bit. Returns the positions set aside. Raises `DataError`.
        """
        if isinstance(examples, int):
            worst = torch.argsort(self.values, descending=True)[: max(examples, 0)]
            chosen = [int(i) for i in worst if self.values[i] > 0]
        else:
            chosen = [int(i) for i in examples]
        wrong = [i for i in chosen if not 0 <= i < len(self.values)]
        if wrong:
            raise DataError(f"Found positions {wrong[:5]}; the training examples are 0 to {len(self.values) - 1}.")
        self.undo()
        parameters = _learned(self.model)
        self._before = {name: p.detach().clone() for name, p in parameters.items()}
        change = self._change[chosen].sum(0)
        with torch.no_grad():
            for p, part in zip(parameters.values(), change.split([p.numel() for p in parameters.values()]), strict=True):
                p.add_(part.view_as(p).to(p))
        return chosen

    def set_aside_within(self, budget: float = 0.01, most: float = 0.3, progress: bool = True) -> list[int]:
        """Set aside as many of the worst as lowers the measure most, for at most `budget` of accuracy (in [0,1]) on validation.

        Twelve numbers of examples are tried, up to the share `most`: the change is linear in the examples and overshoots when too
        many are taken. Returns the positions set aside, none where nothing is gained.
        """
        self.undo()
        accuracy = evaluate(self.model, self.val)["accuracy"]
        count = min(int((self.values > 0).sum()), max(1, int(most * len(self.values))))
        best, found = 0, self.measure
        with progress_bar(progress) as bar:
            for k in bar.track(sorted({round(count * i / 12) for i in range(1, 13)} - {0}), description="setting aside"):
                self.set_aside(k)
                now = measured(self.model, self.val, self.of)
                if now < found and evaluate(self.model, self.val)["accuracy"] >= accuracy - budget - 1e-9:
                    best, found = k, now
        self.undo()
        return self.set_aside(best) if best else []

    def undo(self) -> None:
        """The prompt as it was found, bit for bit."""
        with torch.no_grad():
            for name, p in _learned(self.model).items():
                if name in self._before:
                    p.copy_(self._before[name])
        self._before = {}


def influence(
    model: PromptedModel,
    train: Examples,
    val: Examples,
    of: str = "eo",
    *,
    weight_decay: float = 1e-4,
    damping: float = 1e-2,
    progress: bool = True,
) -> Influence:
    """The influence of every training example on a measure on validation, through what the model learned (FairIJ).

    of: "dp", "eopp" or "eo", the smooth gap between the groups' mean probabilities (over all, of the last class's examples, or
    summed over the labels), or "loss", the cross-entropy, whose worst examples are often mislabelled. With J the Jacobian of the
    scores and A = diag(p) − ppᵀ, H = Σ Jᵀ A J + N (weight_decay + δ) I, with δ = `damping` times the mean of its diagonal: the
    Gauss-Newton matrix, damped because a prompt that was stopped early is no minimum. Raises `TrainingError`, `DataError`.
    """
    if of not in MEASURES:
        raise TrainingError(f"Found of={of!r}; needed is one of {', '.join(MEASURES)}.")
    train, val = matched(model, train), matched(model, val)
    parameters = _learned(model)
    size, classes = sum(p.numel() for p in parameters.values()), model.readout.count or 0
    if not size:
        raise TrainingError("This model learned nothing by gradient, so no example has an influence on it.")
    if (need := 4 * size * len(train) * (classes + 1)) > BYTES:
        raise DataError(
            f"{len(train)} examples of {size:,} numbers each need {need / 1e9:.0f} GB; use fewer, or a smaller prompt."
        )
    was = model.training
    model.eval()
    try:
        measure, slope = _measure_gradient(model, val, of)
        gradients, rows = _per_example(model, train, progress)
    finally:
        model.train(was)
    level = float(rows.square().sum()) / size * damping / len(train) + weight_decay
    change = _solve(rows, level * len(train), gradients)
    return Influence(model, train, val, of, -(change @ slope.double()), measure, change)


def measured(model: PromptedModel, val: Examples, of: str) -> float:
    """The measure on validation."""
    val = matched(model, val)
    with torch.no_grad():
        return float(_measure(torch.cat([model(x) for x, _, _ in _batches(val)]).float(), val, of))


def _measure(logits: Tensor, val: Examples, of: str) -> Tensor:
    """The measure of scores `[n,C]`. Raises `DataError` where groups are missing."""
    y = torch.tensor(val.targets, device=logits.device)
    if of == "loss":
        return F.cross_entropy(logits, y)
    if val.grouped is None:
        raise DataError("The validation examples have no groups; a gap needs the group of every example.")
    z, soft = torch.tensor(val.grouped, device=logits.device), logits.softmax(1)
    strata = {"dp": [y >= 0], "eopp": [y == len(val.classes) - 1], "eo": [y == c for c in range(len(val.classes))]}[of]
    total, found = logits.new_zeros(()), False
    for keep in strata:
        means = [soft[keep & (z == g)].mean(0) for g in z[keep].unique()]
        for i, one in enumerate(means):
            for other in means[:i]:
                total, found = total + ((one - other).square() + KINK**2).sqrt().sum() / 2, True
    if not found:
        raise DataError("The validation examples are of one group (within each label); a gap needs two.")
    return total


def _learned(model: PromptedModel) -> dict[str, Tensor]:
    """What learns by gradient, by its name in the model."""
    wanted = {id(p) for values in model.trained_parameters().values() for p in values}
    return {name: p for name, p in model.named_parameters() if id(p) in wanted}


def _batches(examples: Examples, size: int = 32) -> Iterator[tuple[Any, Tensor, list[int]]]:
    """(inputs, labels, positions) of a few examples at a time."""
    for start in range(0, len(examples), size):
        places = list(range(start, min(start + size, len(examples))))
        items = [examples[i] for i in places]
        yield default_collate([item[0] for item in items]), torch.tensor([item[1] for item in items]), places


def _measure_gradient(model: PromptedModel, val: Examples, of: str) -> tuple[float, Tensor]:
    """(The measure, ∇M as `[P]`): first in the scores of all, then through each batch."""
    with torch.no_grad():
        logits = torch.cat([model(x) for x, _, _ in _batches(val)]).float()
    logits.requires_grad_(True)
    value = _measure(logits, val, of)
    (slope,) = torch.autograd.grad(value, logits)
    parameters, total = list(_learned(model).values()), None
    for x, _, places in _batches(val):
        part = torch.autograd.grad((model(x).float() * slope[places]).sum(), parameters, allow_unused=True)
        flat = torch.cat([(torch.zeros_like(p) if g is None else g).flatten() for p, g in zip(parameters, part, strict=True)])
        total = flat if total is None else total + flat
    return float(value.detach()), total.detach().cpu()  # type: ignore[union-attr]


def _per_example(model: PromptedModel, train: Examples, progress: bool) -> tuple[Tensor, Tensor]:
    """(The gradient of each example's loss `[N,P]`, the rows `[R,P]` of which Σ Jᵀ A J is the sum of squares)."""
    parameters = {name: p.detach() for name, p in _learned(model).items()}
    gradients, rows = [], []

    def scores(values: dict[str, Tensor], x: Any) -> Tensor:
        one = torch.utils._pytree.tree_map(lambda t: t[None], x)
        return functional_call(model, values, (one,))[0].float()

    # the plain product of attention, which vmap knows
    with progress_bar(progress) as bar, sdpa_kernel(SDPBackend.MATH):
        task = bar.add_task("each example's gradient", total=len(train))
        for x, y, _ in _batches(train):
            logits, jacobian = _jacobian(scores, parameters, x)
            p = logits.softmax(1)
            residual = p - F.one_hot(y.to(p.device), p.shape[1])
            gradients.append(torch.einsum("nc,ncp->np", residual, jacobian).cpu())
            half = p.sqrt()
            root = torch.diag_embed(half) - half[:, :, None] * p[:, None]  # rootᵀ root = diag(p) − ppᵀ
            rows.append(torch.einsum("ndc,ncp->ndp", root, jacobian).flatten(0, 1).cpu())
            bar.advance(task, len(y))
    return torch.cat(gradients), torch.cat(rows)


def _jacobian(scores: Any, parameters: dict[str, Tensor], x: Any) -> tuple[Tensor, Tensor]:
    """Scores `[B,C]` and their Jacobian `[B,C,P]`, each example's own."""

    def flat(values: dict[str, Tensor], one: Any) -> tuple[Tensor, Tensor]:
        out = scores(values, one)
        return out, out

    found, logits = vmap(jacrev(flat, has_aux=True), in_dims=(None, 0))(parameters, x)
    return logits.detach(), torch.cat([found[name].detach().flatten(2) for name in parameters], 2)


def _solve(rows: Tensor, level: float, right: Tensor) -> Tensor:
    """(rowsᵀ rows + level I)⁻¹ for each row of `right` `[N,P]`, in double; by the smaller of the two systems (Woodbury)."""
    rows, right = rows.double(), right.double()
    if rows.shape[0] >= rows.shape[1]:
        matrix = rows.T @ rows
        matrix.diagonal().add_(level)
        return torch.linalg.solve(matrix, right.T).T
    inner = rows @ rows.T
    inner.diagonal().add_(level)
    return (right - (torch.linalg.solve(inner, rows @ right.T).T @ rows)) / level
