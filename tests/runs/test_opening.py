"""What is opened for the data at hand: the bundled model of its kind, hearing as much at a time as
its clips last.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import transformers
from families import HF_AST, HF_CLAP, HF_WHISPER, SOUND, make, open_tiny
from helpers import colours, write_images, write_sounds

import vpt
from vpt.backbones import count_hooks
from vpt.backbones.inputs.describing import suited_length
from vpt.data import look
from vpt.errors import DataError
from vpt.runs.opening import open_for, opened


def test_the_default_model_follows_the_kind_of_data(tmp_path: Path) -> None:
    """Sound was given to an image model, and the error said nothing of the one that is bundled for
    it.
    """
    sounds, images = (
        look(write_sounds(tmp_path / "sounds")),
        look(write_images(tmp_path / "images", 2)),
    )
    assert open_for(sounds).identity["source"] == "vpt:ast-tiny"
    assert open_for(images).identity["source"] == "vpt:vit-p8-64"
    assert open_for(colours(6)).identity["source"] == "vpt:vit-p8-64"
    with pytest.raises(DataError, match=r"vpt:ast-tiny is bundled"):
        vpt.adapt(tmp_path / "sounds", open_tiny("timm ViT"), progress=False)


@pytest.mark.parametrize(
    ("model", "seconds", "heard"),
    [
        ("ast", 0.3, 0.3),  # far shorter than its own 0.66 s or so: its positions are interpolated
        ("ast", 0.6, None),
        ("ast", 9.0, None),
        ("whisper", 0.3, 0.3),
        ("whisper", 0.01, 0.1),  # no shorter than a mel frame needs
        ("whisper", 900.0, None),
        ("clap", 0.2, None),  # it repeats them
    ],
)
def test_how_much_a_model_hears_follows_the_clips(
    model: str, seconds: float, heard: float | None
) -> None:
    def fresh() -> object:
        return {
            "ast": lambda: transformers.ASTForAudioClassification(transformers.ASTConfig(**HF_AST)),
            "whisper": lambda: transformers.WhisperModel(transformers.WhisperConfig(**HF_WHISPER)),
            "clap": lambda: transformers.ClapAudioModel(transformers.ClapAudioConfig(**HF_CLAP)),
        }[model]()

    found = vpt.load_backbone(fresh(), clips=seconds).inputs
    own = vpt.load_backbone(fresh()).inputs.samples
    assert found.samples == (own if heard is None else round(heard * found.sample_rate))
    if model != "clap":  # what is said outright goes before
        said = vpt.load_backbone(fresh(), clips=seconds, seconds=0.4).inputs
        assert said.samples == pytest.approx(0.4 * said.sample_rate, rel=0.03)


def test_a_model_of_samples_hears_no_more_than_such_models_were_trained_on() -> None:
    module = make("transformers wav2vec2")
    assert (suited_length(module, {}, 0.25), suited_length(module, {}, 40.0)) == (0.25, 15.0)


def test_clips_of_a_folder_are_followed(tmp_path: Path) -> None:
    transformers.ASTForAudioClassification(transformers.ASTConfig(**HF_AST)).save_pretrained(
        tmp_path / "ast"
    )
    source = look(write_sounds(tmp_path / "data"))
    assert source.lengths
    backbone = open_for(source, tmp_path / "ast")
    own = vpt.load_backbone(tmp_path / "ast").inputs.samples
    longest = source.clip
    assert longest > 0.25
    assert backbone.inputs.samples == own
    source.lengths[:] = [0.2]
    short = open_for(source, tmp_path / "ast")
    assert short.inputs.samples == pytest.approx(0.2 * short.inputs.sample_rate, rel=0.1)
    assert (
        open_for(source, tmp_path / "ast", seconds=0.5).inputs.samples
        == 0.5 * backbone.inputs.sample_rate
    )
    assert open_for(source, backbone) is backbone


def test_what_was_opened_for_a_run_that_failed_is_released() -> None:
    def stopped(model: object) -> None:
        with opened(model) as backbone:
            assert not any(p.requires_grad for p in backbone.model.parameters())
            raise KeyboardInterrupt

    module = make("timm ViT")
    with pytest.raises(KeyboardInterrupt):
        stopped(module)
    assert all(p.requires_grad for p in module.parameters())
    assert count_hooks(module) == {}
    with opened(module) as backbone:
        assert backbone.model is module
    with pytest.raises(KeyboardInterrupt):
        stopped(backbone)
    assert not any(p.requires_grad for p in module.parameters())  # it was not opened for that run


def test_sound_says_how_it_is_heard() -> None:
    assert "Hz" in str(SOUND)
