"""Opening models by name, folder, file and in hand; and every way that fails."""

from __future__ import annotations

from pathlib import Path

import families
import pytest
import timm
import torch
import transformers
from families import HF_AST, HF_VIT, KeywordTransformer, make, open_tiny
from safetensors.torch import save_file

import vpt
from vpt.errors import BackboneError

TIMM = "vit_tiny_patch16_224.augreg_in21k"


def test_bundled() -> None:
    backbone = vpt.load_backbone("vpt:vit-p8-64")
    assert (backbone.depth, backbone.widths[0], backbone.classes) == (8, 192, 160)
    assert backbone.inputs.size == (64, 64)
    assert backbone.class_names[0] == "goldfish, Carassius auratus"
    assert backbone.identity == {
        "kind": "bundled",
        "source": "vpt:vit-p8-64",
        "weights": "pretrained",
    }
    assert backbone.fingerprint() == vpt.load_backbone("vpt:vit-p8-64").fingerprint()


def test_timm_by_name_random_weights_repeat_and_leave_the_callers_numbers() -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    one = vpt.load_backbone(TIMM, weights="random", seed=1, img_size=32, num_classes=4)
    assert torch.equal(torch.rand(2), expected)
    two = vpt.load_backbone(TIMM, weights="random", seed=1, img_size=32, num_classes=4)
    other = vpt.load_backbone(TIMM, weights="random", seed=2, img_size=32, num_classes=4)
    assert one.fingerprint() == two.fingerprint() != other.fingerprint()
    assert one.inputs.size == (32, 32)
    assert one.inputs.mean == (0.5, 0.5, 0.5)  # the pinned tag's own statistics
    assert one.inputs.crop_pct == 0.9


def test_timm_imagenet_classes_are_named() -> None:
    backbone = vpt.load_backbone(
        "vit_tiny_patch16_224.augreg_in21k_ft_in1k", weights="random", img_size=32
    )
    assert backbone.class_names[1] == "goldfish, Carassius auratus"
    assert len(backbone.class_names) == 1000


def test_transformers_folder(tmp_path: Path) -> None:
    names = dict(enumerate("abcde"))
    model = transformers.ViTForImageClassification(transformers.ViTConfig(**HF_VIT, id2label=names))
    model.save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(
        '{"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6]}'
    )
    backbone = vpt.load_backbone(tmp_path)
    x = backbone.inputs.example(2)
    assert torch.equal(backbone.logits(x), model.eval()(backbone.inputs.normalize(x)).logits)
    assert backbone.class_names == ["a", "b", "c", "d", "e"]
    assert backbone.inputs.mean == (0.1, 0.2, 0.3)
    assert backbone.identity["kind"] == "folder"


def test_ast_folder_at_another_length_interpolates_and_leaves_the_weights(tmp_path: Path) -> None:
    model = transformers.ASTForAudioClassification(transformers.ASTConfig(**HF_AST)).eval()
    model.save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(
        '{"mean": -4.0, "std": 3.0, "sampling_rate": 16000}'
    )
    whole, short = vpt.load_backbone(tmp_path), vpt.load_backbone(tmp_path, seconds=0.4)
    assert whole.inputs.frames == 66
    assert short.inputs.frames == 38
    assert (short.inputs.mean, short.inputs.std, short.inputs.samples) == (-4.0, 3.0, 6400)
    assert whole.fingerprint() == short.fingerprint()
    wave = torch.rand(2, 6400) - 0.5
    assert short.logits((wave, torch.tensor([6400, 3000]))).shape == (2, 4)
    assert whole.logits((wave, torch.tensor([6400, 3000]))).shape == (2, 4)
    assert "seconds" in short.identity
    with pytest.raises(BackboneError, match="needed are at least 16 frames"):
        vpt.load_backbone(tmp_path, seconds=0.1)


def test_ast_at_its_own_length_equals_transformers(tmp_path: Path) -> None:
    model = transformers.ASTForAudioClassification(transformers.ASTConfig(**HF_AST)).eval()
    backbone = vpt.load_backbone(model)
    extractor = transformers.ASTFeatureExtractor(num_mel_bins=36, max_length=66)
    wave = torch.rand(2, 10_000) * 0.2 - 0.1
    features = extractor(
        [w.numpy() for w in wave], sampling_rate=16000, return_tensors="pt"
    ).input_values
    assert torch.allclose(
        backbone.logits((wave, torch.tensor([10_000] * 2))), model(features).logits, atol=1e-5
    )


