"""A prompted model for Hugging Face's `Trainer`, and one called like a `transformers.pipeline`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from vpt.backbones import Backbone, Images, Raw, Sound, Waveform
from vpt.backbones.inputs.checking import check_range, floats
from vpt.errors import DataError, InputError, PromptError
from vpt.errors.places import is_folder
from vpt.files import load, save
from vpt.files.naming import PROMPT
from vpt.model import PromptedModel
from vpt.readouts import LabelMap
from vpt.runs.predicting import predict
from vpt.sites import Pixels

if TYPE_CHECKING:
    from transformers.modeling_outputs import ImageClassifierOutput, SequenceClassifierOutput

LOGGER = logging.getLogger("vpt")
STILL = 1e-5  # less than a step of 16 bits, more than what rounding leaves of a zero
Answer = list[dict[str, str | float]]


def wrap(model: PromptedModel) -> Wrapped:
    """The model for a `Trainer`: what its own processor makes → loss and logits; only the prompt
    and the readout learn, and are in its checkpoints. Raises `PromptError` for a model of several
    tasks, and for a readout that learns from statistics.
    """
    return Wrapped(model)


class Wrapped(nn.Module):
    """A prompted model with the arguments and outputs of a classifier of transformers.

    prompted: the model itself, which learns as this does. Its frozen backbone is no child of this
        module: `parameters` and `state_dict` have the prompt and the readout only.
    """

    prompted: PromptedModel

    def __init__(self, model: PromptedModel) -> None:
        super().__init__()
        _refuse(model)
        object.__setattr__(self, "prompted", model)  # past nn.Module, which would make it a child
        self.prompt = model.prompt
        self.readout = model.readout
        if not model.readout.trainable:  # fit leaves it as it is; an optimizer takes what it sees
            model.readout.requires_grad_(False)
        self._looked = False

    def forward(
        self,
        pixel_values: Tensor | None = None,
        input_values: Tensor | None = None,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> ImageClassifierOutput | SequenceClassifierOutput:
        """What the model's own processor makes, and labels `[B]` → `loss` and `logits` `[B,C]`.
        Raises `InputError` for other values than these, `DataError` for other labels.

        pixel_values: `[B,C,H,W]` of an image processor, of the model's size, mean and standard
            deviation subtracted; they are undone, since a prompt acts on pixels in [0,1].
        input_values: waveforms `[B,T]`, as recorded or normalised, or spectrograms
            `[B,frames,bins]` of AST's feature extractor.
        attention_mask: which samples or frames are valid, 1 or 0; without it, a clip's end where
            nothing changes is padding.
        labels: numbers of classes; with them the loss is the cross-entropy and, in training, the
            prompt's own penalty.
        """
        from transformers.modeling_outputs import ImageClassifierOutput, SequenceClassifierOutput

        model, inputs = self.prompted, self.prompted.backbone.inputs
        if (self.prompt, self.readout) != (model.prompt, model.readout):
            raise PromptError("Found another prompt than was wrapped; call vpt.hf.wrap again.")
        output: Any
        if isinstance(inputs, Images):
            values = _wanted("pixel_values", pixel_values, "input_values", input_values)
            x: Raw = _pictures(values, inputs, look=not self._looked)
            self._looked, output = True, ImageClassifierOutput
        else:
            values = _wanted("input_values", input_values, "pixel_values", pixel_values)
            acts = any(isinstance(site, Pixels) for site in model.attachment.sites)
            x, output = _sounds(values, attention_mask, inputs, acts), SequenceClassifierOutput
        logits = model(x).float()
        loss = self._loss(logits, labels) if labels is not None else None
        return output(loss=loss, logits=logits)

    def _loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        whole = not labels.is_floating_point() and labels.shape == logits.shape[:1]
        if not whole or not 0 <= int(labels.min()) <= int(labels.max()) < logits.shape[1]:
            raise DataError(
                f"Found labels of shape {list(labels.shape)} and type {labels.dtype}, from"
                f" {labels.min()} to {labels.max()}; needed is one whole number for each of"
                f" {len(logits)} examples, from 0 to {logits.shape[1] - 1}."
            )
        loss = F.cross_entropy(logits, labels.long())
        penalty = self.prompted.prompt.penalty() if self.training else None
        return loss if penalty is None else loss + penalty

    def save_pretrained(self, folder: str | Path) -> Path:
        """Write prompt.vpt into a folder, which `vpt.load` opens. Raises `PromptFileError`."""
        return save(Path(folder) / PROMPT, self.prompted)

    def train(self, mode: bool = True) -> Wrapped:
        """As of any module; the backbone stays in eval mode."""
        self.prompted.train(mode)
        return super().train(mode)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Wrapped:
        """Move the backbone, too, which is no child."""
        self.prompted._apply(fn, recurse)
        return self


def _refuse(model: object) -> None:
    """Raise `PromptError` for what cannot learn from the labels of a batch alone."""
    if not isinstance(model, PromptedModel):
        raise PromptError(
            f"Found {type(model).__name__}; needed is a vpt.PromptedModel(backbone, prompt,"
            " readout)."
        )
    if model.tasks:
        raise PromptError(
            f"Found a model of {len(model.tasks)} tasks; a Trainer does not say which each sample"
            " has. Use vpt.fit, or take one out: vpt.multi_task.export(path, model, task)."
        )
    if model.readout.refresh != "never" and not isinstance(model.readout, LabelMap):
        raise PromptError(
            f"{type(model.readout).__name__} learns from statistics of the training data, which a"
            " Trainer does not give it. Use vpt.fit, or vpt.Linear."
        )


def _wanted(name: str, values: Any, other: str, strange: Any) -> Tensor:
    """The argument that this model takes, as floats. Raises `InputError`."""
    if values is None or strange is not None:
        raise InputError(
            f"Found {other if strange is not None else 'nothing'}; this model takes {name}, as its"
            " own processor makes them. A Trainer leaves columns out that have other names."
        )
    return floats(values, name, "what the model's own processor makes, return_tensors='pt'")


def _undone(values: Tensor, inputs: Images | Sound) -> Tensor:
    """Values before `inputs.standardize`, which is linear."""
    zero, one = (inputs.standardize(values.new_full((1, 1, 1), n)) for n in (0.0, 1.0))
    return (values - zero) / (one - zero)


def _pictures(pixels: Tensor, inputs: Images, look: bool) -> Tensor:
    """Pixels as they were before an image processor subtracted mean and standard deviation. look:
    say it where nobody seems to have done so.
    """
    if tuple(pixels.shape[1:]) != inputs.shape:
        raise InputError(
            f"Found pixel_values of shape {list(pixels.shape)}; needed are"
            f" [B,{','.join(map(str, inputs.shape))}] of the model's own image processor."
        )
    x = _undone(pixels, inputs)
    what = f"pixel_values that, with the model's mean and std undone ({inputs}), are pixels"
    check_range(x, 0.0, 1.0, what, "Use the model's own image processor as it is.")
    if look and bool(((pixels >= 0) & (pixels <= 1)).all()) and not torch.equal(x, pixels):
        LOGGER.warning(
            "The first pixel_values are all in [0,1], as pixels are before mean and standard"
            " deviation are subtracted. Needed is what the model's own image processor makes;"
            " pixels in [0,1] go into the PromptedModel itself."
        )
    return x


def _sounds(
    values: Tensor, mask: Tensor | None, inputs: Sound | Waveform, acts_on_input: bool
) -> tuple[Tensor, Tensor]:
    """(Sound as it was before a feature extractor normalised it, valid lengths `[B]`)."""
    dims = (2, 3) if isinstance(inputs, Sound) else (2,)
    if values.ndim not in dims or (mask is not None and mask.shape != values.shape[:2]):
        raise InputError(
            f"Found input_values of shape {list(values.shape)}, or an attention_mask that does not"
            " go with them; needed is what the model's own feature extractor makes."
        )
    if isinstance(inputs, Sound) and values.ndim == 3:
        values = _undone(values, inputs)
    if mask is None:  # padding is no zero where an extractor normalised it, too
        moves = (values - values[:, -1:]).abs() > STILL
        mask = moves if values.ndim == 2 else moves.any(2)
        mask |= mask[:, -2:].any(1, keepdim=True) | ~mask.any(1, keepdim=True)
    places = torch.arange(1, values.shape[1] + 1, device=values.device)
    lengths = (mask.to(values.device).bool() * places).amax(1).clamp(min=1)
    if isinstance(inputs, Waveform) and inputs.normalized:
        values = _recorded(values, inputs, acts_on_input)
    return values, lengths


def _recorded(clips: Tensor, inputs: Waveform, acts_on_input: bool) -> Tensor:
    """Clips `[B,T]` in [-1,1]. One that goes beyond was normalised by its extractor: it becomes as
    loud as usual, and the model's own normalisation undoes that.
    """
    peak = clips.abs().amax(1, keepdim=True)
    loud = peak > 1
    if acts_on_input and bool(loud.any()):
        raise InputError(
            "Found waveforms beyond [-1,1], normalised by a feature extractor, and a prompt that"
            " acts on sound as it was recorded. Make them with do_normalize=False."
        )
    return torch.where(loud, clips * peak.reciprocal().clamp(max=inputs.std), clips)


def pipeline(
    run: PromptedModel | str | Path, *, backbone: Backbone | str | Path | None = None
) -> Callable[..., Any]:
    """A run as one function: `pipe("cat.png", top_k=2)` → `[{"label": …, "score": …}, …]`, the
    likeliest first.

    run: a model, a run's folder, or a prompt file. backbone: to open a run with, as for `vpt.load`.
        The function takes what `vpt.predict` takes, and its `top_k`, `batch_size` and `progress`;
        a list, a folder, a batch or a generator gives a list of such answers.
    """
    model = run if isinstance(run, PromptedModel) else load(run, backbone)

    def pipe(inputs: object, top_k: int | None = 5, **options: Any) -> Answer | list[Answer]:
        found = predict(model, inputs, top_k, **options)
        answers: list[Answer] = [
            [{"label": label, "score": score} for label, score in one.probabilities.items()]
            for one in found
        ]
        return answers[0] if _is_one(inputs, model) else answers

    return pipe


def _is_one(inputs: object, model: PromptedModel) -> bool:
    """Whether this is one thing to classify."""
    if isinstance(inputs, (Tensor, np.ndarray)):
        spec = model.backbone.inputs
        return inputs.ndim <= (len(spec.shape) if isinstance(spec, Images) else 1)
    if isinstance(inputs, (str, Path)):
        return not is_folder(inputs)
    return isinstance(inputs, (Image.Image, Mapping))
