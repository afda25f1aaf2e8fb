"""What kinds of readouts together say of examples: each is trusted as far as what it says of
examples that it never saw bears out.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vpt.readouts import Linear
from vpt.runs.candidates import MEANS, Trial
from vpt.runs.choosing import Candidate
from vpt.runs.kept import Kept
from vpt.runs.probe import fit_probe
from vpt.runs.querying import seen_by

ROUNDS = 200
TIMES = 20  # that shares are aligned
APART = 0.2  # of all examples, that mistakes may put into other classes
LITTLE = 0.02  # a kind that is trusted less is left out: it costs as much as any other


def trust(shares: Sequence[Tensor], y: Tensor) -> list[float]:
    """How much each of several is trusted: the weights of the mean of their probabilities with the
    least log loss (stacking: Smyth and Wolpert, Machine Learning 36, 1999), by
    expectation–maximisation.

    shares: what each says of the same examples `[m,C]`. y: their labels `[m]`.
    """
    right = torch.stack([own.gather(1, y[:, None])[:, 0] for own in shares]).double()
    right = right.clamp(min=1e-9)
    weights = torch.full((len(right),), 1 / len(right)).double()
    for _ in range(ROUNDS):
        part = weights[:, None] * right
        weights = (part / part.sum(0)).mean(1)
    weights = torch.where(weights < LITTLE, 0.0, weights)
    found: list[float] = (weights / weights.sum()).tolist()
    return found


def trusted(trial: Trial, queries: bool = True) -> dict[str, list[float]]:
    """How much each member trusts each candidate `[E]`, by labels that it sees: those of all folds
    but its own, and the last of all. queries: whether they are among the candidates.
    """
    some = [one for one in trial.made if one.name != MEANS]
    some = [one for one in some if queries or one.name not in trial.learned]
    weights = []
    for own in range(len(trial.folds) + 1):
        seen = trial.tested.clone()
        if own < len(trial.folds):
            seen[trial.folds[own][1]] = False
        weights.append(trust([one.scores[seen].exp() for one in some], trial.kept.y[seen]))
    return {one.name: [row[i] for row in weights] for i, one in enumerate(some)}


def said_of_held_out(trial: Trial) -> Tensor:
    """What all candidates together say of each labelled example that was held out: shares of
    classes `[m,C]`, by the trust of the member that did not see it.
    """
    found = torch.zeros(len(trial.kept.y), len(trial.classes)).double()
    weights = trusted(trial)
    by_name = {one.name: one for one in trial.made}
    for number, (_, held) in enumerate(trial.folds):
        for name, each in weights.items():
            found[held] += each[number] * by_name[name].scores[held].exp()
    return found


def guessed(trial: Trial, others: Kept) -> Tensor:
    """What each member says of examples without labels: shares of classes `[E,u,C]`.

    trial: of the first round.
    others: what one pass over them left, with keys and values if the trial has queries.
    """
    weights = trusted(trial, bool(others.memories))
    members = len(trial.folds) + 1
    found = torch.zeros(members, len(others.y), len(trial.classes)).double()
    for one in trial.made:
        if any(weights.get(one.name, ())):
            scores = _scores(trial, one, others) * one.slope
            each = torch.tensor(weights[one.name]).double()
            found += each[:, None, None] * torch.softmax(scores, 2)
    counts = torch.nn.functional.one_hot(trial.kept.y, len(trial.classes)).double()
    seen = seen_by(trial.folds, torch.arange(len(counts)), len(counts)).double()
    wanted = seen @ counts / seen.sum(1, keepdim=True)
    return torch.stack([aligned(*own) for own in zip(found, wanted, strict=True)])


def aligned(shares: Tensor, wanted: Tensor) -> Tensor:
    """Shares of classes `[u,C]`, so weighed that the classes are as frequent as `wanted` `[C]` says
    (distribution alignment: Berthelot et al., ICLR 2020, section 3.1; repeated, as Sinkhorn does).
    As they are, where they are further from it than mistakes explain: then classes are truly rarer
    or more frequent among these examples than among the labelled ones.
    """
    apart = float((shares.mean(0) - wanted).abs().sum()) / 2
    if apart > APART:
        return shares
    for _ in range(TIMES):
        shares = shares * (wanted / shares.mean(0).clamp(min=1e-9))
        shares = shares / shares.sum(1, keepdim=True)
    return shares


@torch.no_grad()
def _scores(trial: Trial, one: Candidate, others: Kept) -> Tensor:
    """What each member of a candidate says `[E,u,C]`, before it is calibrated."""
    if one.name in trial.learned:
        learned = trial.learned[one.name]
        members = learned.members.scores(others.of_blocks(learned.start.blocks))
        return others.of_examples(members).transpose(0, 1).double()
    if one.name in trial.ready:
        probes = trial.ready[one.name]
        fresh = others.of_examples(others.named(probes[0].named.text, trial.backbone))
        return torch.stack([probe(fresh).double() for probe in probes])
    name = one.name.removeprefix("probe ")
    fresh = others.of_examples(others.named(name, trial.backbone))
    everyone = torch.arange(len(trial.kept.y))
    rows = [*(torch.from_numpy(own) for own, _ in trial.folds), everyone]
    return torch.stack([probe(fresh).double() for probe in probes_on(trial, name, rows)])


def probes_on(trial: Trial, name: str, parts: Sequence[Tensor]) -> list[Linear]:
    """A probe on these features for each part of the labelled examples `[k]`, as strongly
    regularised as in the first round.
    """
    x, y = trial.features(name), trial.kept.y
    strength = trial.strengths[f"probe {name}"]
    return [
        fit_probe(x[rows], y[rows], trial.classes, strength=strength, of=name)[0] for rows in parts
    ]
