"""Runs on their way to a hub: what is sent is a sound prompt and an honest card, and no more."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
import yaml
from families import open_tiny
from helpers import planted, planted_model, write_images
from hub_stand_in import HubStandIn, Repository, use
from saved_prompts import rewritten, saved
from typer.testing import CliRunner

import vpt
from vpt.cli.sharing import push as push_command
from vpt.deploy.pushing import push, to_send
from vpt.errors import PromptFileError
from vpt.files import read
from vpt.files.naming import prompt_file

NAME = "anna/brightest"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubStandIn]:
    with HubStandIn() as hub:
        use(hub, tmp_path / "cache", monkeypatch)
        yield hub


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data, and a run on them that was tested."""
    root = tmp_path_factory.mktemp("pushed")
    for part, per_class in (("train", 8), ("test", 4)):
        write_images(root / "bright" / part, per_class)
    command = f"vpt adapt {root / 'bright'} --out {root / 'run'}"
    result = vpt.adapt(
        root / "bright", "vpt:vit-p8-64", out=root / "run", progress=False, command=command
    )
    result.model.close()
    return root


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    return shutil.copytree(made / "run", tmp_path / "run")


def change(run: Path, **numbers: object) -> None:
    path = run / "metrics.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | numbers))


def header_of(card: str) -> dict:
    return yaml.safe_load(card.split("---\n")[1])


def test_what_is_pushed_is_loaded_again(hub: HubStandIn, made: Path, run: Path) -> None:
    found = push(run, f"hf://{NAME}", licence="apache-2.0", message="The first one")
    kept = hub.repositories[NAME]
    commit, files = kept.files("main")
    assert files == {
        "prompt.vpt": (run / "prompt.vpt").read_bytes(),
        "README.md": files["README.md"],
    }
    assert files["README.md"].decode() == found.card
    assert found.place == f"hf://{NAME}@{commit}"
    assert not kept.private
    picture = next((made / "bright" / "test").rglob("*.png"))
    with vpt.load(found.place) as model, vpt.load(run) as own:
        assert vpt.predict(model, [picture]) == vpt.predict(own, [picture])


def test_a_card_says_what_the_run_says(made: Path, run: Path) -> None:
    _, card = to_send(run, NAME, "apache-2.0")
    numbers = json.loads((run / "metrics.json").read_text())
    scored = numbers["parts"]["test"]["methods"][numbers["method"]]
    low, high = scored["interval"]
    head = header_of(card)
    assert head["library_name"] == "vpt"
    assert head["license"] == "apache-2.0"
    assert head["pipeline_tag"] == "image-classification"
    assert "base_model" not in head  # which is bundled
    assert head["model-index"][0]["results"][0]["metrics"][0] == {
        "type": "accuracy",
        "value": round(scored["accuracy"], 4),
    }
    assert f"{scored['accuracy']:.1%} ({100 * low:.0f}–{100 * high:.0f})" in card
    assert f"between {100 * low:.0f} and {100 * high:.0f} % are right" in card
    for text in (
        "3 classes of pictures apart: blue, green, red",
        f'vpt.predict("hf://{NAME}", ["FILE"])',
        "| linear probe |",
        "Learned from “bright”",
        "- test: 12, given",
        "| full fine-tuning, 8 epochs |",
        "- this prompt: apache-2.0",
        "- the model: research only (see its card)",
        "- the data: not known here: look it up",
    ):
        assert text in card, text
    assert "never tested" not in card


def test_a_card_has_no_path_and_no_name_of_a_file(made: Path, run: Path) -> None:
    numbers = json.loads((run / "metrics.json").read_text())
    careful = ["1 file is in train and in test, byte for byte (red/a (1).png = red/b.png): no good"]
    change(run, data=numbers["data"] | {"careful": careful, "notes": ["red/c.png is small"]})
    _, card = to_send(run, NAME)
    assert "1 file is in train and in test, byte for byte: no good." in card
    for text in (str(made), str(run), "/", ".png"):
        assert text not in card.replace(f"hf://{NAME}", ""), text
    change(run, command=f"vpt adapt {Path.home()} --out run")
    assert "Learned from “data without a name”" in to_send(run, NAME)[1]


