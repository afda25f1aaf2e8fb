"""Prompts of a hub: only one file comes, from the cache where it can, and every fault is a sentence
that says what to do.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from families import open_tiny
from hub_stand_in import HubStandIn, use
from huggingface_hub import constants
from saved_prompts import rewritten, saved

import vpt
from vpt.errors import PromptFileError
from vpt.files.hub import repository
from vpt.files.naming import prompt_file
from vpt.runs.folder import inspect

NAME = "anna/signs"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubStandIn]:
    # the library waits between its attempts, half a minute in all
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    with HubStandIn() as hub:
        use(hub, tmp_path / "cache", monkeypatch)
        yield hub


@pytest.fixture(scope="module")
def backbone() -> vpt.Backbone:
    return open_tiny("timm ViT")


@pytest.fixture(scope="module")
def made(
    backbone: vpt.Backbone, tmp_path_factory: pytest.TempPathFactory
) -> tuple[bytes, torch.Tensor]:
    path, out = saved(backbone, tmp_path_factory.mktemp("made") / "a.vpt", "deep")
    return path.read_bytes(), out


@pytest.mark.parametrize("spell", [str, Path], ids=["text", "path"])
def test_a_prompt_of_the_hub_is_loaded_and_nothing_else_is_fetched(
    hub: HubStandIn, backbone: vpt.Backbone, made: tuple[bytes, torch.Tensor], spell: type
) -> None:
    data, out = made
    hub.holds(NAME, **{"prompt.vpt": data, "evil.py": b"raise SystemExit", "config.json": b"{}"})
    with vpt.load(spell(f"hf://{NAME}"), backbone) as model:
        assert torch.equal(model(backbone.inputs.example(2)), out)
    path = f"/{NAME}/resolve/main/prompt.vpt"
    assert hub.asked == [f"HEAD {path}", f"GET {path}"]
    assert inspect(spell(f"hf://{NAME}"), draw=False)["bytes"] == len(data)
    assert hub.asked[2:] == [f"HEAD {path}"]  # it is in the cache


def test_a_branch_a_tag_and_a_commit_are_what_they_were(
    hub: HubStandIn, backbone: vpt.Backbone, tmp_path: Path
) -> None:
    files = [saved(backbone, tmp_path / "a.vpt", form)[0].read_bytes() for form in ("deep", "full")]
    first, second = (hub.holds(NAME, **{"prompt.vpt": data}) for data in files)
    hub.repositories[NAME].tags |= {"v1.0": first, "refs/pr/1": first}
    for revision in ("v1.0", "refs/pr/1", first):
        for spell in (str, Path):
            assert prompt_file(spell(f"hf://{NAME}@{revision}")).read_bytes() == files[0]
    for revision in ("", "@main", f"@{second}"):
        assert prompt_file(f"hf://{NAME}{revision}").read_bytes() == files[1]
    hub.asked.clear()
    assert prompt_file(f"hf://{NAME}@{first}").read_bytes() == files[0]
    assert hub.asked == []  # a commit never changes


def test_what_is_in_the_cache_needs_no_network(
    hub: HubStandIn, made: tuple[bytes, torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.holds(NAME, **{"prompt.vpt": made[0]})
    prompt_file(f"hf://{NAME}")
    hub.fault = "down"
    assert prompt_file(f"hf://{NAME}").read_bytes() == made[0]
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    hub.asked.clear()
    assert prompt_file(f"hf://{NAME}").read_bytes() == made[0]
    with pytest.raises(PromptFileError, match="HF_HUB_OFFLINE is set, and the cache"):
        prompt_file("hf://anna/other")
    assert hub.asked == []


def test_without_a_network_and_a_cache_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    with HubStandIn() as gone:
        use(gone, tmp_path, monkeypatch)
    with pytest.raises(PromptFileError, match="cannot be reached, and the cache does not have it"):
        vpt.load(f"hf://{NAME}")


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("cut", "cannot be fetched: .*try again"),
        ("short", "cannot be fetched: .*should be of size .*try again"),
        ("altered", "came damaged .*SHA-256 does not match.*try again"),
        ("gated", "its owner decides who may have it.*HF_TOKEN"),
        ("down", "cannot be reached, and the cache"),
    ],
)
def test_a_fault_is_said_and_leaves_nothing(
    hub: HubStandIn, made: tuple[bytes, torch.Tensor], fault: str, message: str
) -> None:
    hub.holds(NAME, **{"prompt.vpt": made[0]})
    hub.fault = fault
    with pytest.raises(PromptFileError, match=message):
        vpt.load(f"hf://{NAME}")
    hub.fault = ""
    assert prompt_file(f"hf://{NAME}").read_bytes() == made[0]  # no damaged one was kept


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("hf://anna/none", "no such repository, or it is private"),
        (f"hf://{NAME}@v2", "no such revision"),
        (f"hf://{NAME}@{'0' * 40}", "no such revision"),
        ("hf://anna/empty", r"it holds no prompt\.vpt"),
        ("hf://anna/a--b", "cannot be fetched: Cannot have -- or .."),
    ],
)
def test_what_is_not_there_is_said(
    hub: HubStandIn, made: tuple[bytes, torch.Tensor], place: str, message: str
) -> None:
    hub.holds(NAME, **{"prompt.vpt": made[0]})
    hub.holds("anna/empty", **{"model.vpt": made[0]})
    with pytest.raises(PromptFileError, match=message):
        vpt.load(place)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "signs",
        "anna/",
        "/signs",
        "anna/signs/prompt.vpt",
        "anna//signs",
        "../signs",
        "anna/..",
        "anna/si..gns",
        "./signs",
        ".anna/signs",
        "anna/-signs",
        "anna\\signs",
        "anna/signs\n",
        "anna/si\x00gns",
        "anna/sïgns",
        "anna/s%2e%2e",
        "anna/signs?x=1",
        "anna/signs#1",
        "https://huggingface.co/anna/signs",
        "anna/" + "s" * 92,
    ],
)
def test_names_with_tricks_are_refused_before_anything_is_asked(hub: HubStandIn, name: str) -> None:
    with pytest.raises(PromptFileError, match="needed is user/name"):
        vpt.load(f"hf://{name}")
    with pytest.raises(PromptFileError, match="needed is user/name"):
        repository(name)
    assert hub.asked == []


@pytest.mark.parametrize(
    "revision", ["", "..", "../../x", "a/../b", "/etc", "a//b", "-x", "a b", "a\n", "a@b", "a\\b"]
)
def test_revisions_with_tricks_are_refused(hub: HubStandIn, revision: str) -> None:
    with pytest.raises(PromptFileError, match="needed is a branch, a tag or a commit"):
        vpt.load(f"hf://{NAME}@{revision}")
    assert hub.asked == []


def test_a_prompt_of_the_hub_is_checked_as_any_other(
    hub: HubStandIn, backbone: vpt.Backbone, tmp_path: Path
) -> None:
    path, _ = saved(backbone, tmp_path / "a.vpt", "deep")
    evil = rewritten(path, lambda h, t: h["prompt"].update(name="os.system"))
    hub.holds(NAME, **{"prompt.vpt": evil.read_bytes()})
    with pytest.raises(PromptFileError, match="known are"):
        vpt.load(f"hf://{NAME}", backbone)
    path, _ = saved(backbone, tmp_path / "b.vpt", "deep")
    rewritten(path, lambda h, t: h["backbone"]["identity"].update(kind="x", source="evil:code"))
    hub.holds(NAME, **{"prompt.vpt": path.read_bytes()})
    with pytest.raises(PromptFileError, match="cannot be opened by name alone"):
        vpt.load(f"hf://{NAME}")


def test_a_folder_of_that_name_is_no_place_of_the_hub(
    tmp_path: Path, backbone: vpt.Backbone
) -> None:
    path, _ = saved(backbone, tmp_path / "hf" / "prompt.vpt", "deep")
    assert prompt_file(path.parent) == path
    shutil.rmtree(path.parent)
    with pytest.raises(PromptFileError, match="or hf://user/name"):
        prompt_file(path.parent)
