"""The real Trainer learns a wrapped model from what the models' own processors make; it says what
`vpt.predict` says.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from families import make, open_tiny
from helpers import colours, state, tiny_model, write_images
from PIL import Image
from safetensors.torch import load_file

import vpt
from vpt import hf
from vpt.data.given import all_given, examples_of
from vpt.files import learned
from vpt.training.evaluation import scores

RATE = 16000


def said(model: vpt.PromptedModel, given: object) -> torch.Tensor:
    """The scores behind `vpt.predict`."""
    things = list(all_given(given, model.backbone.inputs))
    return scores(model, examples_of(things, model.backbone.inputs))[0]


def drawn(model: vpt.PromptedModel) -> vpt.PromptedModel:
    """The model with all that learns drawn at random, so that nothing acts by zero."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameters in model.trained_parameters().values():
            for parameter in parameters:
                parameter.normal_(std=0.3)
    return model.eval()


def prompted(backbone: vpt.Backbone, *, on_input: bool = True) -> vpt.PromptedModel:
    members = [vpt.DeepTokens.like(backbone, 2)]
    members += [vpt.Border.like(backbone, 3)] if on_input else []
    return drawn(
        vpt.PromptedModel(
            backbone, vpt.Stack(members), vpt.Linear(backbone.out_features, ["a", "b", "c"])
        )
    )


def pictures(count: int = 3) -> list[Image.Image]:
    draw = np.random.default_rng(0)
    return [
        Image.fromarray(draw.integers(0, 256, (30 + 7 * i, 61, 3), np.uint8)) for i in range(count)
    ]


def clips(seconds: float, count: int = 3) -> list[np.ndarray]:
    """Noise, the first clip as long as the model hears, the others shorter."""
    draw = np.random.default_rng(0)
    sizes = [int(RATE * seconds) - i * int(RATE * seconds / 4) for i in range(count)]
    return [(0.1 * draw.standard_normal(n) + 0.02).astype(np.float32) for n in sizes]


def checkpoint(folder: Path, name: str) -> tuple[vpt.Backbone, object]:
    """A tiny model and its own image processor, opened from a folder as a published one is."""
    make(name).save_pretrained(folder)
    kinds = {
        "transformers ViT": lambda: transformers.ViTImageProcessor(size=32),
        "transformers CLIP vision": lambda: transformers.CLIPImageProcessor(
            size={"shortest_edge": 32}, crop_size=32
        ),
    }
    kinds[name]().save_pretrained(folder)
    backbone = vpt.load_backbone(str(folder))
    return backbone, transformers.AutoImageProcessor.from_pretrained(folder)


@pytest.mark.parametrize("name", ["transformers ViT", "transformers CLIP vision"])
def test_a_models_own_image_processor_gives_what_predict_says(name: str, tmp_path: Path) -> None:
    backbone, processor = checkpoint(tmp_path, name)
    model = prompted(backbone)
    needed = said(model, pictures())
    found = hf.wrap(model).eval()(**processor(pictures(), return_tensors="pt"))
    assert isinstance(found, transformers.modeling_outputs.ImageClassifierOutput)
    assert found.loss is None
    assert (found.logits - needed).abs().max() < 1e-5
    other = hf.wrap(model)(processor(pictures()[::-1], return_tensors="pt")["pixel_values"])
    assert (other.logits - needed).abs().max() > 1e-3


def test_ast_feature_extractor_gives_what_predict_says() -> None:
    model = prompted(open_tiny("transformers AST"))
    extractor = transformers.ASTFeatureExtractor(num_mel_bins=36, max_length=66)
    waves = clips(model.backbone.inputs.samples / RATE)
    needed = said(model, waves)
    values = extractor(waves, sampling_rate=RATE, return_tensors="pt")["input_values"]
    found = hf.wrap(model).eval()(input_values=values)
    assert isinstance(found, transformers.modeling_outputs.SequenceClassifierOutput)
    assert (found.logits - needed).abs().max() < 1e-5
    plain = torch.nn.utils.rnn.pad_sequence([torch.tensor(w) for w in waves], batch_first=True)
    assert (hf.wrap(model)(input_values=plain).logits - needed).abs().max() < 1e-5