def test_a_run_that_was_never_tested_says_so(run: Path) -> None:
    numbers = json.loads((run / "metrics.json").read_text())
    change(run, parts={k: v for k, v in numbers["parts"].items() if k != "test"}, command=None)
    _, card = to_send(run, NAME)
    assert "**It was never tested.**" in card
    assert "model-index" not in header_of(card)
    assert "Learned from “data without a name”" in card


def test_names_are_no_markup(run: Path) -> None:
    def evil(header: dict, tensors: dict) -> None:
        header["classes"] = ["<script>", "a|b\n# c", "\x1b[31m`"]

    rewritten(run / "prompt.vpt", evil)
    with pytest.raises(PromptFileError, match="of other classes than its"):
        to_send(run, NAME)
    numbers = json.loads((run / "metrics.json").read_text())
    numbers["classes"] = read(run / "prompt.vpt")[0]["classes"]
    (run / "metrics.json").write_text(json.dumps(numbers))
    _, card = to_send(run, NAME)
    assert "<script" not in card.replace("\\<script", "")
    assert "\n# c" not in card
    assert "\x1b" not in card


def test_a_prompt_file_alone_has_a_plain_card(tmp_path: Path, run: Path) -> None:
    alone = tmp_path / "alone" / "signs.vpt"
    alone.parent.mkdir()
    shutil.copy(run / "prompt.vpt", alone)
    _, card = to_send(alone, NAME)
    accuracy = read(alone)[0]["scores"]["test_accuracy"]
    assert f"| test | 12 | {accuracy:.1%} |" in card
    assert "Learned from 24 examples." in card

    def corrected(header: dict, tensors: dict) -> None:
        header["scores"] = {"before_corrections": header["scores"]}
        header["trained_on"]["corrections"] = 2

    _, card = to_send(rewritten(alone, corrected), NAME)
    assert "measured before it was corrected 2 times" in card
    path, _ = saved(open_tiny("timm ViT"), tmp_path / "own.vpt")
    _, card = to_send(path, NAME)
    assert "never tested" in card
    assert "The model cannot be opened by name" in card


def test_a_model_of_the_hub_is_named_and_one_of_a_folder_has_no_path(
    tmp_path: Path, run: Path
) -> None:
    def made_for(**identity: str) -> Path:
        path = shutil.copy(run / "prompt.vpt", tmp_path / "other.vpt")
        return rewritten(path, lambda h, t: h["backbone"]["identity"].update(identity))

    _, card = to_send(made_for(kind="hub", source="openai/clip-vit_b"), NAME)
    assert header_of(card)["base_model"] == "openai/clip-vit_b"
    assert "look it up at <https://huggingface.co/openai/clip-vit_b>" in card
    _, card = to_send(made_for(kind="timm-hub", source="hf-hub:timm/vit"), NAME)
    assert header_of(card)["base_model"] == "timm/vit"
    for source in ("/home/anna/clip-vit", r"C:\Users\anna\clip-vit"):
        data, card = to_send(made_for(kind="folder", source=source), NAME)
        assert b"anna" not in data
        assert "clip-vit: a model that stays" in card
        (tmp_path / "sent.vpt").write_bytes(data)
        assert read(tmp_path / "sent.vpt")[0]["backbone"]["identity"]["source"] == "clip-vit"


def test_a_card_says_what_the_model_takes(tmp_path: Path) -> None:
    for name, task in (("transformers VideoMAE", "video"), ("transformers AST", "audio")):
        path, _ = saved(open_tiny(name), tmp_path / "a.vpt", "deep")
        assert header_of(to_send(path, NAME)[1])["pipeline_tag"] == f"{task}-classification"


def test_a_card_of_hard_queries_says_what_they_hold(tmp_path: Path, run: Path) -> None:
    path, _ = saved(open_tiny("timm ViT"), tmp_path / "a.vpt", "deep")
    assert "crops" not in to_send(path, NAME)[1]
    rewritten(path, lambda h, t: h["prompt"].update(name="HardQueries"))
    assert "**It holds crops of training pictures**" in to_send(path, NAME)[1]


