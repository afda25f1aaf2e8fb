"""What a prompt must beat: nearest class mean and a linear probe, on the same features and
split.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from vpt.backbones import Backbone
from vpt.data import Data
from vpt.model import PromptedModel
from vpt.readouts import Linear, NearestMean
from vpt.runs.answers import MEANS, PROBE, PROMPT, Answers, calibrated_on_val
from vpt.runs.probe import fit_probe
from vpt.training.evaluation import matched, scores


@dataclass
class Baselines:
    """What is said without a prompt on the same split: answers to what is validated and tested on,
    calibrated on the former; the probe, and C, its strength.
    """

    answers: dict[str, Answers]
    probe: Linear
    strength: float

    def accuracies(self, method: str) -> dict[str, float]:
        """By part."""
        return {part: found.scored(method)["accuracy"] for part, found in self.answers.items()}


def measure_baselines(
    backbone: Backbone, data: Data, seed: int = 0, progress: bool = False
) -> Baselines:
    """Nearest class mean and a cross-validated linear probe on the bare backbone's features, on the
    same split.
    """
    means = NearestMean(backbone.out_features, data.classes)
    with PromptedModel(backbone, None, means) as model:
        features = {
            name: scores(model, part, outputs=True, progress=progress, what=f"features ({name})")
            for name, part in data.parts.items()
        }
    x, y = features.pop("train")
    means.cpu().update(x, y)
    probe, strength = fit_probe(x, y, data.classes, seed)
    with torch.no_grad():
        answers = {
            part: Answers.of(data.parts[part], {MEANS: means(held), PROBE: probe(held)})
            for part, (held, _) in features.items()
        }
    answers, _ = calibrated_on_val(answers, (MEANS, PROBE))
    return Baselines(answers, probe, strength)


def with_prompt(
    answers: Mapping[str, Answers], model: PromptedModel, data: Data
) -> dict[str, Answers]:
    """The same, and what a model says of these parts as "prompt"; classes that only the model has
    come last.
    """
    found = {}
    for part, own in answers.items():
        said, _ = scores(model, matched(model, data.parts[part]))
        numbered = [str(c) for c in range(len(own.classes), said.shape[1])]
        names: list[str | None] = [*(model.classes or own.classes + numbered)]
        names = names[: said.shape[1]]
        classes = own.classes + [name for name in names if name and name not in own.classes]
        if set(names) != set(classes):  # a class that it lacks cannot be its answer
            lowest = said.new_full((len(said), 1), float("-inf"))
            said, names = torch.cat([said, lowest], 1), [*names, None]
        place = {name: number for number, name in enumerate(names)}
        order = [place.get(name, len(names) - 1) for name in classes]
        found[part] = Answers(
            own.names, own.y, classes, own.scores | {PROMPT: said[:, order]}, own.units
        )
    return found
