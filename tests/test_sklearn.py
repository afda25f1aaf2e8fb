"""The classifier of scikit-learn, with the real library: its own checks, pipelines, searches,
pickles.
"""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path

import joblib
import numpy as np
import pytest
import soundfile
import torch
from families import SOUND, KeywordTransformer, make, open_tiny
from helpers import colours, in_threads, write_sounds
from PIL import Image
from sklearn.base import BaseEstimator, clone
from sklearn.ensemble import VotingClassifier
from sklearn.exceptions import NotFittedError, SkipTestWarning
from sklearn.model_selection import GridSearchCV, cross_val_predict, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils import get_tags
from sklearn.utils.estimator_checks import estimator_checks_generator
from sklearn.utils.validation import check_is_fitted, validate_data
from transformers import ViTConfig, ViTForImageClassification

import vpt
from vpt.data import Examples
from vpt.errors import PromptError, PromptFileError, TrainingError, VptError
from vpt.sklearn import PromptClassifier
from vpt.training.evaluation import scores

DATA = colours(24)
PIXELS = torch.stack([DATA[i][0] for i in range(len(DATA))])  # [24,3,32,32] in [0,1]
BYTES = (PIXELS.movedim(1, -1) * 255).byte().numpy()  # [24,32,32,3]
NAMES = np.array(DATA.classes)[DATA.targets]


def tiny(backbone: object = None, prompt: str = "border:1", **more: object) -> PromptClassifier:
    """A classifier that learns in a moment."""
    more = {"epochs": 1} | more if prompt != "auto" else more
    return PromptClassifier(open_tiny("timm ViT") if backbone is None else backbone, prompt, **more)


@pytest.fixture(scope="module")
def fitted() -> PromptClassifier:
    """Not to be fitted again."""
    return tiny().fit(BYTES, NAMES)


# scikit-learn's own checks --------------------------------------------------------------
class OfTables(PromptClassifier):
    """Rows of a table as grey pictures: the data of scikit-learn's checks are tables."""

    def fit(self, X: object, y: object) -> OfTables:
        X, y = validate_data(self, X, y)
        return super().fit(_shades(X), y)

    def predict_proba(self, X: object) -> np.ndarray:
        check_is_fitted(self)
        return super().predict_proba(_shades(validate_data(self, X, reset=False)))

    def __sklearn_tags__(self) -> object:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = True
        return tags


def _shades(table: np.ndarray) -> np.ndarray:
    return np.repeat(1 / (1 + np.exp(-table.astype(float)))[:, None], 4, 1)


EXPECTED = {
    "check_estimators_overwrite_params": "joblib hashes a module and its copy to two numbers;"
    " test_a_module_stays_as_it_is compares a module with itself",
    "check_methods_subset_invariance": "in fp32 a batch of another size adds up in another order",
}
SLOW = (  # each learns several times, or once more of what others here tell
    "check_classifier_data_not_an_array",
    "check_classifiers_classes",
    "check_classifiers_train",
    "check_dont_overwrite_parameters",
    "check_dtype_object",
    "check_estimators_dtypes",
    "check_estimators_nan_inf",
    "check_estimators_overwrite_params",
    "check_f_contiguous_array_estimator",
    "check_fit2d_1feature",
    "check_fit_score_takes_y",
    "check_methods_subset_invariance",
    "check_n_features_in",
    "check_pipeline_consistency",
    "check_positive_only_tag_during_fit",
    "check_readonly_memmap_input",
    "check_supervised_y_2d",
)


def _checks() -> Iterator[object]:
    # a module, not a backbone: that nothing of it changes is among what is checked
    estimator = OfTables(make("timm ViT"), "border:1", epochs=1)
    for _, check in estimator_checks_generator(estimator, legacy=True):
        name = check.func.__name__
        marks = [pytest.mark.long] * (name in SLOW)
        if name in EXPECTED:
            marks.append(pytest.mark.xfail(reason=EXPECTED[name], strict=True))
        said = "-".join([name, *(f"{key}={value}" for key, value in check.keywords.items())])
        yield pytest.param(estimator, check, id=said, marks=marks)


@pytest.mark.parametrize(("estimator", "check"), list(_checks()))
def test_check_of_scikit_learn(estimator: OfTables, check: Callable) -> None:
    check(estimator)