@pytest.mark.parametrize("name", ["transformers wav2vec2", "transformers HuBERT"])
@pytest.mark.parametrize("normalized", [True, False])
def test_waveforms_as_an_extractor_makes_them_give_what_predict_says(
    name: str, normalized: bool
) -> None:
    """With an attention mask (wav2vec2 with layer norm) and without (group norm), normalised and
    not.
    """
    model = prompted(open_tiny(name), on_input=not normalized)
    masked = model.backbone.inputs.masked
    extractor = transformers.Wav2Vec2FeatureExtractor(
        do_normalize=normalized, return_attention_mask=masked
    )
    waves = clips(0.1)
    made = extractor(waves, sampling_rate=RATE, return_tensors="pt", padding=True)
    assert ("attention_mask" in made) == masked
    assert (float(made["input_values"].abs().max()) > 1) == normalized
    found = hf.wrap(model).eval()(**made)
    assert (found.logits - said(model, waves)).abs().max() < 1e-5


def test_a_prompt_on_sound_refuses_what_was_normalised() -> None:
    model = prompted(open_tiny("transformers wav2vec2"))
    with pytest.raises(vpt.errors.InputError, match="do_normalize=False"):
        hf.wrap(model)(input_values=torch.randn(2, 1600))


@pytest.mark.parametrize("name", ["transformers ViT", "transformers AST", "transformers wav2vec2"])
def test_without_a_prompt_it_is_the_model_of_transformers(name: str) -> None:
    backbone = open_tiny(name)
    own, extra = make(name), {}
    if name == "transformers ViT":
        extra = {"pixel_values": backbone.inputs.standardize(backbone.inputs.example(3))}
    elif name == "transformers AST":
        extra = {"input_values": torch.randn(3, 66, 36) * 0.5}
    else:
        wave = torch.randn(3, 1600)
        extra = {"input_values": (wave - wave.mean(1, True)) / wave.std(1, False, True)}
        extra["attention_mask"] = torch.ones(3, 1600, dtype=torch.long)
    found = hf.wrap(vpt.PromptedModel(backbone, None, vpt.Identity())).eval()
    labels = torch.tensor([0, 1, 2])
    with torch.no_grad():
        mine, theirs = found(**extra, labels=labels), own(**extra, labels=labels)
    assert torch.allclose(mine.logits, theirs.logits, atol=2e-5)
    assert torch.allclose(mine.loss, theirs.loss, atol=2e-5)


class Rows(torch.utils.data.Dataset):
    """What a Dataset with a processor set as its transform gives; a column that no model takes is
    left out by the Trainer.
    """

    def __init__(self, model: vpt.PromptedModel, count: int = 24, seed: int = 0) -> None:
        self.examples, self.inputs = colours(count, seed), model.backbone.inputs

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, i: int) -> dict[str, object]:
        x, y = self.examples[i][:2]
        return {"pixel_values": self.inputs.standardize(x), "labels": y, "name": f"{i}"}


def trainer(
    wrapped: torch.nn.Module, out: Path, count: int = 24, **settings: object
) -> transformers.Trainer:
    settings = {"per_device_train_batch_size": 8, "num_train_epochs": 2, **settings}
    how = transformers.TrainingArguments(
        str(out),
        learning_rate=2e-2,
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=False,
        **settings,
    )
    rows = [Rows(wrapped.prompted, count, seed) for seed in range(2)]
    return transformers.Trainer(wrapped, how, train_dataset=rows[0], eval_dataset=rows[1])


