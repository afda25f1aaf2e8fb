"""Which training examples make a prompt unfair or wrong, and the prompt without them, without
refitting (FairIJ).

The fair infinitesimal jackknife (Sattigeri et al. 2022) on what was learned alone, prompt and
readout: θ are a few thousand numbers, so that every example's gradient is kept and the linear
system is solved exactly.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from numbers import Integral
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call, jacrev, vmap
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.data import default_collate

from vpt.data import Examples
from vpt.errors import DataError, TrainingError
from vpt.metrics import classification as metrics
from vpt.model import PromptedModel
from vpt.report.progress import progress_bar
from vpt.training.evaluation import evaluate, grouped, matched, scores
from vpt.training.gradients import flat_gradient

MEASURES = ("dp", "eopp", "eo", "loss")
KINK = 1e-3  # |u| is taken as √(u² + KINK²), which has a slope at 0
BYTES = 8 << 30  # of gradients kept at once


@dataclass
class Influence:
    """What each training example does to a measure on validation, and the means to take some of
    them out.

    values `[N]`: how much the measure would rise if the example counted a little more, −∇Mᵀ H⁻¹ g;
    those above zero make it worse. measure: its value on validation as things stand.
    """

    model: PromptedModel
    train: Examples
    val: Examples
    of: str
    positive: str | None
    values: Tensor
    measure: float
    _gradients: Tensor  # [N,P]: g
    _system: _System
    _before: dict[str, Tensor] = field(default_factory=dict)

    def ranked(self, count: int | None = None) -> list[dict[str, Any]]:
        """The examples that make the measure worst, first: [{"position", "name", "label", "group",
        "influence"}].
        """
        groups, names = self.train.grouped, self.train.group_names
        rows = []
        for i in torch.argsort(self.values, descending=True).tolist()[:count]:
            group = (
                names[groups[i]]
                if groups is not None and names is not None and groups[i] >= 0
                else None
            )
            label = self.train.classes[self.train.targets[i]]
            rows.append(
                {
                    "position": i,
                    "name": self.train.name(i),
                    "label": label,
                    "group": group,
                    "influence": float(self.values[i]),
                }
            )
        return rows

    def set_aside(self, examples: int | Sequence[int]) -> list[int]:
        """Give the model the prompt it would have without these training examples (or the worst
        `examples` of them, fewer where no more make the measure worse).

        θ + Σ H⁻¹ g over those set aside, from the prompt as it was found: what was set aside before
        counts no more. `undo` brings that one back, bit for bit. Returns the positions set aside.
        Raises `DataError`.
        """
        if isinstance(examples, (int, Integral)):
            if isinstance(examples, bool) or examples < 0:
                raise DataError(
                    f"Found {examples!r}; needed is how many to set aside, at least 0, or which"
                    " (their positions)."
                )
            worst = torch.argsort(self.values, descending=True)[: int(examples)]
            chosen = [int(i) for i in worst if self.values[i] > 0]
        else:
            chosen = sorted({int(i) for i in examples})
        wrong = [i for i in chosen if not 0 <= i < len(self.values)]
        if wrong:
            raise DataError(
                f"Found positions {wrong[:5]}; the training examples are 0 to"
                f" {len(self.values) - 1}."
            )
        self.undo()
        parameters = _learned(self.model)
        self._before = {name: p.detach().clone() for name, p in parameters.items()}
        change = self._system.solve(self._gradients[chosen].sum(0))
        with torch.no_grad():
            for p, part in zip(
                parameters.values(),
                change.split([p.numel() for p in parameters.values()]),
                strict=True,
            ):
                p.add_(part.view_as(p).to(p))
        return chosen

    def set_aside_within(
        self, budget: float = 0.01, most: float = 0.3, progress: bool = True
    ) -> list[int]:
        """Set aside as many of the worst as lowers the measure most, for at most `budget` of
        accuracy (in [0,1]) on validation.

        Twelve numbers of examples are tried, up to the share `most`: the change is linear in the
        examples and overshoots when too many are taken. Returns the positions set aside, none where
        nothing is gained.
        """
        self.undo()
        accuracy = evaluate(self.model, self.val)["accuracy"]
        measure = _Measure(self.of, self.val, self.positive)
        count = min(int((self.values > 0).sum()), max(1, int(most * len(self.values))))
        best, found = 0, self.measure
        with progress_bar(progress) as bar:
            for k in bar.track(
                sorted({round(count * i / 12) for i in range(1, 13)} - {0}),
                description="setting aside",
            ):
                self.set_aside(k)
                logits, y = scores(self.model, self.val)
                now = float(measure(logits))
                if (
                    now < found
                    and metrics.classification(logits, y)["accuracy"] >= accuracy - budget - 1e-9
                ):
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
    positive: str | None = None,
    weight_decay: float = 0.0,
    damping: float = 1e-2,
    progress: bool = True,
) -> Influence:
    """The influence of every training example on a measure on validation, through what the model
    learned (FairIJ).

    of: "dp", "eopp" or "eo", the smooth gap between the groups' mean probabilities (over all, over
        the examples of the class `positive`, by default the last, or summed over the labels), or
        "loss", the cross-entropy, whose worst examples are often mislabelled. With J the Jacobian
        of the scores and A = diag(p) − ppᵀ, H = Σ Jᵀ A J + N (weight_decay + δ) I, δ being
        `damping` times the mean of its diagonal: the Gauss-Newton matrix, damped because a prompt
        that was stopped early is no minimum.
    weight_decay: of the loss, as an L2 penalty (AdamW's is none). Raises `TrainingError`,
        `DataError`.
    """
    if of not in MEASURES:
        raise TrainingError(f"Found of={of!r}; needed is one of {', '.join(MEASURES)}.")
    if not isinstance(model, PromptedModel):
        raise TrainingError(
            f"Found {type(model).__name__}; needed is a PromptedModel whose prompt was trained."
        )
    if not (damping >= 0 and weight_decay >= 0 and damping + weight_decay > 0):
        raise TrainingError(
            f"Found damping={damping}, weight_decay={weight_decay}; needed are numbers of at least"
            " 0, not both 0."
        )
    train, val = (
        matched(model, train),
        (grouped(model, val, "validation") if of != "loss" else matched(model, val)),
    )
    # of a clip longer than what the model hears: one window, and all of them
    train, val = train.drawn(0, 1), val.windows()[0]
    size, classes = sum(p.numel() for p in _learned(model).values()), model.readout.count or 0
    if not size:
        raise TrainingError(
            "This model learned nothing by gradient, so no example has an influence on it."
        )
    rows = len(train) * (1 if classes == 2 else classes)
    if (need := 4 * size * (len(train) + rows) + 16 * min(rows, size) ** 2) > BYTES:
        raise DataError(
            f"{len(train)} examples of {size:,} numbers each need {need / 1e9:.0f} GB; use fewer,"
            " or a smaller prompt."
        )
    measure = _Measure(of, val, positive)
    was = model.training
    model.eval()
    try:
        value, slope = _measure_gradient(model, val, measure)
        gradients, factors = _per_example(model, train, progress)
    finally:
        model.train(was)
    level = float(factors.square().sum()) / size * damping / len(train) + weight_decay
    system = _System(factors, level * len(train))
    values = -(gradients @ system.solve(slope).float())
    return Influence(model, train, val, of, positive, values, value, gradients, system)


def measured(model: PromptedModel, val: Examples, of: str, positive: str | None = None) -> float:
    """The measure on validation."""
    val = matched(model, val)
    return float(_Measure(of, val, positive)(scores(model, val)[0]))


class _Measure:
    """What is measured on validation, smooth in the scores. Raises `DataError` where no two groups
    can be compared.
    """

    def __init__(self, of: str, val: Examples, positive: str | None) -> None:
        y, z = torch.tensor(val.targets), torch.tensor(val.grouped or [0] * len(val))
        if positive is not None and positive not in val.classes:
            raise DataError(
                f"Found positive={positive!r}; the classes are {', '.join(val.classes)}."
            )
        last = val.classes.index(positive) if positive is not None else len(val.classes) - 1
        strata = {
            "dp": [y >= 0],
            "eopp": [y == last],
            "eo": [y == c for c in range(len(val.classes))],
            "loss": [],
        }[of]
        self.y, self.of = y, of
        self.pairs = [
            (keep & (z == a), keep & (z == b))
            for keep in strata
            for a, b in combinations(z[keep].unique(), 2)
        ]
        if of != "loss" and not self.pairs:
            raise DataError(
                "The validation examples are of one group (within each label); a gap needs two."
            )

    def __call__(self, logits: Tensor) -> Tensor:
        """Scores `[n,C]` → the measure."""
        if self.of == "loss":
            return F.cross_entropy(logits, self.y)
        soft = logits.softmax(1)
        gaps = torch.stack([soft[a].mean(0) - soft[b].mean(0) for a, b in self.pairs])
        return (gaps.square() + KINK**2).sqrt().sum() / 2


def _learned(model: PromptedModel) -> dict[str, Tensor]:
    """What learns by gradient, by its name in the model."""
    wanted = {id(p) for values in model.trained_parameters().values() for p in values}
    return {name: p for name, p in model.named_parameters() if id(p) in wanted}


def _batches(examples: Examples, size: int = 32) -> Iterator[tuple[Any, Tensor, list[int]]]:
    """(inputs, labels, positions) of a few examples at a time."""
    for start in range(0, len(examples), size):
        places = list(range(start, min(start + size, len(examples))))
        items = [examples[i] for i in places]
        yield (
            default_collate([item[0] for item in items]),
            torch.tensor([item[1] for item in items]),
            places,
        )


def _measure_gradient(
    model: PromptedModel, val: Examples, measure: _Measure
) -> tuple[float, Tensor]:
    """(The measure, ∇M as `[P]`): first in the scores of all, then through each batch."""
    logits = scores(model, val)[0].requires_grad_(True)
    value = measure(logits)
    (slope,) = torch.autograd.grad(value, logits)
    parameters = list(_learned(model).values())
    parts = []
    for x, _, places in _batches(val):
        out = model(x).float()
        parts.append(flat_gradient((out * slope[places].to(out.device)).sum(), parameters).cpu())
    return float(value.detach()), torch.stack(parts).sum(0)


def _per_example(model: PromptedModel, train: Examples, progress: bool) -> tuple[Tensor, Tensor]:
    """(The gradient of each example's loss `[N,P]`, the rows `[R,P]` of which Σ Jᵀ A J is the sum
    of squares).
    """
    parameters = {name: p.detach() for name, p in _learned(model).items()}
    gradients, rows = [], []

    def run(values: dict[str, Tensor], x: Any) -> Tensor:
        one = torch.utils._pytree.tree_map(lambda t: t[None], x)
        return functional_call(model, values, (one,))[0].float()

    # the plain product of attention, which vmap knows
    with progress_bar(progress) as bar, sdpa_kernel(SDPBackend.MATH):
        task = bar.add_task("each example's gradient", total=len(train))
        for x, y, _ in _batches(train):
            logits, jacobian = _jacobian(run, parameters, x)
            p = logits.softmax(1)
            residual = p - F.one_hot(y.to(p.device), p.shape[1])
            gradients.append(torch.einsum("nc,ncp->np", residual, jacobian).cpu())
            rows.append(_root(p, jacobian).flatten(0, 1).cpu())
            bar.advance(task, len(y))
    return torch.cat(gradients), torch.cat(rows)


def _root(p: Tensor, jacobian: Tensor) -> Tensor:
    """Rows `[B,R,P]` whose squares sum to Jᵀ (diag(p) − ppᵀ) J; of two classes one row says it
    all.
    """
    if p.shape[1] == 2:
        return (p[:, :1] * p[:, 1:]).sqrt()[:, :, None] * (jacobian[:, 1:] - jacobian[:, :1])
    half = p.sqrt()
    root = torch.diag_embed(half) - half[:, :, None] * p[:, None]  # rootᵀ root = diag(p) − ppᵀ
    return torch.einsum("ndc,ncp->ndp", root, jacobian)


def _jacobian(run: Any, parameters: dict[str, Tensor], x: Any) -> tuple[Tensor, Tensor]:
    """Scores `[B,C]` and their Jacobian `[B,C,P]`, each example's own; one by one where a model
    looks at its input's values.
    """

    def twice(values: dict[str, Tensor], one: Any) -> tuple[Tensor, Tensor]:
        out = run(values, one)
        return out, out

    of_one = jacrev(twice, has_aux=True)
    try:
        found, logits = vmap(of_one, in_dims=(None, 0))(parameters, x)
    except RuntimeError as error:
        if "vmap" not in str(error):
            raise
        size = len(torch.utils._pytree.tree_leaves(x)[0])
        each = [
            _one_by_one(run, parameters, torch.utils._pytree.tree_map(lambda t, i=i: t[i], x))
            for i in range(size)
        ]
        return torch.stack([logits for logits, _ in each]), torch.stack(
            [jacobian for _, jacobian in each]
        )
    return logits.detach(), torch.cat([found[name].detach().flatten(2) for name in parameters], 2)


def _one_by_one(run: Any, parameters: dict[str, Tensor], one: Any) -> tuple[Tensor, Tensor]:
    """Scores `[C]` and their Jacobian `[C,P]` of one example, by ordinary backward passes."""
    values = {name: p.detach().requires_grad_(True) for name, p in parameters.items()}
    logits = run(values, one)
    return logits.detach(), torch.stack(
        [flat_gradient(score, list(values.values()), keep_graph=True) for score in logits]
    )


class _System:
    """(rowsᵀ rows + level I) v = b, solved in double by the smaller of two Cholesky factors
    (Woodbury).
    """

    def __init__(self, rows: Tensor, level: float) -> None:
        self.rows, self.level = rows, level
        self.tall = rows.shape[0] >= rows.shape[1]
        whole = rows.T if self.tall else rows
        inner = torch.zeros(len(whole), len(whole), dtype=torch.float64)
        for part in whole.split(4096, 1):
            inner.addmm_(part.double(), part.double().T)
        inner.diagonal().add_(level)
        self.factor = torch.linalg.cholesky(inner)

    def solve(self, b: Tensor) -> Tensor:
        """`[P]` → v `[P]`, in double."""
        b = b.double()
        if self.tall:
            return torch.cholesky_solve(b[:, None], self.factor)[:, 0]
        inside = torch.cholesky_solve((self.rows @ b.float())[:, None].double(), self.factor)[:, 0]
        return (b - (inside.float() @ self.rows).double()) / self.level
