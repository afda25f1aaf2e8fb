"""What is said of labelled examples by what saw neither their fold nor another: so that a label can
be doubted without a look at the labels by which that is judged.
"""

from __future__ import annotations

from itertools import combinations

import torch
from torch import Tensor

from vpt.runs.candidates import PROBE, Trial, sets_of
from vpt.runs.guessing import probes_on, said_of_held_out, trust
from vpt.runs.querying import DECAY
from vpt.training.side_by_side import learn_side_by_side

Pair = tuple[int, int]  # of folds, both held out


def said_to_members(trial: Trial, seed: int, progress: bool) -> Tensor:
    """What is said to each member of the labelled examples: shares of classes `[E,m,C]`.

    To the member that does not see fold e, of an example of fold f: what learned from the others.
        To the last, of every example: what did not see its fold. Of examples that are never held
        out, and of its own fold, nothing is said to a member: 0.

    trial: of the first round.
    seed: of queries.
    progress: whether to show how far it is.
    """
    pairs = list(combinations(range(len(trial.folds)), 2))
    kinds = {f"probe {name}": _probes(trial, name, pairs) for name in _sets(trial)}
    if trial.start is not None and trial.learned:
        kinds["queries"] = _queries(trial, pairs, seed, progress)
    count, classes = len(trial.kept.y), len(trial.classes)
    found = torch.zeros(len(trial.folds) + 1, count, classes).double()
    found[-1] = said_of_held_out(trial)
    for one in range(len(trial.folds)):
        own = {name: torch.zeros(count, classes).double() for name in kinds}
        for number, pair in enumerate(pairs):
            if one in pair:
                other = trial.folds[pair[0] if pair[1] == one else pair[1]][1]
                for name, said in kinds.items():
                    own[name][other] = said[number][other]
        seen = torch.cat([torch.from_numpy(f[1]) for i, f in enumerate(trial.folds) if i != one])
        weights = trust([said[seen] for said in own.values()], trial.kept.y[seen])
        found[one] = sum(w * said for w, said in zip(weights, own.values(), strict=True))
    return found


def _sets(trial: Trial) -> list[str]:
    return [PROBE.split()[1]] if trial.probe_only else list(sets_of(trial.backbone))


@torch.no_grad()
def _probes(trial: Trial, name: str, pairs: list[Pair]) -> Tensor:
    """What probes that see neither fold of a pair say `[P,m,C]`."""
    x = trial.features(name)
    probes = probes_on(trial, name, [_rest(trial, pair) for pair in pairs])
    return torch.stack([torch.softmax(probe(x).double(), 1) for probe in probes])


def _queries(trial: Trial, pairs: list[Pair], seed: int, progress: bool) -> Tensor:
    """What queries that see neither fold of a pair say `[P,m,C]`."""
    kept, start = trial.kept, trial.start
    if start is None:
        raise TypeError("queries were learned")
    memories = kept.of_blocks(start.blocks)
    shares = torch.zeros(len(pairs), len(kept.y))
    for number, pair in enumerate(pairs):
        shares[number, _rest(trial, pair)] = 1
    members = learn_side_by_side(
        memories,
        list(start.queries),
        kept.y[kept.clips],
        shares[:, kept.clips],
        len(trial.classes),
        decay=DECAY,
        seed=seed,
        progress=progress,
    )
    scores = kept.of_examples(members.scores(memories)).transpose(0, 1)
    return torch.softmax(scores.double(), 2)


def _rest(trial: Trial, pair: Pair) -> Tensor:
    """Which examples neither fold holds out."""
    rest = torch.ones(len(trial.kept.y), dtype=torch.bool)
    for fold in pair:
        rest[torch.from_numpy(trial.folds[fold][1])] = False
    return rest.nonzero()[:, 0]