@pytest.mark.parametrize("ending", ["safetensors", "pt"])
def test_weights_from_a_file(tmp_path: Path, ending: str) -> None:
    source = timm.create_model(TIMM, img_size=32, num_classes=4)
    path = tmp_path / f"w.{ending}"
    (save_file if ending == "safetensors" else torch.save)(source.state_dict(), path)
    backbone = vpt.load_backbone(TIMM, weights=path, img_size=32, num_classes=4)
    assert all(
        torch.equal(v, source.state_dict()[k]) for k, v in backbone.model.state_dict().items()
    )
    with pytest.raises(BackboneError, match="does not hold the weights"):
        vpt.load_backbone(TIMM, weights=path, img_size=32, num_classes=5)


def test_a_pickle_is_not_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self):
            return (Path(tmp_path / "ran").write_text, ("x",))

    torch.save({"a": Evil()}, tmp_path / "w.pt")
    with pytest.raises(BackboneError, match="does not hold the weights"):
        vpt.load_backbone(TIMM, weights=tmp_path / "w.pt", img_size=32)
    assert not (tmp_path / "ran").exists()
    with pytest.raises(BackboneError, match="no weights at"):
        vpt.load_backbone(TIMM, weights=tmp_path / "missing.pt", img_size=32)


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        (
            "vpt:nothing",
            {},
            "there are vpt:ast-tiny, vpt:biased-digits, vpt:biased-portraits, vpt:vit-p8-64",
        ),
        ("vit_base_patch16_999", {}, "Found no model called.*Near: vit_base"),
        ("no/such/folder", {}, "Found no model"),
        ("/no/such", {}, "Found no model"),
        ("nobody-at-all/nothing", {}, "could not be opened"),
        (TIMM, {"weights": "random", "nonsense": 1}, "could not be opened"),
        ("a/b", {"trust_remote_code": True}, "never runs code"),
    ],
)
def test_names_that_lead_nowhere(source: str, options: dict, message: str) -> None:
    with pytest.raises(BackboneError, match=message):
        vpt.load_backbone(source, **options)


def test_modules_in_hand() -> None:
    with pytest.raises(BackboneError, match=r"does not say what its input looks like.*vpt\.Images"):
        vpt.load_backbone(KeywordTransformer())
    with pytest.raises(BackboneError, match="load them into your module first"):
        vpt.load_backbone(make("timm ViT"), weights="random")
    with pytest.raises(BackboneError, match="seconds= is for models of sound"):
        vpt.load_backbone(make("timm ViT"), seconds=1.0)
    with pytest.raises(BackboneError, match="2 class names for a model with 5"):
        vpt.load_backbone(make("timm ViT"), classes=["a", "b"])
    with pytest.raises(BackboneError, match="pool='last'"):
        vpt.load_backbone(make("timm ViT"), pool="last")
    named = vpt.load_backbone(
        make("timm ViT"),
        classes=list("abcde"),
        inputs=vpt.Images(size=(32, 32), mean=(0.5,), std=(0.1,)),
    )
    assert named.class_names == list("abcde")
    assert named.inputs.std == (0.1, 0.1, 0.1)


def test_grey_images() -> None:
    model = timm.models.VisionTransformer(
        img_size=16, patch_size=8, embed_dim=16, depth=2, num_heads=2, num_classes=3, in_chans=1
    )
    backbone = vpt.load_backbone(model)
    assert backbone.inputs.shape == (1, 16, 16)
    assert backbone.logits(torch.rand(2, 1, 16, 16)).shape == (2, 3)


def test_recording_sees_every_block_and_leaves_nothing() -> None:
    backbone = open_tiny("timm ViT")
    x = backbone.inputs.example(2)
    seen = backbone.record(x)
    assert [s["tokens"].shape for s in seen] == [(2, 17, 32)] * 3
    assert [s["keys"].shape for s in seen] == [(2, 2, 17, 16)] * 3
    assert vpt.backbones.count_hooks(backbone.model) == {}
    model = vpt.PromptedModel(backbone, None, vpt.Identity())
    with pytest.raises(vpt.errors.PromptError, match="Detach"):
        backbone.record(x)
    model.close()


