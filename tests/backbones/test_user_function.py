"""A model that a user's own function makes."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from families import make

import vpt
from vpt.backbones.user_function import names_function
from vpt.errors import BackboneError

CODE = """
import timm, vpt
def make():
    return timm.create_model("vit_tiny_patch16_224", img_size=32, depth=2, num_classes=3)
def opened():
    return vpt.load_backbone(make(), inputs=vpt.Images((32, 32)))
def text():
    return "no model"
def broken():
    raise OSError("no weights here")
"""


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "mine_of_user.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "mine_of_user", raising=False)
    return "mine_of_user"


def test_a_module_of_the_users_own_is_opened(mine: str) -> None:
    backbone = vpt.load_backbone(f"{mine}:make", classes=["a", "b", "c"])
    assert (backbone.depth, backbone.class_names) == (2, ["a", "b", "c"])
    assert backbone.identity["kind"] == "module"
    assert "" not in sys.path


def test_an_open_backbone_is_taken_as_it_is(mine: str) -> None:
    assert vpt.load_backbone(f"{mine}:opened").inputs == vpt.Images((32, 32))
    with pytest.raises(BackboneError, match="Found inputs, seconds or dtype for a function"):
        vpt.load_backbone(f"{mine}:opened", inputs={"mean": 0.5})


@pytest.mark.parametrize(
    ("function", "words"),
    [
        ("text", "gave str; needed is a module"),
        ("broken", "could not be called: OSError: no weights here"),
        ("missing", "could not be called: AttributeError"),
    ],
)
def test_what_is_no_model(mine: str, function: str, words: str) -> None:
    with pytest.raises(BackboneError, match=words):
        vpt.load_backbone(f"{mine}:{function}")


def test_what_names_a_function(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "odd:name").mkdir()
    assert names_function("mine:make")
    for other in ("vpt:vit-p8-64", "hf-hub:timm/vit", "mine", "mine:", "odd:name"):
        assert not names_function(other)


def test_a_prompt_file_never_names_a_function(mine: str, tmp_path: Path) -> None:
    """Its backbone is a module, which it cannot open: nothing of the user's is imported."""
    backbone = vpt.load_backbone(make("timm ViT"), inputs=vpt.Images((32, 32)))
    backbone.identity |= {"kind": "module", "source": f"{mine}:make"}
    with vpt.PromptedModel(backbone, vpt.Border.like(backbone, 2), vpt.Identity()) as model:
        vpt.save(tmp_path / "p.vpt", model)
    with pytest.raises(vpt.errors.VptError, match="backbone="):
        vpt.load(tmp_path / "p.vpt")
    assert mine not in sys.modules