def test_a_card_of_a_reprogrammed_model_tells_of_its_groups(tmp_path: Path) -> None:
    data = {name: planted(60, seed) for seed, name in enumerate(("train", "val", "test"))}
    backbone = vpt.load_backbone(planted_model(), classes=("dull", "red"))
    result = vpt.reprogram(
        data, backbone, "border:4", out=tmp_path, epochs=1, strengths=[5.0], progress=False
    )
    result.model.close()
    numbers = json.loads((tmp_path / "metrics.json").read_text())
    _, card = to_send(tmp_path, NAME)
    assert numbers["verdict"][1:].replace("_", "\\_") in card
    assert "accuracy by label and group:" in card
    assert "blue" in card
    chosen = next(point for point in numbers["points"] if point["name"] == numbers["chosen"])
    value = chosen["test"]["metrics"]["accuracy"]["value"]
    assert header_of(card)["model-index"][0]["results"][0]["metrics"][0]["value"] == round(value, 4)


def test_what_is_damaged_is_not_sent(hub: HubStandIn, run: Path) -> None:
    data = bytearray((run / "prompt.vpt").read_bytes())
    data[-1] ^= 1
    (run / "prompt.vpt").write_bytes(data)
    with pytest.raises(PromptFileError, match="SHA-256 does not match"):
        push(run, NAME)
    with pytest.raises(PromptFileError, match="there is nothing"):
        push(run / "none", NAME)
    assert hub.asked == []


def test_numbers_that_cannot_be_read_are_said(hub: HubStandIn, run: Path) -> None:
    change(run, parts={"test": {}})
    with pytest.raises(PromptFileError, match="cannot be read"):
        push(run, NAME)
    (run / "metrics.json").write_text("{")
    with pytest.raises(PromptFileError, match="cannot be read"):
        push(run, NAME)
    assert hub.asked == []


@pytest.mark.parametrize("repo", ["../x", "brightest", f"hf://{NAME}@main", "https://x/y/z", 3])
def test_names_with_tricks_are_refused(hub: HubStandIn, run: Path, repo: str) -> None:
    with pytest.raises(PromptFileError, match="needed is user/name"):
        push(run, repo)
    assert hub.asked == []


def test_a_private_one_stays_private(hub: HubStandIn, run: Path) -> None:
    push(run, NAME, private=True)
    assert hub.repositories[NAME].private
    push(run, NAME, private=True)
    hub.repositories["anna/open"] = Repository(False)
    with pytest.raises(PromptFileError, match="everybody sees it; nothing was sent"):
        push(run, "anna/open", private=True)
    assert hub.repositories["anna/open"].commits == {}


def test_a_hub_that_refuses_or_is_gone_is_said(
    hub: HubStandIn, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    hub.fault = "refused"
    with pytest.raises(PromptFileError, match=r"cannot be written: .*401.*Log in \(hf auth login"):
        push(run, NAME)
    assert hub.repositories == {}
    with HubStandIn() as gone:
        use(gone, run, monkeypatch)
    with pytest.raises(PromptFileError, match=r"cannot be written: .*Check the network"):
        push(run, NAME)


def command(*words: str | Path) -> str:
    app = typer.Typer()
    app.command()(push_command)
    result = CliRunner().invoke(app, [str(w) for w in words], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_the_command_shows_a_card_first_and_then_sends_it(
    hub: HubStandIn, run: Path, tmp_path: Path
) -> None:
    said = command(run, NAME, "--card", tmp_path / "card.md")
    assert "Nothing was sent." in said
    assert hub.asked == []
    sent = json.loads(command(run, NAME, "--licence", "mit", "--json"))
    card = hub.repositories[NAME].files("main")[1]["README.md"].decode()
    assert header_of(card)["license"] == "mit"
    shown = (tmp_path / "card.md").read_text()
    assert card.split("## What it is for")[1].split("## Licences")[0] in shown
    assert prompt_file(sent["place"]).stat().st_size == sent["bytes"]
    assert f"hf://{NAME}@" in command(run, NAME)


def test_another_process_finds_it_by_the_environment(
    hub: HubStandIn, run: Path, made: Path, tmp_path: Path
) -> None:
    push(run, NAME)
    picture = next((made / "bright" / "test").rglob("*.png"))
    settings = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "0"}
    words = ["predict", f"hf://{NAME}", str(picture), "--json"]
    done = subprocess.run(
        [sys.executable, "-c", "from vpt.cli import main; main()", *words],
        env=os.environ | settings,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    with vpt.load(run) as model:
        own = vpt.predict(model, [picture])[0]
    assert json.loads(done.stdout)[0]["class"] == own.label
