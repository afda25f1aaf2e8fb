"""Candidates for prompt="auto": what each kind of readout says out of fold, and its final fit."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from vpt.backbones import Backbone
from vpt.prompts import QueryTokens
from vpt.readouts import Average, Linear, NearestMean, Readout
from vpt.readouts.named import Named
from vpt.report.progress import progress_bar
from vpt.runs.choosing import Candidate, Chosen, calibrated, choose
from vpt.runs.kept import Kept
from vpt.runs.probe import FALLBACK, Folds, cross_fitted, fit_probe
from vpt.runs.querying import Learned, judged, learn_queries

SETS = ("cls", "cls+mean", "blocks:4", "blocks")  # fixed features, from few to many
PROBE_COST = 1.2e-6  # seconds for each number in its rows, and each class
MEANS = "nearest mean"
PROBE = "probe cls"
AS_THEY_ARE = "queries as they are"  # of a file, with nothing learned but a probe
BOTH = "cls+queries"  # what it reads


@dataclass
class Trial:
    """What is at hand while candidates are made.

    folds: none where nothing can be held out. start: the queries as they begin, if they can be.
        strengths: C of each probe, once it was chosen. learned: queries that have learned, by the
        name of the candidate. ready: probes that are fitted already, likewise, one for each member.
        made: all candidates. probe_only: whether there is to be no choice. pruned: whether queries
        without which nothing is lost are left out. prompt: the queries that came of it. together:
        which examples belong together. begun: whether the queries were learned beforehand.
    """

    backbone: Backbone
    kept: Kept
    classes: list[str]
    folds: Folds
    start: QueryTokens | None
    strengths: dict[str, float] = field(default_factory=dict)
    learned: dict[str, Learned] = field(default_factory=dict)
    ready: dict[str, list[Linear]] = field(default_factory=dict)
    made: list[Candidate] = field(default_factory=list)
    probe_only: bool = False
    pruned: bool = False
    prompt: QueryTokens | None = None
    together: list[int] | None = None
    begun: bool = False

    @property
    def tested(self) -> Tensor:
        """Which examples are held out once `[m]`."""
        found = torch.zeros(len(self.kept.y), dtype=torch.bool)
        for _, held in self.folds:
            found[held] = True
        return found

    def features(self, name: str) -> Tensor:
        """Of each example, by name `[m,F]`."""
        return self.kept.of_examples(self.kept.named(name, self.backbone))


def sets_of(backbone: Backbone) -> Sequence[str]:
    """Fixed features that a model has, by name, from few to many."""
    if backbone.depth == 0:
        return ("cls",)
    return [name for name in SETS if name != "blocks:4" or backbone.depth > 4]


def choose_among(trial: Trial, seed: int, progress: bool) -> Chosen:
    """Make every candidate that there can be, and choose. They, and C of each probe, are left in
    the trial.
    """
    y = trial.kept.y
    if not trial.folds and trial.begun and trial.start is not None:
        why = "each class has one example: a probe of what queries read that knew others before"
        return Chosen(AS_THEY_ARE, [AS_THEY_ARE], [], 0.0, 0.0, (0.0, 1.0), 0, why)
    if not trial.folds:
        why = "each class has one example, so that nothing can be held out to choose by"
        return Chosen(PROBE, [PROBE], [], 0.0, 0.0, (0.0, 1.0), 0, why)
    made = [_nearest(trial), *_probes(trial, progress)]
    if trial.probe_only:
        trial.made = made
        chosen = choose(made[1:], y, trial.tested, PROBE, trial.together)
        return replace(chosen, why="as was asked for")
    if trial.start is not None:
        made.append(_learned(trial, trial.start, len(made), seed, progress))
    trial.made = made
    return choose(made, y, trial.tested, PROBE, trial.together)


def _probes(trial: Trial, progress: bool) -> list[Candidate]:
    """Probes of each fold, on each set of fixed features."""
    sets = ("cls",) if trial.probe_only else sets_of(trial.backbone)
    made = []
    with progress_bar(progress) as bar:
        task = bar.add_task("probes of fixed features", total=len(sets))
        for place, name in enumerate(sets, 1):
            x = trial.features(name).double().numpy()
            found = cross_fitted(x, trial.kept.y.numpy(), trial.folds, len(trial.classes))
            trial.strengths[f"probe {name}"] = found.strength
            scores = torch.from_numpy(found.scores)
            made.append(calibrated(f"probe {name}", place, scores, trial.kept.y, trial.tested))
            bar.advance(task)
    return made


def _nearest(trial: Trial) -> Candidate:
    """Nearest means of each fold."""
    x, y = trial.features("cls"), trial.kept.y
    scores = torch.zeros(len(y), len(trial.classes))
    for kept, held in trial.folds:
        means = NearestMean(x.shape[1], trial.classes)
        means.update(x[kept], y[kept])
        scores[held] = means(x[held]).clamp(min=-1e6) / x.shape[1]
    return calibrated(MEANS, 0, scores, y, trial.tested)


def _learned(trial: Trial, start: QueryTokens, place: int, seed: int, progress: bool) -> Candidate:
    """Queries that learned from labels."""
    kept, folds, name = trial.kept, trial.folds, f"queries:{start.count}"
    members, strength = learn_queries(start, kept, folds, len(trial.classes), seed, progress)
    trial.strengths[name] = strength
    trial.learned[name], scores = judged(start, members, kept, folds, trial.pruned)
    return calibrated(name, place, scores, kept.y, trial.tested)


def seconds_of_probes(backbone: Backbone, count: int, classes: int, reads: int = 0) -> float:
    """About how long the probes of `count` examples will take, and that of what queries read
    (`reads` numbers): a guess by their sizes.
    """
    widths = [*(Named(name).width(backbone, 0) for name in sets_of(backbone)), reads]
    return sum(PROBE_COST * count * min(count, width) * classes for width in widths)


def refit(trial: Trial, chosen: Chosen) -> tuple[QueryTokens | None, Readout]:
    """The prompt and the readout of what was chosen, fitted on all examples."""
    parts = [fitted(trial, name) for name in chosen.names]
    for part in parts:
        part.multiply(chosen.factor)
    prompt = trial.prompt if any(readout.named.queries for readout in parts) else None
    return prompt, parts[0] if len(parts) == 1 else Average(parts)


def fitted(trial: Trial, name: str) -> Linear:
    """A candidate's readout, fitted on all examples and calibrated; the queries, too, are then
    those.
    """
    readout = _fitted(trial, name)
    readout.multiply(next((one.slope for one in trial.made if one.name == name), 1.0))
    return readout


def _fitted(trial: Trial, name: str) -> Linear:
    if name in trial.learned:
        trial.prompt, readout = trial.learned[name].into(trial.classes)
        return readout
    if name == AS_THEY_ARE and trial.start is not None:
        trial.prompt = copy.deepcopy(trial.start)
        read = trial.kept.with_read(trial.start).named(BOTH, trial.backbone)
        x = trial.kept.of_examples(read)
        return fit_probe(x, trial.kept.y, trial.classes, strength=FALLBACK, of=BOTH)[0]
    if name in trial.ready:
        return copy.deepcopy(trial.ready[name][-1])
    if name == MEANS:
        return _as_linear(means_on(trial))
    return probe_on(trial, name.removeprefix("probe "))


def probe_on(trial: Trial, name: str) -> Linear:
    """A linear probe on these features of all examples, of the C that was chosen for them."""
    strength = trial.strengths.get(f"probe {name}", FALLBACK)
    x = trial.features(name)
    return fit_probe(x, trial.kept.y, trial.classes, strength=strength, of=name)[0]


def means_on(trial: Trial) -> NearestMean:
    """Class means of the model's own features of all examples."""
    x = trial.features("cls")
    means = NearestMean(x.shape[1], trial.classes)
    means.update(x, trial.kept.y)
    return means


@torch.no_grad()
def _as_linear(means: NearestMean) -> Linear:
    """The same probabilities of `_nearest`'s scores: −‖x − μ‖² = 2μx − ‖μ‖² but for what all
    classes share.
    """
    linear = Linear(means.features, means.classes or means.size[0])
    centre = means.sums / means.counts.clamp(min=1).unsqueeze(1)
    linear.weight.copy_(2 * centre / means.features)
    linear.bias.copy_(-centre.square().sum(1) / means.features)
    linear.bias[means.counts == 0] = -1e6
    return linear