def test_its_tags_say_what_it_takes() -> None:
    tags = get_tags(PromptClassifier())
    assert tags.estimator_type == "classifier"
    assert (tags.input_tags.two_d_array, tags.input_tags.string) == (False, True)
    with pytest.warns(SkipTestWarning, match="three_d_array=True"):
        checks = list(estimator_checks_generator(PromptClassifier(), legacy=True))
    for _, check in checks:
        check(PromptClassifier())


# inputs and labels ----------------------------------------------------------------------
def test_every_kind_of_picture_is_the_same_picture(
    fitted: PromptClassifier, tmp_path: Path
) -> None:
    pictures = [Image.fromarray(pixels) for pixels in BYTES]
    for i, picture in enumerate(pictures):
        picture.save(tmp_path / f"{i}.png")
    paths = [tmp_path / f"{i}.png" for i in range(len(pictures))]
    kinds = {
        "floats": BYTES / 255,
        "tensor": torch.from_numpy(BYTES).movedim(-1, 1),
        "pictures": pictures,
        "paths": paths,
        "texts": np.array([str(path) for path in paths]),
    }
    expected = fitted.predict_proba(BYTES)
    for kind, given in kinds.items():
        assert np.array_equal(fitted.predict_proba(given), expected), kind
    assert np.array_equal(tiny().fit(paths, NAMES).predict_proba(paths), expected)


@pytest.mark.parametrize(
    "classes", [(7, 2, 5), ("b", "c", "a"), (2.0, 1.0, 3.0), (True, False, True)]
)
def test_labels_keep_their_type_and_order(classes: tuple[object, ...]) -> None:
    y = np.array([classes[label] for label in DATA.targets])
    found = tiny().fit(PIXELS, y)
    assert found.classes_.tolist() == sorted(set(classes))
    assert found.predict(PIXELS).dtype == y.dtype
    assert found.score(PIXELS, y) > 0.9
    shares = found.predict_proba(PIXELS)
    assert shares.shape == (len(y), len(set(classes)))
    assert shares.sum(1) == pytest.approx(1)


def test_sound_from_files_and_from_waveforms(tmp_path: Path) -> None:
    torch.manual_seed(0)
    backbone = vpt.load_backbone(KeywordTransformer(), inputs=SOUND)
    paths = sorted(write_sounds(tmp_path, rate=SOUND.sample_rate).rglob("*.flac"))
    names = [path.parent.name for path in paths]
    found = tiny(backbone, "auto").fit(paths, names)
    assert found.score(paths, names) > 0.7
    waves = [soundfile.read(path, dtype="float32")[0] for path in paths]
    said = [{"array": wave, "sampling_rate": SOUND.sample_rate} for wave in waves]
    for given in (waves, said):
        assert np.array_equal(found.predict_proba(given), found.predict_proba(paths))
    assert found.predict(torch.rand(3, SOUND.samples) - 0.5).shape == (3,)


@pytest.mark.parametrize("prompt", ["auto", "deep:1"])
def test_it_says_what_adapt_says(prompt: str) -> None:
    found = tiny(prompt=prompt, random_state=3).fit(PIXELS, NAMES)
    settings = {} if prompt == "auto" else {"epochs": 1}
    names = found.classes_.tolist()
    data = Examples(list(PIXELS).__getitem__, [names.index(name) for name in NAMES], names)
    result = vpt.adapt(
        {"train": data},
        open_tiny("timm ViT"),
        prompt,
        seed=3,
        test_share=0,
        progress=False,
        **settings,
    )
    with result.model as model:
        expected = torch.softmax(scores(model, data)[0].double(), 1)
    assert np.array_equal(found.predict_proba(PIXELS), expected.numpy())
    assert found.report_["val_accuracy"] == result.metrics["val_accuracy"]


def test_the_seed_alone_decides() -> None:
    answers = []
    for state, elsewhere in ((1, 5), (1, 6), (np.random.RandomState(1), 5)):
        torch.manual_seed(elsewhere)
        np.random.seed(elsewhere)
        found = tiny(prompt="deep:1", random_state=state).fit(PIXELS, NAMES)
        answers.append(found.predict_proba(PIXELS))
    assert np.array_equal(answers[0], answers[1])
    assert not np.array_equal(answers[0], answers[2])