def test_the_trainer_learns_the_prompt_alone(tmp_path: Path) -> None:
    model = tiny_model("stack", dropout=0.1)
    before, print_before = state(model), model.backbone.fingerprint()
    wrapped = hf.wrap(model)
    every = {"eval_strategy": "epoch", "save_strategy": "epoch", "logging_strategy": "epoch"}
    run = trainer(wrapped, tmp_path, load_best_model_at_end=True, num_train_epochs=4, **every)
    first = run.evaluate()["eval_loss"]
    modes = []

    class Look(transformers.TrainerCallback):
        def on_step_end(self, *args: object, **more: object) -> None:
            modes.append((model.prompt.training, model.backbone.model.training))

    run.add_callback(Look())
    run.train()
    assert set(modes) == {(True, False)}
    optimized = [p for group in run.optimizer.param_groups for p in group["params"]]
    trained = [p for part in model.trained_parameters().values() for p in part]
    assert {id(p) for p in optimized} == {id(p) for p in trained}
    assert model.backbone.fingerprint() == print_before
    assert not torch.equal(state(model), before)
    losses = [row["eval_loss"] for row in run.state.log_history if "eval_loss" in row]
    assert min(losses) < first - 0.1
    best = load_file(Path(run.state.best_model_checkpoint) / "model.safetensors")
    assert best.keys() == learned(model).keys()
    assert all(torch.equal(best[name], value) for name, value in learned(model).items())
    weights = [p.stat().st_size for p in tmp_path.glob("checkpoint-*/model.safetensors")]
    assert len(weights) == 4
    assert max(weights) < 50_000
    assert run.evaluate()["eval_loss"] == pytest.approx(min(losses), abs=1e-6)
    found = vpt.evaluate(model, colours(24, 1))
    assert found["loss"] == pytest.approx(min(losses), abs=1e-5)  # the model itself says the same


def test_a_run_goes_on_from_a_checkpoint(tmp_path: Path) -> None:
    steps = {"save_strategy": "steps", "save_steps": 3, "num_train_epochs": 2}
    whole, again = tiny_model(dropout=0.1), tiny_model(dropout=0.1)
    trainer(hf.wrap(whole), tmp_path, **steps).train()
    run = trainer(hf.wrap(again), tmp_path, **steps)
    run.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    assert run.state.global_step == 6
    assert torch.equal(state(again), state(whole))


def test_accumulated_gradients_are_those_of_the_whole_batch(tmp_path: Path) -> None:
    found = []
    for size, times in ((8, 1), (4, 2)):
        model = tiny_model()
        settings = {"per_device_train_batch_size": size, "gradient_accumulation_steps": times}
        trainer(hf.wrap(model), tmp_path, optim="sgd", save_strategy="no", **settings).train()
        found.append(state(model))
    assert torch.allclose(*found, atol=1e-6)


def test_the_trainer_learns_from_sound(tmp_path: Path) -> None:
    backbone = open_tiny("transformers wav2vec2")
    readout = vpt.Linear(backbone.out_features, ["quiet", "loud"])
    wrapped = hf.wrap(vpt.PromptedModel(backbone, vpt.DeepTokens.like(backbone, 2), readout))
    waves = clips(0.1, 2)
    extractor = transformers.Wav2Vec2FeatureExtractor(return_attention_mask=True)
    made = extractor(waves * 4, sampling_rate=RATE, return_tensors="pt", padding=True)
    rows = [
        {name: made[name][i] for name in ("input_values", "attention_mask")} | {"label": i % 2}
        for i in range(8)
    ]
    how = transformers.TrainingArguments(
        str(tmp_path),
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=False,
        learning_rate=2e-2,
        num_train_epochs=8,
        save_strategy="no",
    )
    run = transformers.Trainer(wrapped, how, train_dataset=rows, eval_dataset=rows)
    before = run.evaluate()["eval_loss"]
    run.train()
    assert run.evaluate()["eval_loss"] < before
    answers = [found.label for found in vpt.predict(wrapped.prompted, waves)]
    assert answers == ["quiet", "loud"]


def test_a_folder_that_it_saved_opens_as_a_run(tmp_path: Path) -> None:
    backbone = vpt.load_backbone("vpt:vit-p8-64")
    model = prompted(backbone)
    wrapped = hf.wrap(model)
    assert wrapped.save_pretrained(tmp_path / "run") == tmp_path / "run" / "prompt.vpt"
    assert torch.equal(said(vpt.load(tmp_path / "run"), pictures()), said(model, pictures()))


