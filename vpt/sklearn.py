"""A prompt on a frozen model as a classifier of scikit-learn, which clones it, searches its
parameters and puts it into pipelines.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from numbers import Integral
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.exceptions import NotFittedError
from sklearn.utils import Tags, assert_all_finite, check_random_state, column_or_1d
from sklearn.utils.multiclass import check_classification_targets
from torch import nn

from vpt.backbones import Backbone
from vpt.data import Examples
from vpt.data.given import all_given, examples_of
from vpt.errors import DataError, VptError
from vpt.files import load, save
from vpt.model import PromptedModel
from vpt.prompts import Prompt
from vpt.runs.adapting import adapt
from vpt.runs.labelled import AUTO
from vpt.runs.opening import open_for, opened
from vpt.sites import Config, InputsLike
from vpt.training.evaluation import scores


class UnusableError(DataError, ValueError):
    """Inputs or labels that no classifier can use; a ValueError, too, as scikit-learn expects."""


class UnfittedError(VptError, NotFittedError):
    """A classifier is asked before it has learned; a `NotFittedError` of scikit-learn, too."""


class PromptClassifier(ClassifierMixin, BaseEstimator):
    """`vpt.adapt` with the methods of scikit-learn.

    backbone: as for `vpt.load_backbone`, or an open one. A name is opened anew by each fit; a model
        is copied by scikit-learn's `clone`, and carries no hook between two calls.
    prompt: as for `vpt.adapt`.
    epochs: passes over the training examples; as in `vpt.Recipe` by default.
    lr: of the prompt; likewise. "auto" takes neither.
    val_share: of the examples, held out to choose by; "auto" learns from these, too.
    random_state: the seed of split, prompt and training; or as scikit-learn takes it.
    verbose: whether to say what is done, and how far it is.

    Once fitted it has `classes_` (the sorted labels), `model_` (the fitted `PromptedModel`, taken
    off its backbone; `vpt.save` takes it) and `report_` (what metrics.json has). A pickle holds a
    prompt file, and the backbone only where it was handed over as a model.
    """

    def __init__(
        self,
        backbone: str | Path | Backbone | nn.Module = "vpt:vit-p8-64",
        prompt: str | Prompt | Callable[[Backbone], Prompt] = AUTO,
        *,
        epochs: int | None = None,
        lr: float | None = None,
        val_share: float = 0.2,
        random_state: int | np.random.RandomState | None = 0,
        verbose: bool = False,
    ) -> None:
        self.backbone = backbone
        self.prompt = prompt
        self.epochs = epochs
        self.lr = lr
        self.val_share = val_share
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X: object, y: object) -> PromptClassifier:
        """Learn from inputs and their labels.

        X: one after the other: paths, pictures of PIL, arrays or tensors of pictures (`[n,H,W,C]`,
            `[n,C,H,W]`, `[n,H,W]`; bytes, or floats in [0,1]), or of sound (`[n,T]` in [-1,1] at
            the model's rate), or {"array", "sampling_rate"}.
        y: `[n]`, whole numbers or texts.

        Raises `UnusableError` for inputs and labels that cannot be used, and what `vpt.adapt`
        raises.
        """
        classes, numbers = _labels(y)
        said: Config = {"epochs": self.epochs, "lr": self.lr}
        with opened(self.backbone) as backbone:
            examples = _read(X, backbone.inputs)
            if len(examples) != len(numbers):
                raise UnusableError(
                    f"Found {len(examples)} inputs and {len(numbers)} labels; needed is a label for"
                    " each input."
                )
            result = adapt(
                {"train": examples.renamed([str(name) for name in classes], numbers.tolist())},
                backbone,
                self.prompt,
                seed=_seed(self.random_state),
                val_share=self.val_share,
                test_share=0,
                progress=self.verbose,
                **{name: value for name, value in said.items() if value is not None},
            )
        result.model.close()
        self._source = self.backbone
        self.classes_ = classes
        self.model_ = result.model
        self.report_ = result.metrics
        return self

    def predict_proba(self, X: object) -> np.ndarray:
        """Probabilities `[n,C]`, in the order of `classes_`. X: as for `fit`.

        Raises `UnfittedError` before `fit`, and `UnusableError` for inputs that cannot be used.
        """
        if not hasattr(self, "model_"):
            raise UnfittedError(
                f"This {type(self).__name__} has not learned yet. Call fit(X, y) first."
            )
        backbone, fitted = self.model_.backbone, self.model_
        examples = _read(X, backbone.inputs)
        # the guard: threads that ask at once take turns
        with (
            backbone.guard,
            PromptedModel(backbone, fitted.prompt, fitted.readout, via=fitted.via) as model,
        ):
            answers, _ = scores(model, examples, progress=self.verbose)
        return torch.softmax(answers.double(), 1).numpy()

    def predict(self, X: object) -> np.ndarray:
        """The likeliest label of each input `[n]`, of the type of the labels. X and what is raised:
        as for `predict_proba`.
        """
        shares = self.predict_proba(X)
        return self.classes_[shares.argmax(1)]

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False  # a table is no picture
        tags.input_tags.three_d_array = True  # grey pictures
        tags.input_tags.string = True  # paths
        return tags

    def __getstate__(self) -> dict[str, Any]:
        state = dict(super().__getstate__())
        if "model_" in state:
            state["model_"] = _as_file(self.model_)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        if "model_" in state:
            state = state | {"model_": _of_file(state["model_"], state["_source"])}
        super().__setstate__(state)


def _labels(y: Any) -> tuple[np.ndarray, np.ndarray]:
    """(the classes, sorted; of each label the number of its class `[n]`)."""
    try:
        labels = column_or_1d(y, warn=True)
        assert_all_finite(labels, input_name="y")
        check_classification_targets(labels)
        classes, numbers = np.unique(labels, return_inverse=True)
    except (TypeError, ValueError) as error:
        raise UnusableError(
            f"Found labels that name no classes ({error}); needed are whole numbers or texts, one"
            " for each input."
        ) from error
    if len(classes) < 2:
        names = f" ({classes[0]})" if len(classes) else ""
        raise UnusableError(f"Found {len(classes)} class{names}; needed are two or more.")
    return classes, numbers


def _read(X: Any, inputs: InputsLike) -> Examples:
    """Inputs as examples without labels, each of them one."""
    try:
        rows = [] if isinstance(X, (str, Mapping)) else list(X)
    except TypeError:
        rows = []
    if not rows:
        raise UnusableError(
            f"Found {type(X).__name__}, which holds no inputs; needed are pictures, sounds or"
            " paths, one after the other."
        )
    try:
        examples = examples_of(list(all_given(rows, inputs)), inputs)
    except DataError as error:
        raise UnusableError(str(error)) from error
    if len(examples) != len(rows):
        raise UnusableError(
            f"Found {len(examples)} pictures or sounds in {len(rows)} inputs; needed is one in"
            " each, so no folder."
        )
    return examples


def _seed(random_state: Any) -> int:
    if isinstance(random_state, Integral):
        return int(random_state)
    return int(check_random_state(random_state).randint(1 << 31))


def _as_file(model: PromptedModel) -> bytes:
    """What the prompt file of a model holds."""
    with TemporaryDirectory() as folder:
        data = save(Path(folder) / "prompt.vpt", model).read_bytes()
    model.backbone.release()  # which has run
    return data


def _of_file(data: bytes, source: str | Path | Backbone | nn.Module) -> PromptedModel:
    """The model of a prompt file, taken off its backbone. source: what opens the backbone."""
    backbone = source if isinstance(source, (str, Path)) else open_for(None, source)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "prompt.vpt"
        path.write_bytes(data)
        model = load(path, backbone)
    model.close()
    return model
