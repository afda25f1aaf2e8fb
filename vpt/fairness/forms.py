"""How each form is learned for fairness, corrections among them, and which of several is the one to
take.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from vpt.backbones import Backbone
from vpt.data import Data, Examples
from vpt.errors import TrainingError
from vpt.fairness.automatic import mended, seconds_to_mend
from vpt.fairness.choosing import GAP, choose
from vpt.fairness.crossed import crossed
from vpt.fairness.outcome import Frontier
from vpt.fairness.strengths import objectives
from vpt.fairness.tradeoff import frontier
from vpt.model import PromptedModel
from vpt.prompts import Prompt
from vpt.readouts import Readout
from vpt.report.progress import span
from vpt.runs.briefing import say_before, seconds_of_runs
from vpt.runs.labelled import AUTO
from vpt.runs.making import make_prompt, make_readout, start_among
from vpt.runs.probe import fit_probe
from vpt.sites import Config
from vpt.training.evaluation import scores
from vpt.training.recipe import Recipe

Form = str | Prompt | Callable[[Backbone], Prompt]
FOLDS = 3  # where several forms are compared: on examples that each held out
NO_NAME = re.compile(r"[^A-Za-z0-9.-]")  # of a folder
LIKED = ("use", "cannot tell", "keep the model")


@dataclass
class Forms:
    """How forms are learned.

    backbone: with nothing attached. data: with its parts. readout: as for `reprogram`. recipe: of
    what is trained. folds: 0 where a part of the data chooses. aims: of `frontier`, but for the
    method. shown: whether to say beforehand how long it takes.
    """

    backbone: Backbone
    data: Data
    readout: str | Readout
    recipe: Recipe
    method: str
    folds: int
    aims: Config
    resume: bool
    shown: bool
    said: bool = field(default=False, init=False)

    def learned(self, form: Form, points: Path | None) -> tuple[PromptedModel, Frontier]:
        """The model with the chosen point of a form, and its trade-off. points: where its
        checkpoints are kept.
        """
        if form == AUTO:
            what = "none: corrections of its own scores, on frozen features"
            self._say_before(what, partial(seconds_to_mend, self.backbone, self.data))
            return mended(self.backbone, self.data, seed=self.recipe.seed, **self.aims)
        seed = self.recipe.seed
        prompt = make_prompt(form, self.backbone, seed)
        if isinstance(form, str):
            start_among(prompt, self.backbone, self.data.train, seed)
        own = deepcopy(self.readout)  # each form has its own
        readout = make_readout(own, self.backbone, self.data, seed, prompt)
        model = PromptedModel(self.backbone, prompt, readout)
        try:
            return model, self._trained(model, points)
        except BaseException:
            model.close()
            raise

    def best(self, forms: Sequence[str], points: Path | None) -> tuple[PromptedModel, Frontier]:
        """Of several forms, each with all examples held out once, the one to take: of those of the
        best recommendation, by the rule that chooses strengths. points: where checkpoints are kept.
        """
        found = []
        for form in forms:
            self.aims["say"](f"form {form}")
            own = points / NO_NAME.sub("-", form) if points is not None else None
            model, tradeoff = self.learned(form, own)
            model.close()
            found.append((form, model, tradeoff))
        ranks = [LIKED.index(one.judged.recommendation) for _, _, one in found]
        among = [one for one, rank in zip(found, ranks, strict=True) if rank == min(ranks)]
        gap = GAP[self.aims["criterion"]]
        budget, bound = self.aims["budget"], self.aims["bound"]
        chosen, _ = choose(
            found[0][2].base, [one.chosen for _, _, one in among], gap, budget, bound, "out of fold"
        )
        form, model, tradeoff = next(one for one in among if one[2].chosen is chosen)
        tried = [(name, one.chosen, one.judged.recommendation) for name, _, one in found]
        tradeoff = replace(tradeoff, forms=tried, form=form)
        return PromptedModel(self.backbone, model.prompt, model.readout), tradeoff

    def _say_before(self, what: str, timed: Callable[[], float]) -> None:
        """What was understood, and how long it will take; of a later form the time alone."""
        if not self.shown:
            return
        if not self.said:
            say_before(self.data, self.backbone, what, timed())
        else:
            self.aims["say"](f"{what}: {span(timed())}")
        self.said = True

    def _trained(self, model: PromptedModel, points: Path | None) -> Frontier:
        """The trade-off of a prompt that is trained."""
        tried = self.aims | {"method": self.method, "recipe": self.recipe}
        names = ("method", "criterion", "strengths", "budget", "bound")
        runs = 1 + len(objectives(**{name: tried[name] for name in names}))
        timed = partial(seconds_of_runs, model, self.data, self.recipe, runs * (self.folds + 1))
        self._say_before(model.prompt.describe(), timed)
        parts = (self.data.train, self.data.val, self.data.test)
        tried |= {"out": points, "resume": self.resume}
        begin = partial(self._begin_at_probe, model) if self.readout == "linear" else None
        if self.folds:
            return crossed(model, *parts, self.folds, begin=begin, **tried)
        if begin is not None:
            begin(self.data.train)
        return frontier(model, *parts, **tried)

    def _begin_at_probe(self, model: PromptedModel, examples: Examples) -> None:
        """Give the readout a probe of the bare model's features of these examples, or of what
        queries read of them.
        """
        shown = self.aims["progress"]
        with model.prompts_off():
            features = scores(model, examples, outputs=True, progress=shown, what="features")
        of, seed = model.readout.named.text, self.recipe.seed
        probe = fit_probe(*features, classes=self.data.classes, seed=seed, of=of)[0]
        model.readout.load_state_dict(probe.state_dict())


def forms_of(prompt: object) -> list[str]:
    """The forms that a text names, divided by commas; none for one form, or for a prompt. Raises
    `TrainingError` for an empty one, or one that comes twice.
    """
    if not isinstance(prompt, str) or "," not in prompt:
        return []
    forms = [form.strip() for form in prompt.split(",")]
    if not all(forms) or len(set(forms)) < len(forms):
        raise TrainingError(
            f"Found prompt={prompt!r}; needed are different forms, as in auto,patch:16,prefix:10."
        )
    return forms