# in scikit-learn ------------------------------------------------------------------------
def test_cross_validation_in_a_pipeline() -> None:
    mirror = FunctionTransformer(lambda pictures: pictures[:, :, ::-1])
    pipeline = make_pipeline(mirror, tiny())
    assert cross_val_score(pipeline, BYTES, NAMES, cv=2).mean() > 0.9
    shares = cross_val_predict(tiny(), list(BYTES), NAMES, cv=2, method="predict_proba")
    assert shares.shape == (24, 3)


def test_a_search_over_prompts() -> None:
    search = GridSearchCV(tiny(), {"prompt": ["border:1", "deep:1"]}, cv=2, scoring="neg_log_loss")
    search.fit(BYTES, NAMES)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    assert search.best_estimator_.score(BYTES, NAMES) > 0.9


def test_a_vote_of_two_prompts() -> None:
    """Its members are cloned, and both are asked."""
    vote = VotingClassifier([("one", tiny()), ("two", tiny(prompt="deep:1"))], voting="soft")
    assert vote.fit(PIXELS.numpy(), NAMES).score(PIXELS.numpy(), NAMES) > 0.9


def test_clones_begin_anew(fitted: PromptClassifier) -> None:
    other = clone(fitted)
    assert not hasattr(other, "classes_")
    params = other.get_params()
    assert params.pop("backbone").fingerprint() == fitted.backbone.fingerprint()
    assert params == {k: v for k, v in fitted.get_params().items() if k != "backbone"}
    assert other.set_params(prompt="deep:1").prompt == "deep:1"
    assert fitted.prompt == "border:1"


