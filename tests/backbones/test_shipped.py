"""What ships with the package is whole, and what is not is said."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

import vpt
import vpt.backbones
from vpt import cli
from vpt.backbones import shipped as bundled
from vpt.errors import BundledFileError


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the bundled files, as in an installed package, that a test may spoil."""
    folder = tmp_path / "site-packages" / "vpt" / "assets"
    shutil.copytree(bundled.ASSETS, folder)
    monkeypatch.setattr(bundled, "ASSETS", folder)
    return folder


def test_every_file_is_recorded_and_as_recorded() -> None:
    shown = {"README.md", ".gitattributes", bundled.SUMS}
    there = {
        str(p.relative_to(bundled.ASSETS))
        for p in bundled.ASSETS.rglob("*")
        if p.is_file() and p.name not in shown
    }
    assert {name for name in there if not name.startswith("pictures/")} == set(bundled.recorded())
    assert all(bundled.bundled_file(name).is_file() for name in bundled.recorded())


def test_each_backbone_has_a_card_and_its_limits() -> None:
    found = vpt.backbones.bundled()
    assert set(found) == {
        "vpt:vit-p8-64",
        "vpt:ast-tiny",
        "vpt:biased-digits",
        "vpt:biased-portraits",
    }
    for name, about in found.items():
        card = about["card"].read_text(encoding="utf-8")
        assert card.startswith(f"# `{name}`")
        for section in ("Data", "Recipe", "Accuracy", "Transfer", "Not for", "Licence"):
            assert f"\n## {section}\n" in card, section
        assert 0 < about["bytes"] <= 12e6
        assert len(vpt.load_backbone(name).class_names) == about["classes"]


@pytest.mark.parametrize(
    "file", ["vit-p8-64/model.safetensors", "ast-tiny/model.safetensors", "ast-tiny/config.json"]
)
def test_an_altered_file_is_named_with_its_hash_and_the_repair(copy: Path, file: str) -> None:
    data = bytearray((copy / file).read_bytes())
    data[len(data) // 2] ^= 1
    (copy / file).write_bytes(data)
    expected = (
        f"{re.escape(str(copy / file))} is not as it was"
        f" shipped.*{bundled.recorded()[file]}.*--force-reinstall"
    )
    with pytest.raises(BundledFileError, match=expected):
        vpt.load_backbone(f"vpt:{file.split('/')[0]}")


@pytest.mark.parametrize(
    "file",
    ["vit-p8-64/config.json", "ast-tiny/model.safetensors", "ast-tiny/preprocessor_config.json"],
)
def test_a_missing_file_is_named_with_its_hash_and_the_repair(copy: Path, file: str) -> None:
    (copy / file).unlink()
    with pytest.raises(
        BundledFileError,
        match=f"Found no {re.escape(str(copy / file))}.*{bundled.recorded()[file]}.*reinstall",
    ):
        vpt.load_backbone(f"vpt:{file.split('/')[0]}")


def test_a_damaged_backbone_does_not_keep_another_from_opening(copy: Path) -> None:
    (copy / "ast-tiny" / "config.json").unlink()
    assert vpt.load_backbone("vpt:vit-p8-64").classes == 160
    with pytest.raises(vpt.errors.BackboneError, match="Found no model called 'nonsense'"):
        vpt.load_backbone("nonsense")


def test_a_list_that_cannot_be_read_is_said(copy: Path) -> None:
    (copy / bundled.SUMS).write_text("what is this\n\n")
    with pytest.raises(BundledFileError, match="needed are lines of a SHA-256 and a name"):
        bundled.recorded()


def test_in_a_checkout_the_repair_is_gits(copy: Path) -> None:
    (copy.parent / "pyproject.toml").touch()
    (copy / bundled.SUMS).unlink()
    with pytest.raises(
        BundledFileError, match=r"lists the files that ship with vpt.*git -C .* checkout -- assets"
    ):
        bundled.recorded()


def test_other_names_are_refused() -> None:
    with pytest.raises(BundledFileError, match=r"ships no file 'x'; it ships .*config.json"):
        bundled.bundled_file("x")


def test_the_list_names_the_cards() -> None:
    out = " ".join(
        CliRunner().invoke(cli.app, ["backbones"], catch_exceptions=False).output.split()
    )
    for name in vpt.backbones.bundled():
        assert f"{name}, its card: {bundled.ASSETS / name[4:] / 'README.md'}" in out


def test_a_bundled_backbone_is_opened_without_a_bar(capfd: pytest.CaptureFixture[str]) -> None:
    from transformers.utils import logging

    vpt.load_backbone("vpt:ast-tiny")
    assert "Loading" not in capfd.readouterr().err
    assert logging.is_progress_bar_enabled()