FOLDERS = {
    "ViTForMaskedImageModeling": ("ViTConfig", families.HF_VISION | {"encoder_stride": 8}),
    "DeiTForImageClassificationWithTeacher": ("DeiTConfig", families.HF_VIT),
    "VideoMAEForVideoClassification": ("VideoMAEConfig", families.HF_VIT | families.VIDEO),
    "Wav2Vec2ForSequenceClassification": (
        "Wav2Vec2Config",
        families.HF_SPEECH | families.LAYER_NORM,
    ),
    "HubertForCTC": ("HubertConfig", families.HF_SPEECH | {"vocab_size": 8}),
    "WhisperForConditionalGeneration": ("WhisperConfig", families.HF_WHISPER),
    "Dinov2Model": ("Dinov2Config", families.HF_VISION),
    "SwinForImageClassification": (
        "SwinConfig",
        families.SWIN | {"image_size": 64, "num_labels": 5},
    ),
}


@pytest.mark.parametrize("name", FOLDERS)
def test_folders_of_transformers_open_as_what_they_are(name: str, tmp_path: Path) -> None:
    """Twice the same features, the saved weights, and no part that nobody trained."""
    config, sizes = FOLDERS[name]
    torch.manual_seed(0)
    model = families.hf(name, config, sizes).eval()
    model.save_pretrained(tmp_path / "m")
    seconds = 0.1 if "Wav2Vec2" in name or "Hubert" in name else None
    one, two = (vpt.load_backbone(str(tmp_path / "m"), seconds=seconds) for _ in range(2))
    x = one.inputs.example(2)
    assert torch.equal(one.features(x), two.features(x))
    assert one.fingerprint() == two.fingerprint()
    given, extra = one.inputs.arguments(*one.inputs.prepare(x))
    with torch.no_grad():
        if one.classes:
            assert torch.equal(one.logits(x), model(given, **extra).logits)
        elif name == "ViTForMaskedImageModeling":
            assert torch.equal(one.features(x), model.vit(given).last_hidden_state[:, 0])
        elif name == "WhisperForConditionalGeneration":
            assert torch.allclose(
                one.features(x), model.model.encoder(given).last_hidden_state.mean(1), atol=1e-6
            )
    with vpt.PromptedModel(
        one, vpt.DeepTokens.like(one, 2), vpt.Linear(one.out_features, 2)
    ) as prompted:
        assert prompted(x).shape == (2, 2)
    random = vpt.load_backbone(str(tmp_path / "m"), weights="random", seed=3, seconds=seconds)
    assert type(random.model) is type(one.model)
    assert random.fingerprint() != one.fingerprint()


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
@pytest.mark.parametrize("name", ["vpt:vit-p8-64", "vpt:ast-tiny"])
def test_weights_held_in_less_memory_keep_their_fingerprint(
    name: str, dtype: str, tmp_path: Path
) -> None:
    whole, half = vpt.load_backbone(name), vpt.load_backbone(name, dtype=dtype)
    assert {p.dtype for p in half.model.parameters()} == {
        {"bf16": torch.bfloat16, "fp16": torch.float16}[dtype]
    }
    x = whole.inputs.example(2)
    found, needed = half.features(x), whole.features(x)
    assert found.dtype == torch.float32
    assert (found - needed).norm() / needed.norm() < 0.05
    assert half.fingerprint() == whole.fingerprint()
    prompt = vpt.DeepTokens.like(half, 2)
    with vpt.PromptedModel(half, prompt, vpt.Identity()) as model:
        model(x).sum().backward()
        assert prompt.tokens.dtype == prompt.tokens.grad.dtype == torch.float32
        vpt.save(tmp_path / "p.vpt", model)
    assert torch.equal(vpt.load(tmp_path / "p.vpt", whole).prompt.tokens, prompt.tokens)
    with torch.no_grad():
        next(half.model.parameters()).add_(1)
    assert half.fingerprint() != whole.fingerprint()  # changed weights are other weights


def test_a_module_that_someone_holds_is_not_rounded_and_an_unknown_dtype_is_refused() -> None:
    with pytest.raises(
        vpt.errors.BackboneError, match="a module you hold would be rounded for good"
    ):
        vpt.load_backbone(make("timm ViT"), dtype="bf16")
    with pytest.raises(
        vpt.errors.BackboneError, match="dtype='int4'; needed is one of fp32, bf16, fp16"
    ):
        vpt.load_backbone("vpt:vit-p8-64", dtype="int4")
