"""How `vpt.adapt` learns: from a probe of prompted features, on augmented images, and with a new
probe afterwards.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from vpt.backbones import Backbone, first_block
from vpt.data import Data, Examples, in_views
from vpt.data.readers import RawInput
from vpt.model import PromptedModel
from vpt.prompts import Prompt
from vpt.readouts import Linear, Readout
from vpt.runs.answers import PROBE, PROMPT, Answers, calibrated_on_val
from vpt.runs.baselines import Baselines
from vpt.runs.briefing import seconds_of_run
from vpt.runs.probe import fit_probe
from vpt.training.evaluation import evaluate, scores
from vpt.training.late import without_cache
from vpt.training.loop import History
from vpt.training.recipe import Recipe, updated

# the readout starts from a probe this much more strongly regularised, which leaves the prompt
# something to do
SOFTER = 0.3
VIEWS = 3  # augmented views of each training image that this probe sees besides the plain one
# mirrored validation images may cost the probe this much accuracy and still count as the same class
FLIP_TOLERANCE = 0.02


def learn(
    model: PromptedModel,
    data: Data,
    recipe: Recipe,
    strength: float | None,
    train: Callable[..., History],
    progress: bool,
) -> History:
    """Train, from a probe and with a look at a new one afterwards, where the readout is linear.

    model: whose prompt and readout learn.
    data: from which they learn.
    recipe: how.
    strength: C of the probe from which the readout starts, where it reads the model's own
        features, as that was chosen for; None: no probe.
    train: `vpt.fit`, told where to write.
    progress: whether to show how far the probes are.
    """
    views = data.train
    if recipe.augment != "none":
        views = in_views(data.train, recipe.augment, 1 + VIEWS, recipe.seed)
    if strength is not None:
        _start_from_probe(model, views, strength, progress)
    if _is_late(model.prompt) and recipe.augment != "none":
        history = train(model, views, data.val, recipe=updated(recipe, augment="none"))
    else:
        history = train(model, data.train, data.val, recipe=recipe)
    if strength is not None:
        _refit(model, data, recipe.seed, progress)
    return history


def seconds_to_adapt(
    backbone: Backbone, prompt: Prompt, readout: Readout, data: Data, recipe: Recipe, augment: str
) -> float:
    """How long `vpt.adapt` will take here, in seconds.

    backbone: the open one.
    prompt: made for it.
    readout: bound to it.
    data: all parts.
    recipe: how it is trained.
    augment: as for `vpt.adapt`, "auto" included.
    """
    augmented = augment != "none"
    if augment == "auto":
        augmented = backbone.inputs.kind == "image"
    views = 1 + VIEWS if augmented and isinstance(readout, Linear) else 1
    with PromptedModel(backbone, prompt, readout) as model:
        return seconds_of_run(model, data, recipe, views, anew=augmented and not _is_late(prompt))


def choose_augment(backbone: Backbone, data: Data, baselines: Baselines) -> str:
    """ "flip-crop" if mirrored validation images keep their class for the probe, else "crop";
    "none" for sound.
    """
    if backbone.inputs.kind != "image":
        return "none"
    val = data.val
    mirrored = Examples(lambda i: _mirrored(val[i][0]), val.targets, val.classes)
    with PromptedModel(backbone, None, baselines.probe) as model, without_cache(model):
        accuracy = evaluate(model, mirrored)["accuracy"]
    return (
        "flip-crop" if accuracy >= baselines.accuracies(PROBE)["val"] - FLIP_TOLERANCE else "crop"
    )


def _mirrored(image: RawInput) -> RawInput:
    return image.flip(-1) if isinstance(image, Tensor) else image


def _is_late(prompt: Prompt) -> bool:
    """Whether a prompt begins late, so that it learns from a few views of each image, which are
    then computed once and kept.

    Whatever is kept in the end, the views are these: the result is the same without a cache.
    """
    return first_block(prompt.sites()) > 0


def _start_from_probe(
    model: PromptedModel, train: Examples, strength: float, progress: bool
) -> None:
    """Give the readout a probe of the features *with* the untrained prompt acting, so that training
    starts from one.

    It sees augmented views too: a probe of plain views alone can be so far off on shifted ones that
    training destroys it.
    """
    views = train.views()
    what = "features under the new prompt"
    parts: list[tuple[Tensor, Tensor]] = []
    for number, view in enumerate(views):
        # those are not seen again
        with without_cache(model, number > 0 and not _is_late(model.prompt)):
            parts.append(scores(model, view, outputs=True, progress=progress, what=what))
    features, y = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
    of = model.readout.named
    if not of.plain:  # it was chosen for other features
        plain = len(parts[0][1])
        strength = SOFTER * fit_probe(features[:plain], y[:plain], train.classes, of=of.text)[1]
    soft = strength / len(views)
    probe, _ = fit_probe(features, y, train.classes, strength=soft, of=of.text)
    model.readout.load_state_dict(probe.state_dict())


def _refit(model: PromptedModel, data: Data, seed: int, progress: bool) -> None:
    """Keep a new cross-validated probe of the trained prompt's features as readout, if it has less
    loss on validation.
    """
    trained = {name: value.clone() for name, value in model.readout.state_dict().items()}
    loss = evaluate(model, data.val)["loss"]
    what = "features under the trained prompt"
    features, y = scores(model, data.train, outputs=True, progress=progress, what=what)
    probe, _ = fit_probe(features, y, data.classes, seed, of=model.readout.named.text)
    model.readout.load_state_dict(probe.state_dict())
    if evaluate(model, data.val)["loss"] >= loss:
        model.readout.load_state_dict(trained)


def calibrate(
    model: PromptedModel, answers: dict[str, Answers]
) -> tuple[dict[str, Answers], float | None]:
    """Multiply a linear readout, and what it said, by the slope that validation examples ask for:
    (the answers then, the slope). Scores of other readouts stay as they are, and the slope is None.
    """
    if not isinstance(model.readout, Linear):
        return answers, None
    answers, slopes = calibrated_on_val(answers, [PROMPT])
    model.readout.multiply(slopes[PROMPT])
    return answers, slopes[PROMPT]
