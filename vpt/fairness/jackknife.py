"""What the infinitesimal jackknife is made of: each example's gradient, and a linear system."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.func import functional_call, jacrev, vmap
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.data import default_collate

from vpt.data import Examples
from vpt.fairness.measure import Measure
from vpt.model import PromptedModel
from vpt.report.progress import progress_bar
from vpt.sites import Raw
from vpt.training.evaluation import scores
from vpt.training.gradients import flat_gradient

READOUT = "readout."  # with which the names of its parameters begin
BATCH = 32
Batch = tuple[Raw, Tensor, list[int]]
Run = Callable[[dict[str, Tensor], Raw], Tensor]  # what learns, one input → its scores `[C]`


def by_gradient(model: PromptedModel) -> dict[str, Tensor]:
    """What learns by gradient, by its name in the model."""
    wanted = {id(p) for values in model.trained_parameters().values() for p in values}
    return {name: p for name, p in model.named_parameters() if id(p) in wanted}


def learns_inside(model: PromptedModel) -> bool:
    """Whether anything learns by gradient that the model's forward depends on. Where the readout
    alone does, one pass says all, and what follows takes seconds.
    """
    return any(not name.startswith(READOUT) for name in by_gradient(model))


def _kept(
    model: PromptedModel, examples: Examples, progress: bool
) -> tuple[nn.Module, Iterator[Batch]]:
    """(The readout, what it reads of a few examples at a time), of one pass."""
    read, y = scores(model, examples, outputs=True, progress=progress, what="features")
    read = read.to(model.backbone.device)
    places = torch.arange(len(y)).split(BATCH)
    return model.readout, ((read[some], y[some], some.tolist()) for some in places)


def measure_gradient(model: PromptedModel, val: Examples, measure: Measure) -> tuple[float, Tensor]:
    """(The measure, ∇M as `[P]`): first in the scores of all, then through each batch."""
    parameters = list(by_gradient(model).values())
    if not learns_inside(model):
        read, _ = scores(model, val, outputs=True)
        value = measure(model.readout(read.to(model.backbone.device)).float().cpu())
        return float(value.detach()), flat_gradient(value, parameters).cpu()
    logits = scores(model, val)[0].requires_grad_(True)
    value = measure(logits)
    (slope,) = torch.autograd.grad(value, logits)
    parts = []
    for x, _, places in _batches(val):
        out = model(x).float()
        parts.append(flat_gradient((out * slope[places].to(out.device)).sum(), parameters).cpu())
    return float(value.detach()), torch.stack(parts).sum(0)


def per_example(model: PromptedModel, train: Examples, progress: bool) -> tuple[Tensor, Tensor]:
    """(The gradient of each example's loss `[N,P]`, the rows `[R,P]` of which Σ Jᵀ A J is the sum
    of squares).
    """
    parameters = {name: p.detach() for name, p in by_gradient(model).items()}
    gradients, rows = [], []
    inside = learns_inside(model)
    part, batches = (model, _batches(train)) if inside else _kept(model, train, progress)
    start = 0 if inside else len(READOUT)  # of a parameter's name

    def run(values: dict[str, Tensor], x: Raw) -> Tensor:
        one = tree_map(lambda t: t[None], x)
        own = {name[start:]: value for name, value in values.items()}
        return functional_call(part, own, (one,))[0].float()

    # the plain product of attention, which vmap knows
    with progress_bar(progress) as bar, sdpa_kernel(SDPBackend.MATH):
        task = bar.add_task("each example's gradient", total=len(train))
        for x, y, _ in batches:
            logits, jacobian = _jacobian(run, parameters, x)
            p = logits.softmax(1)
            residual = p - F.one_hot(y.to(p.device), p.shape[1])
            gradients.append(torch.einsum("nc,ncp->np", residual, jacobian).cpu())
            rows.append(root(p, jacobian).flatten(0, 1).cpu())
            bar.advance(task, len(y))
    return torch.cat(gradients), torch.cat(rows)


def root(p: Tensor, jacobian: Tensor) -> Tensor:
    """Rows `[B,R,P]` whose squares sum to Jᵀ (diag(p) − ppᵀ) J; of two classes one row says it
    all.
    """
    if p.shape[1] == 2:
        return (p[:, :1] * p[:, 1:]).sqrt()[:, :, None] * (jacobian[:, 1:] - jacobian[:, :1])
    half = p.sqrt()
    factor = torch.diag_embed(half) - half[:, :, None] * p[:, None]  # factorᵀ factor = A
    return torch.einsum("ndc,ncp->ndp", factor, jacobian)


class System:
    """(rowsᵀ rows + level I) v = b, solved in double by the smaller of two Cholesky factors
    (Woodbury).
    """

    def __init__(self, rows: Tensor, level: float) -> None:
        self.rows = rows
        self.level = level
        self.tall = rows.shape[0] >= rows.shape[1]
        wide = rows.T if self.tall else rows
        inner = torch.zeros(len(wide), len(wide), dtype=torch.float64)
        for part in wide.split(4096, 1):
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


def _batches(examples: Examples) -> Iterator[Batch]:
    """(inputs, labels, positions) of a few examples at a time."""
    for start in range(0, len(examples), BATCH):
        places = list(range(start, min(start + BATCH, len(examples))))
        items = [examples[i] for i in places]
        inputs = default_collate([item[0] for item in items])
        yield inputs, torch.tensor([item[1] for item in items]), places


def _jacobian(run: Run, parameters: dict[str, Tensor], x: Raw) -> tuple[Tensor, Tensor]:
    """Scores `[B,C]` and their Jacobian `[B,C,P]`, each example's own; one by one where a model
    looks at its input's values.
    """

    def twice(values: dict[str, Tensor], one: Raw) -> tuple[Tensor, Tensor]:
        out = run(values, one)
        return out, out

    of_one = jacrev(twice, has_aux=True)
    try:
        slopes, logits = vmap(of_one, in_dims=(None, 0))(parameters, x)
    except RuntimeError as error:
        if "vmap" not in str(error):
            raise
        each = [
            _one_by_one(run, parameters, tree_map(lambda t, i=i: t[i], x))
            for i in range(len(tree_leaves(x)[0]))
        ]
        return torch.stack([one for one, _ in each]), torch.stack([slope for _, slope in each])
    return logits.detach(), torch.cat([slopes[name].detach().flatten(2) for name in parameters], 2)


def _one_by_one(run: Run, parameters: dict[str, Tensor], one: Raw) -> tuple[Tensor, Tensor]:
    """Scores `[C]` and their Jacobian `[C,P]` of one example, by ordinary backward passes."""
    values = {name: p.detach().requires_grad_(True) for name, p in parameters.items()}
    logits = run(values, one)
    slopes = [flat_gradient(score, list(values.values()), keep_graph=True) for score in logits]
    return logits.detach(), torch.stack(slopes)