def test_the_prompts_own_penalty_is_learned_and_not_counted_in_evaluation() -> None:
    backbone = open_tiny("timm ViT")
    model = vpt.PromptedModel(backbone, vpt.L2P.like(backbone), vpt.Identity())
    wrapped, x, y = hf.wrap(model), backbone.inputs.example(3), torch.tensor([0, 1, 2])
    x = backbone.inputs.standardize(x)
    bare = wrapped.eval()(x, labels=y)
    assert bare.loss == torch.nn.functional.cross_entropy(bare.logits, y)
    assert wrapped.train()(x, labels=y).loss.item() == pytest.approx(
        (bare.loss + model.prompt.penalty()).item(), abs=1e-6
    )


def test_the_backbone_goes_where_the_wrapped_model_goes() -> None:
    model = tiny_model()
    wrapped = torch.nn.Sequential(hf.wrap(model)).to(torch.bfloat16)
    assert model.backbone.dtype == model.readout.weight.dtype == torch.bfloat16
    assert [name for name, _ in wrapped.named_parameters()] == [f"0.{n}" for n in learned(model)]
    wrapped.eval()
    assert not model.training
    assert not model.prompt.training


def test_a_counted_label_map_stays_and_an_average_does_not_learn() -> None:
    model = tiny_model(readout="map")
    x, y = model.backbone.inputs.example(6), torch.tensor([0, 1, 2] * 2)
    given = model.backbone.inputs.standardize(x)
    with pytest.raises(vpt.errors.PromptError, match=r"vpt\.fit"):
        hf.wrap(model)(given, labels=y)
    model.readout.update(model.outputs(x), y)
    model.readout.settle()
    hf.wrap(model)(given, labels=y).loss.backward()
    assert bool(model.prompt.tokens.grad.any())
    backbone = open_tiny("timm ViT")
    parts = [vpt.Linear(backbone.out_features, 3, of) for of in ("cls", "mean")]
    averaged = hf.wrap(vpt.PromptedModel(backbone, None, vpt.Average(parts)))
    assert not any(p.requires_grad for p in averaged.parameters())


def test_models_that_labels_alone_do_not_teach_are_refused() -> None:
    backbone = open_tiny("timm ViT")
    wide = backbone.out_features
    with pytest.raises(vpt.errors.PromptError, match="PromptedModel"):
        hf.wrap(backbone)
    for readout in (vpt.NearestMean(wide, 3), vpt.RandomRidge(wide, 3)):
        with (
            vpt.PromptedModel(backbone, None, readout) as model,
            pytest.raises(vpt.errors.PromptError, match="learns from statistics"),
        ):
            hf.wrap(model)
    heads = vpt.TaskHeads(wide, {"colour": ["red", "blue"], "size": ["big", "small"]})
    with (
        vpt.PromptedModel(backbone, None, heads) as model,
        pytest.raises(vpt.errors.PromptError, match="2 tasks"),
    ):
        hf.wrap(model)


def test_another_prompt_than_was_wrapped_is_refused() -> None:
    model = tiny_model()
    wrapped = hf.wrap(model)
    model.swap(vpt.DeepTokens.like(model.backbone, 2))
    with pytest.raises(vpt.errors.PromptError, match="wrap again"):
        wrapped(torch.zeros(1, 3, 32, 32))


X = torch.zeros(2, 3, 32, 32)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "Found nothing; this model takes pixel_values"),
        ({"input_values": torch.zeros(2, 1600)}, "Found input_values"),
        ({"pixel_values": X.byte()}, "uint8"),
        ({"pixel_values": X.numpy()}, "ndarray"),
        ({"pixel_values": X[:, :1]}, r"\[2, 1, 32, 32\].*\[B,3,32,32\]"),
        ({"pixel_values": X[..., :16]}, r"\[2, 3, 32, 16\]"),
        ({"pixel_values": X + 200}, "mean and std undone"),
        ({"pixel_values": X * float("nan")}, "finite"),
    ],
)
def test_wrong_pictures(given: dict[str, object], message: str) -> None:
    wrapped = hf.wrap(tiny_model())
    with pytest.raises(vpt.errors.InputError, match=message):
        wrapped(**given)