# models that are handed over ------------------------------------------------------------
def hooks(model: torch.nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


def test_a_module_stays_as_it_is() -> None:
    module = make("timm ViT").train()
    before = joblib.hash(module)
    found = tiny(module).fit(PIXELS, NAMES)
    for _ in range(2):
        found.predict(PIXELS)
        pickle.dumps(found)
        assert hooks(module) == 0
        assert joblib.hash(module) == before
        found.set_params(prompt="deep:1").fit(PIXELS, NAMES)


def test_two_share_a_backbone_and_threads_take_turns(fitted: PromptClassifier) -> None:
    other = tiny(fitted.backbone, "deep:1").fit(PIXELS, NAMES)
    expected = [found.predict_proba(PIXELS) for found in (fitted, other)]
    answers: dict[int, np.ndarray] = {}

    def ask(i: int) -> None:
        answers[i] = (fitted, other)[i % 2].predict_proba(PIXELS)

    in_threads(ask)
    assert all(np.array_equal(answers[i], expected[i % 2]) for i in range(4))


def test_a_backbone_in_use_is_refused_and_then_bare(fitted: PromptClassifier) -> None:
    backbone = open_tiny("timm ViT")
    with (
        vpt.PromptedModel(backbone, None, vpt.Linear(backbone.out_features, 2)),
        pytest.raises(PromptError, match="already has a prompt"),
    ):
        tiny(backbone).fit(PIXELS, NAMES)
    module = make("timm ViT")
    with pytest.raises(VptError):
        tiny(module, "deep:0").fit(PIXELS, NAMES)
    assert hooks(module) == 0
    assert vpt.load_backbone(module).depth == 3


# pickles --------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", ["backbone", "module", "name"])
def test_a_pickle_says_the_same_to_the_bit(kind: str) -> None:
    given = {"backbone": None, "module": make("timm ViT"), "name": "vpt:vit-p8-64"}[kind]
    found = tiny(given).fit(PIXELS, NAMES)
    expected = found.predict_proba(PIXELS)
    data = pickle.dumps(found)
    assert (len(data) < 60_000) == (kind == "name")  # the weights are 11 MB
    del found  # it is nobody's model any more
    for other in (pickle.loads(data), copy.deepcopy(pickle.loads(data))):
        assert np.array_equal(other.predict_proba(PIXELS), expected)
        assert other.classes_.tolist() == ["blue", "green", "red"]


def test_a_pickle_knows_its_backbone(tmp_path: Path) -> None:
    def weights(seed: int) -> None:
        torch.manual_seed(seed)
        size = {"hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 64}
        config = ViTConfig(num_hidden_layers=2, image_size=32, patch_size=8, **size)
        ViTForImageClassification(config).save_pretrained(tmp_path)

    weights(0)
    found = tiny(str(tmp_path)).fit(PIXELS, NAMES)
    expected, data = found.predict_proba(PIXELS), pickle.dumps(found)
    assert np.array_equal(pickle.loads(data).predict_proba(PIXELS), expected)
    weights(1)
    with pytest.raises(PromptFileError, match="weights"):
        pickle.loads(data)


def test_an_unfitted_one_is_pickled_too() -> None:
    other = pickle.loads(pickle.dumps(PromptClassifier("vpt:vit-p8-64", "deep:2", lr=0.1)))
    assert isinstance(other, BaseEstimator)
    assert other.get_params()["lr"] == 0.1


def test_what_it_learned_is_saved_as_any_prompt(fitted: PromptClassifier, tmp_path: Path) -> None:
    vpt.save(tmp_path / "prompt.vpt", fitted.model_)
    with vpt.load(tmp_path / "prompt.vpt", fitted.backbone) as model:
        found = vpt.predict(model, BYTES)
    assert [one.label for one in found] == fitted.predict(BYTES).tolist()


# wrong input ----------------------------------------------------------------------------
WRONG = {
    "fewer labels": (PIXELS, NAMES[:-1], "Found 24 inputs and 23 labels"),
    "no labels": (PIXELS, None, "name no classes"),
    "one class": (PIXELS, ["red"] * 24, "1 class \\(red\\); needed are two or more"),
    "no class": ([], [], "Found 0 class"),
    "nothing": ([], ["a", "b"], "list, which holds no inputs"),
    "a folder as text": ("photos", ["a", "b"], "Found str"),
    "a number": (3, ["a", "b"], "Found int"),
    "labels of two kinds": (PIXELS[:2], np.array(["a", 1], object), "name no classes"),
    "labels that measure": (PIXELS[:2], [0.5, 1.25], "Unknown label type"),
    "labels in columns": (PIXELS[:2], [[0, 1], [1, 0]], "1d array"),
    "a label is NaN": (PIXELS[:2], [0.0, np.nan], "NaN"),
    "a pixel is NaN": (np.full((2, 32, 32, 3), np.nan), [0, 1], "NaN or infinite numbers"),
    "floats to 255": (PIXELS * 255, NAMES, "divide 0–255 by 255"),
    "a table": (np.random.default_rng(0).random((2, 5)), [0, 1], "shape \\[5\\]"),
    "numbers": ([3, 4], [0, 1], "Found int"),
    "no such file": (["a.png", "b.png"], [0, 1], "no such file"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_wrong_data(kind: str, fitted: PromptClassifier) -> None:
    given, labels, message = WRONG[kind]
    for error in (VptError, ValueError):
        with pytest.raises(error, match=message):
            tiny(fitted.backbone).fit(given, labels)


def test_a_folder_is_not_one_input(fitted: PromptClassifier, tmp_path: Path) -> None:
    for i in range(2):
        Image.fromarray(BYTES[i]).save(tmp_path / f"{i}.png")
    with pytest.raises(VptError, match="Found 2 pictures or sounds in 1 inputs"):
        fitted.predict([tmp_path])


@pytest.mark.parametrize("method", ["predict", "predict_proba", "score"])
def test_before_it_has_learned(method: str) -> None:
    for error in (VptError, NotFittedError):
        with pytest.raises(error, match="PromptClassifier has not learned yet"):
            getattr(PromptClassifier(), method)(*[BYTES, NAMES][: 1 + (method == "score")])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"prompt": "auto", "epochs": 3}, "Found epochs with prompt='auto'"),
        ({"epochs": 0}, "epochs=0"),
        ({"lr": -1.0}, "lr=-1.0"),
        ({"random_state": -1}, "seed=-1"),
    ],
)
def test_settings_that_are_none(
    settings: dict[str, object], message: str, fitted: PromptClassifier
) -> None:
    with pytest.raises(TrainingError, match=message):
        clone(fitted).set_params(**settings).fit(PIXELS, NAMES)
