"""Pictures are prepared as the model's own library does it: bit for bit as timm, within a grey
level of transformers.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path

import families
import numpy as np
import pytest
import timm
import torch
import transformers
from PIL import Image
from sklearn.datasets import load_sample_images
from timm.data import create_transform, resolve_model_data_config

import vpt
from vpt.backbones.inputs.fitting import fitted, plan
from vpt.data.readers import fit_image

PHOTOS = [Image.fromarray(image) for image in load_sample_images().images]  # 640 × 427
SHAPES = [
    (0, 0, 640, 427),
    (100, 50, 331, 427),
    (0, 0, 213, 120),
    (7, 3, 108, 330),
    (0, 0, 321, 321),
    (0, 0, 40, 33),
]
PICTURES = [PHOTOS[i % 2].crop((x, y, x + w, y + h)) for i, (x, y, w, h) in enumerate(SHAPES)]

SMALL = {"depth": 1, "embed_dim": 24, "num_heads": 2, "pretrained": False}
TIMM = {
    "vit_base_patch16_224.augreg_in21k": (SMALL, "center"),  # crop_pct 0.9
    "deit3_small_patch16_224.fb_in22k_ft_in1k": (SMALL, "center"),  # 1.0
    "vit_base_patch16_siglip_224.webli": (SMALL, "center"),
    "vit_base_patch16_clip_224.openai": (SMALL, "center"),
    "vit_small_patch14_dinov2.lvd142m": (SMALL | {"img_size": 98}, "center"),
    "eva_large_patch14_336.in22k_ft_in1k": (SMALL, "squash"),
    # not square
    "vit_base_patch16_384.augreg_in21k_ft_in1k": (SMALL | {"img_size": (96, 64)}, "center"),
    "deepseek_vit_412m.deepseek_v4_flash_vision_exp": (
        {"depth": 1, "pretrained": False, "embed_dim": 64},
        "border",
    ),
}


@pytest.mark.parametrize("name", TIMM)
def test_bit_for_bit_as_timm(name: str) -> None:
    options, mode = TIMM[name]
    model = timm.create_model(name, **options)
    config = resolve_model_data_config(model)
    assert config["crop_mode"] == mode
    inputs = vpt.load_backbone(model).inputs
    transform = create_transform(**config | {"input_size": (3, *inputs.size)})
    for picture in PICTURES:
        found = inputs.standardize(fit_image(picture, inputs).float()[None] / 255)[0]
        assert torch.equal(found, transform(picture)), (picture.size, inputs)


@pytest.mark.parametrize("mode", ["center", "squash", "border"])
@pytest.mark.parametrize("crop_pct", [1.0, 0.9, 0.875, 0.95])
@pytest.mark.parametrize("size", [(96, 96), (64, 96)])
def test_every_crop_mode_of_timm(mode: str, crop_pct: float, size: tuple[int, int]) -> None:
    mean = (0.4, 0.5, 0.6)
    fit = {"center": "cover"}.get(mode, mode)
    inputs = vpt.Images(size, mean, crop_pct=crop_pct, fit=fit)
    transform = create_transform(
        (3, *size),
        crop_pct=crop_pct,
        crop_mode=mode,
        mean=mean,
        interpolation="bicubic",
        normalize=False,
    )
    for picture in PICTURES:
        assert torch.equal(fitted(picture, inputs), transform(picture)), (picture.size, inputs)


# the preprocessor_config.json of published checkpoints, in the words of the transformers that wrote
# them
IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
HALF = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}
CLIP = {
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
}
YES = {"do_resize": True, "do_normalize": True}
TINY = families.HF | {"image_size": 224, "patch_size": 56}
CHECKPOINTS = {
    "google/vit-base-patch16-224": (
        "ViTModel",
        "ViTConfig",
        TINY,
        YES | HALF | {"feature_extractor_type": "ViTFeatureExtractor", "resample": 2, "size": 224},
    ),
    "facebook/deit-base-distilled-patch16-224": (
        "DeiTModel",
        "DeiTConfig",
        TINY,
        YES
        | IMAGENET
        | {
            "feature_extractor_type": "DeiTFeatureExtractor",
            "resample": 3,
            "size": 256,
            "do_center_crop": True,
            "crop_size": 224,
        },
    ),
    "openai/clip-vit-base-patch32": (
        "CLIPVisionModel",
        "CLIPVisionConfig",
        TINY,
        YES
        | CLIP
        | {
            "feature_extractor_type": "CLIPFeatureExtractor",
            "resample": 3,
            "size": 224,
            "do_center_crop": True,
            "crop_size": 224,
        },
    ),
    "google/siglip-base-patch16-224": (
        "SiglipVisionModel",
        "SiglipVisionConfig",
        TINY,
        YES
        | HALF
        | {
            "image_processor_type": "SiglipImageProcessor",
            "resample": 3,
            "size": {"height": 224, "width": 224},
            "do_rescale": True,
            "rescale_factor": 0.00392156862745098,
        },
    ),
    "microsoft/beit-base-patch16-224": (
        "BeitModel",
        "BeitConfig",
        TINY,
        YES
        | HALF
        | {
            "feature_extractor_type": "BeitFeatureExtractor",
            "resample": 2,
            "size": 224,
            "do_center_crop": False,
            "crop_size": 224,
        },
    ),
    "microsoft/swin-tiny-patch4-window7-224": (
        "SwinModel",
        "SwinConfig",
        families.SWIN | {"image_size": 224, "patch_size": 14},
        YES
        | IMAGENET
        | {
            "feature_extractor_type": "ViTFeatureExtractor",
            "resample": 3,
            "size": 224,
        },
    ),
    "facebook/dinov2-base": (
        "Dinov2Model",
        "Dinov2Config",
        families.HF | {"image_size": 518, "patch_size": 14},
        YES
        | IMAGENET
        | {
            "image_processor_type": "BitImageProcessor",
            "resample": 3,
            "size": {"shortest_edge": 256},
            "do_center_crop": True,
            "crop_size": {"height": 224, "width": 224},
            "do_convert_rgb": True,
            "do_rescale": True,
            "rescale_factor": 0.00392156862745098,
        },
    ),
    "facebook/convnext-tiny-224": (
        "ConvNextModel",
        "ConvNextConfig",
        {"hidden_sizes": [8, 8, 8, 8], "depths": [1, 1, 1, 1], "image_size": 224},
        YES
        | IMAGENET
        | {
            "feature_extractor_type": "ConvNextFeatureExtractor",
            "resample": 3,
            "size": 224,
            "crop_pct": 0.875,
        },
    ),
    "facebook/dinov3-vits16": (
        "DINOv3ViTModel",
        "DINOv3ViTConfig",
        TINY,
        YES
        | IMAGENET
        | {
            "image_processor_type": "DINOv3ViTImageProcessorFast",
            "resample": 2,
            "do_rescale": True,
            "size": {"height": 224, "width": 224},
        },
    ),
}


def checkpoint(folder: Path, name: str, **changes: object) -> Path:
    """A folder of a tiny model with the words of a published one; a change to None takes a word
    out.
    """
    model, config, sizes, words = CHECKPOINTS[name]
    families.hf(model, config, sizes).save_pretrained(folder)
    said = {key: value for key, value in (words | changes).items() if value is not None}
    (folder / "preprocessor_config.json").write_text(json.dumps(said))
    return folder


def off(inputs: vpt.Images, folder: Path) -> float:
    """The most grey levels by which ours differs from the checkpoint's own processor."""
    processor, worst = transformers.AutoImageProcessor.from_pretrained(folder), 0.0
    levels = torch.tensor(inputs.std).view(-1, 1, 1) * 255
    for picture in PICTURES:
        needed = processor(images=picture, return_tensors="pt")["pixel_values"][0]
        found = inputs.standardize(fit_image(picture, inputs).float()[None] / 255)[0]
        worst = max(worst, float(((found - needed) * levels).abs().max()))
    return worst


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_within_a_grey_level_of_the_checkpoints_own_processor(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = checkpoint(tmp_path / "m", name)
    with caplog.at_level(logging.WARNING, logger="vpt"):
        backbone = vpt.load_backbone(folder)
    assert not caplog.records
    assert backbone.inputs.size == (224, 224)  # DINOv2 was fed 518 × 518
    assert off(backbone.inputs, folder) <= 1.01


@pytest.mark.parametrize(
    "changes",
    [
        {"do_normalize": False},
        {"do_rescale": False},
        {"rescale_factor": 1 / 127.5},
        {"resample": 0},
        {"resample": 1},
        {"do_center_crop": False, "size": {"height": 224, "width": 224}},
        {"do_resize": False},
        {"crop_size": {"height": 224, "width": 224}, "size": {"shortest_edge": 301}},
        {"crop_size": {"height": 224, "width": 224}, "size": {"shortest_edge": 200}},
        {"image_mean": None, "image_std": None},
    ],
    ids=str,
)
def test_every_word_of_a_processor_is_read(changes: dict, tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "m", "openai/clip-vit-base-patch32", **changes)
    assert off(vpt.load_backbone(folder).inputs, folder) <= (
        2.01 if changes.get("resample") == 1 else 1.01
    )


def test_a_processor_that_does_something_else_is_told_apart(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Colours in the other order: nothing in `Images` says that."""
    sizes = {
        "hidden_sizes": [8, 8, 8],
        "neck_hidden_sizes": [8, 8, 8, 8, 8, 8, 8],
        "num_attention_heads": 2,
        "image_size": 64,
    }
    families.hf("MobileViTModel", "MobileViTConfig", sizes).save_pretrained(tmp_path / "m")
    words = YES | {
        "image_processor_type": "MobileViTImageProcessor",
        "do_flip_channel_order": True,
        "do_center_crop": True,
        "size": {"shortest_edge": 72},
        "crop_size": {"height": 64, "width": 64},
    }
    (tmp_path / "m" / "preprocessor_config.json").write_text(json.dumps(words))
    with caplog.at_level(logging.WARNING, logger="vpt"):
        vpt.load_backbone(tmp_path / "m")
    assert "prepares pictures otherwise than vpt can (up to" in caplog.text


# where nothing says it ------------------------------------------------------------------
@pytest.mark.parametrize("name", CHECKPOINTS)
def test_a_module_in_hand_gets_what_its_family_has_and_it_is_said(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """CLIP, DeiT, Swin and DINOv2 silently got a mean of 0.5."""
    model, config, sizes, words = CHECKPOINTS[name]
    with caplog.at_level(logging.WARNING, logger="vpt"):
        inputs = vpt.load_backbone(families.hf(model, config, sizes)).inputs
    assert inputs.mean == tuple(words["image_mean"])
    assert inputs.std == tuple(words["image_std"])
    assert inputs.interpolation == {2: "bilinear", 3: "bicubic"}[words["resample"]]
    assert inputs.size == (224, 224)
    assert "--inputs mean=" in caplog.text
    assert str(inputs) in caplog.text


def test_a_folder_without_a_processor_is_the_same(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = checkpoint(tmp_path / "m", "facebook/dinov2-base")
    needed = vpt.load_backbone(folder).inputs
    (folder / "preprocessor_config.json").unlink()
    with caplog.at_level(logging.WARNING, logger="vpt"):
        assert vpt.load_backbone(folder).inputs == needed
    assert "those of the published dinov2 models are assumed" in caplog.text


def test_a_module_that_came_from_a_checkpoint_has_its_words(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = checkpoint(tmp_path / "m", "openai/clip-vit-base-patch32", image_mean=[0.1, 0.2, 0.3])
    with caplog.at_level(logging.WARNING, logger="vpt"):
        inputs = vpt.load_backbone(transformers.CLIPVisionModel.from_pretrained(folder)).inputs
    assert inputs.mean == (0.1, 0.2, 0.3)
    assert not caplog.records


def test_what_a_processor_leaves_open_is_the_models(tmp_path: Path) -> None:
    """Its class would have 256 → 224; this model has 96."""
    model, config, sizes, _ = CHECKPOINTS["facebook/deit-base-distilled-patch16-224"]
    families.hf(model, config, sizes | {"image_size": 96, "patch_size": 32}).save_pretrained(
        tmp_path / "m"
    )
    (tmp_path / "m" / "preprocessor_config.json").write_text(json.dumps(IMAGENET))
    inputs = vpt.load_backbone(tmp_path / "m").inputs
    assert (inputs.size, inputs.resize_to, inputs.fit) == ((96, 96), (110, 110), "squash")
    assert inputs.mean == tuple(IMAGENET["image_mean"])


def test_what_is_said_is_taken_and_nothing_is_assumed(caplog: pytest.LogCaptureFixture) -> None:
    model = families.hf("CLIPVisionModel", "CLIPVisionConfig", TINY)
    with caplog.at_level(logging.WARNING, logger="vpt"):
        inputs = vpt.load_backbone(
            model, inputs={"mean": (0.1, 0.2, 0.3), "fit": "squash", "crop_pct": 0.875}
        ).inputs
    assert (inputs.mean, inputs.std, inputs.fit, inputs.resize_to) == (
        (0.1, 0.2, 0.3),
        tuple(CLIP["image_std"]),
        "squash",
        (256, 256),
    )
    assert not caplog.records
    with pytest.raises(vpt.errors.InputError, match="Found inputs size='a', which cannot be"):
        vpt.load_backbone(families.make("timm ViT"), inputs={"size": "a"})
    with pytest.raises(vpt.errors.BackboneError, match="Found inputs=5; needed is vpt"):
        vpt.load_backbone(families.make("timm ViT"), inputs=5)
    with pytest.raises(
        vpt.errors.InputError, match="Found inputs colour; what can be said is size, mean, std"
    ):
        vpt.load_backbone(families.make("transformers ViT"), inputs={"colour": 1})
    with pytest.raises(
        vpt.errors.InputError, match="fit='stretch'; needed is one of cover, squash, border, crop"
    ):
        vpt.load_backbone(families.make("timm ViT"), inputs={"fit": "stretch"})


def test_the_prompt_file_records_all_of_it(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "m", "facebook/deit-base-distilled-patch16-224")
    said = {"mean": (0.1, 0.2, 0.3), "interpolation": "lanczos"}
    backbone = vpt.load_backbone(folder, inputs=said)
    with vpt.PromptedModel(backbone, None, vpt.Linear(backbone.out_features, 2)) as model:
        path = vpt.save(tmp_path / "a.vpt", model)
    recorded = vpt.files.read(path)[0]["inputs"]
    assert recorded == backbone.inputs.describe()
    assert vpt.Images.described(json.loads(json.dumps(recorded))) == backbone.inputs
    backbone.release()
    with pytest.raises(
        vpt.errors.PromptFileError,
        match=r"--inputs interpolation=lanczos --inputs mean=0\.1,0\.2,0\.3",
    ):
        vpt.load(path, vpt.load_backbone(folder))
    # a name is opened as the file says
    assert vpt.load(path, folder).backbone.inputs == backbone.inputs


def test_a_processor_that_transformers_does_not_know_still_says_its_statistics(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = checkpoint(
        tmp_path / "m",
        "openai/clip-vit-base-patch32",
        feature_extractor_type="MyProcessor",
        image_mean=[0.1, 0.2, 0.3],
    )
    with caplog.at_level(logging.WARNING, logger="vpt"):
        inputs = vpt.load_backbone(folder).inputs
    assert (inputs.mean, inputs.interpolation) == ((0.1, 0.2, 0.3), "bicubic")
    assert "are assumed" in caplog.text


# geometry -------------------------------------------------------------------------------
def test_extreme_pictures_are_cut_before_they_are_resized() -> None:
    """60,000 × 1 pixels were scaled to three milliards of them first."""
    inputs = vpt.Images(224, interpolation="bilinear")
    line = Image.frombytes("RGB", (60_000, 1), bytes(range(240)) * 750)
    assert plan(1, 60_000, inputs).size == (224, 13_440_000)
    found = fitted(line, inputs)
    assert found.shape == (3, 224, 224)
    # two pixels, seen very large
    middle = torch.from_numpy(np.array(line.crop((29_999, 0, 30_001, 1)))[0]).float()
    assert (found.float().mean((1, 2)) - middle.mean(0)).abs().max() < 2


def test_cut_first_is_the_same_as_cut_last(monkeypatch: pytest.MonkeyPatch) -> None:
    for inputs in (
        vpt.Images(64, crop_pct=0.8),
        vpt.Images((48, 64), fit="squash", crop_pct=0.7, like="transformers"),
    ):
        for picture in PICTURES:
            whole = fitted(picture, inputs)
            with monkeypatch.context() as patch:
                patch.setattr("vpt.backbones.inputs.fitting.MOST", 0)
                assert (fitted(picture, inputs).int() - whole.int()).abs().max() <= 2


def test_odd_offsets_are_rounded_as_each_library_does() -> None:
    assert plan(227, 224, vpt.Images(224, fit="crop")).top == 2
    assert plan(227, 224, vpt.Images(224, fit="crop", like="transformers")).top == 1
    assert plan(221, 224, vpt.Images(224, fit="crop")).top == -1


def test_grey_pictures() -> None:
    inputs = vpt.Images(32, 0.5, 0.5, channels=1, fit="border")
    found = fit_image(PICTURES[1], inputs)
    assert found.shape == (1, 32, 32)
    assert found[0, 0, 0] == 128