@pytest.mark.parametrize(
    "labels",
    [torch.tensor([0, 3]), torch.tensor([-1, 0]), torch.tensor([0]), torch.tensor([0.0, 1.0])],
)
def test_wrong_labels(labels: torch.Tensor) -> None:
    with pytest.raises(vpt.errors.DataError, match="from 0 to 2"):
        hf.wrap(tiny_model())(X, labels=labels)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"input_values": torch.zeros(2, 66, 35)}, r"\[2, 66, 35\]"),
        ({"input_values": torch.zeros(2, 1, 66, 36)}, "feature extractor"),
        (
            {"input_values": torch.zeros(2, 66, 36), "attention_mask": torch.ones(2, 9)},
            "attention_mask",
        ),
        ({"pixel_values": X}, "takes input_values"),
    ],
)
def test_wrong_sounds(given: dict[str, object], message: str) -> None:
    wrapped = hf.wrap(prompted(open_tiny("transformers AST")))
    with pytest.raises(vpt.errors.InputError, match=message):
        wrapped(**given)


def test_pixels_that_nobody_normalised_are_told_of_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    backbone, _ = checkpoint(tmp_path, "transformers ViT")
    model, raw = prompted(backbone), torch.rand(2, 3, 32, 32)
    hf.wrap(model)(backbone.inputs.standardize(raw))
    assert not caplog.records
    again = hf.wrap(model)
    again(raw)
    again(raw)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "all in [0,1]" in caplog.text


def test_pipeline(tmp_path: Path) -> None:
    model = prompted(vpt.load_backbone("vpt:vit-p8-64"))
    write_images(tmp_path / "data", per_class=1)
    files = sorted((tmp_path / "data").rglob("*.png"))
    pipe = hf.pipeline(model)
    one = pipe(str(files[0]))
    needed = vpt.predict(model, files[0])[0]
    assert {a["label"]: a["score"] for a in one} == needed.probabilities
    assert [a["score"] for a in one] == sorted((a["score"] for a in one), reverse=True)
    assert pipe(files[0], top_k=1) == one[:1]
    assert pipe(files, batch_size=1) == [pipe(file) for file in files]
    assert pipe([files[0]]) == pipe(iter(files[:1])) == pipe(files[0].parent) == [one]
    picture = Image.open(files[0])
    array = np.asarray(picture)
    assert pipe(picture) == pipe(array) == one
    assert pipe(array[None]) == [one]
    vpt.save(tmp_path / "prompt.vpt", model)
    assert hf.pipeline(tmp_path)(picture)[0]["label"] == needed.label
    with pytest.raises(vpt.errors.BadFilesError):
        pipe("nowhere.png")


def test_pipeline_of_sound() -> None:
    pipe = hf.pipeline(prompted(open_tiny("transformers AST")))
    wave = clips(0.5, 1)[0]
    one = pipe(wave)
    assert {a["label"] for a in one} == {"a", "b", "c"}
    assert pipe({"array": wave, "sampling_rate": RATE}) == one
    assert pipe([wave]) == pipe(np.stack([wave])) == [one]


# its own, and of what it finds here: a backbone in eval mode, a loader without workers
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
def test_lightning_keeps_the_prompt_alone(tmp_path: Path) -> None:
    lightning = pytest.importorskip("lightning")

    class Prompted(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.wrapped = hf.wrap(tiny_model())

        def training_step(self, batch: dict[str, torch.Tensor], number: int) -> torch.Tensor:
            batch.pop("name")
            return self.wrapped(**batch).loss

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.AdamW(self.parameters(), lr=2e-2)

    module, other = Prompted(), Prompted()
    before = state(module.wrapped.prompted)
    run = lightning.Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        default_root_dir=tmp_path,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    run.fit(module, torch.utils.data.DataLoader(Rows(module.wrapped.prompted), 8))
    run.save_checkpoint(tmp_path / "one.ckpt", weights_only=True)
    assert not torch.equal(state(module.wrapped.prompted), before)
    kept = torch.load(tmp_path / "one.ckpt")["state_dict"]
    assert kept.keys() == {f"wrapped.{name}" for name in learned(module.wrapped.prompted)}
    other.load_state_dict(kept)
    assert torch.equal(state(other.wrapped.prompted), state(module.wrapped.prompted))
