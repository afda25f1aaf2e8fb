"""The commands, as a person types them."""

from __future__ import annotations

import json
from importlib import metadata
from pathlib import Path
from shutil import copytree

import pytest
from helpers import table, write_images, write_sounds
from PIL import Image
from typer.testing import CliRunner

import vpt
from vpt import cli


def run(*words: str | Path) -> str:
    result = CliRunner().invoke(cli.app, [str(w) for w in words], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture(scope="module")
def adapted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("cli")
    data = write_images(root / "data", per_class=8)
    text = run(
        "adapt",
        data,
        "--out",
        root / "run",
        "--prompt",
        "border:8+deep:1",
        "--epochs",
        1,
        "--seed",
        3,
    )
    assert "linear probe" in text
    assert "prompt.vpt" not in text
    return data, root / "run"


def test_adapt_chooses_or_reads_what_is_named(
    adapted: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vpt.training import side_by_side

    monkeypatch.setattr(side_by_side, "FEWEST", 5)
    monkeypatch.setattr(side_by_side, "STEPS", 5)
    text = run("adapt", adapted[0], "--out", tmp_path / "auto", "--prompt", "auto")
    assert "chosen was" in text or "taken is" in text
    assert "out of fold" in text
    found = json.loads((tmp_path / "auto" / "metrics.json").read_text())
    assert len(found["chosen"]["table"]) == 6
    assert "classes" in run("inspect", tmp_path / "auto")
    words = ["--prompt", "queries:1@6,7", "--features", "cls+queries", "--augment", "none"]
    text = run("adapt", adapted[0], "--out", tmp_path / "q", *words, "--epochs", 1)
    assert "1 query reads each of blocks 6, 7" in text
    words = ["--prompt", "auto", "--features", "cls", "--cache", "bf16"]
    with pytest.raises(vpt.errors.TrainingError, match="Found cache, features with prompt"):
        run("adapt", adapted[0], "--out", tmp_path / "no", *words)


def test_mistakes_are_mended_and_brought_back(adapted: tuple[Path, Path], tmp_path: Path) -> None:
    data, before = adapted
    kind = sorted(path for path in data.iterdir() if path.is_dir())
    for i, source in enumerate(sorted(kind[0].iterdir())[:4]):  # to be of another class
        place = tmp_path / "wrong" / kind[1].name / f"{i}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(source.read_bytes())
    words = [before, tmp_path / "wrong", "--out", tmp_path / "two"]
    text = run("correct", *words, "--budget", 0.9, "--check", data)
    assert "Recommendation: " in text
    assert "examples of the check set: accuracy" in text
    run("report", tmp_path / "two")
    assert "corrected once" in (tmp_path / "two" / "report.html").read_text()
    found = json.loads(run("correct", *words, "--budget", 0.9, "--overwrite", "--json"))
    assert found["given"] == 4
    run("correct", tmp_path / "two", "--undo", "--out", tmp_path / "one")
    assert (tmp_path / "one" / "prompt.vpt").read_bytes() == (before / "prompt.vpt").read_bytes()
    with pytest.raises(vpt.errors.TrainingError, match="needed is --out"):
        run("correct", before, tmp_path / "wrong")


def test_a_run_is_exported(adapted: tuple[Path, Path], tmp_path: Path) -> None:
    file = tmp_path / "m.pt2"
    text = run("export", adapted[1], "--to", "pt2", "--out", file)
    assert "says what the model says" in " ".join(text.split())
    assert file.stat().st_size > 1e6
    words = ["--to", "pt2", "--out", file, "--overwrite", "--json"]
    assert json.loads(run("export", adapted[1], *words))["outputs"] == ["scores"]
    copytree(adapted[1], tmp_path / "copy")
    with pytest.raises(vpt.errors.PromptError, match="acts on the model"):
        run("export", adapted[1], tmp_path / "copy", "--to", "pt2", "--out", file, "--overwrite")


def test_the_version_is_said() -> None:
    assert run("--version").strip() == f"vpt {metadata.version('vpt')}"


def test_adapt_leaves_a_whole_run(adapted: tuple[Path, Path]) -> None:
    report = json.loads((adapted[1] / "metrics.json").read_text())
    assert report["seed"] == 3
    assert report["command"].startswith("vpt")
    assert {p.name for p in adapted[1].iterdir()} >= {
        "prompt.vpt",
        "metrics.json",
        "curves.png",
        "history.jsonl",
        "border.png",
    }


def test_adapt_in_less_memory_and_time(adapted: tuple[Path, Path], tmp_path: Path) -> None:
    options = [
        "--augment",
        "none",
        "--dtype",
        "bf16",
        "--cache",
        "bf16",
        "--workers",
        1,
        "--epochs",
        1,
        "--shots",
        4,
    ]
    text = run("adapt", adapted[0], "--out", tmp_path, "--prompt", "deep:2@6-7", *options)
    assert "begins at block 6 of 8" in text
    report = json.loads((tmp_path / "metrics.json").read_text())
    assert "in front of each of 2 blocks (6 to 7)" in report["prompt"]
    assert report["recipe"]["cache"] == "bf16"
    assert "examples" in run("evaluate", tmp_path, adapted[0])  # on the weights as they were


def test_a_table_with_other_columns_whose_persons_stay_together(tmp_path: Path) -> None:
    rows = ["path,look,person"]
    for i, file in enumerate(sorted(write_images(tmp_path / "data", 10).rglob("*.png"))):
        rows.append(f"{file.relative_to(tmp_path)},{file.parent.name},p{i // 3}")
    (tmp_path / "table.csv").write_text("\n".join(rows))
    words = ["--label", "look", "--split-by", "person", "--prompt", "deep:1", "--epochs", 1]
    text = run("adapt", tmp_path / "table.csv", "--out", tmp_path / "run", *words)
    assert "held out with seed 0, no person on two sides" in " ".join(text.split())
    facts = json.loads((tmp_path / "run" / "metrics.json").read_text())["data"]
    assert sum(part["n"] for part in facts["parts"].values()) == 30
    assert set(facts["classes"]) == {"red", "green", "blue"}


def test_a_folder_of_sounds_finds_its_model_and_its_input_can_be_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write_sounds(tmp_path / "calls")
    monkeypatch.chdir(tmp_path)
    run("adapt", data, "--prompt", "deep:1", "--epochs", 1)  # told no folder, it makes one
    report = json.loads((tmp_path / "runs" / "calls" / "metrics.json").read_text())
    assert report["backbone"]["source"] == "vpt:ast-tiny"
    assert report["rate_cuts"] == 0
    pictures = write_images(tmp_path / "pictures", 8)
    words = [
        "--inputs",
        "mean=0.4,0.4,0.4",
        "--inputs",
        "std=0.2",
        "--prompt",
        "deep:1",
        "--epochs",
        1,
    ]
    text = run("adapt", pictures, "--out", tmp_path / "told", *words)
    assert "mean 0.4, std 0.2" in " ".join(text.split())
    kept = vpt.load(tmp_path / "told" / "prompt.vpt").backbone.inputs
    assert (kept.mean, kept.std) == ((0.4,) * 3, (0.2,) * 3)


def test_evaluate(adapted: tuple[Path, Path]) -> None:
    data, folder = adapted
    found = json.loads(run("evaluate", folder, data, "--json").splitlines()[-1])
    assert found["n"] == 24
    assert set(found["per_class"]) == {"red", "green", "blue"}
    assert "24 examples" in run("evaluate", folder / "prompt.vpt", data)


def test_predict(adapted: tuple[Path, Path]) -> None:
    data, folder = adapted
    files = sorted((data / "red").iterdir())[:2]
    rows = json.loads(run("predict", folder, *files, "--json").splitlines()[-1])
    assert [row["file"] for row in rows] == [str(f) for f in files]
    assert all(
        row["class"] in ("red", "green", "blue") and 0 < row["probability"] <= 1 for row in rows
    )
    assert sum(p for _, p in rows[0]["top"]) == pytest.approx(1.0)
    assert "probability" in run("predict", folder, files[0])
    lines = run("predict", folder, data / "red", "--csv", "--top-k", 2).splitlines()
    assert lines[0] == "file,class,probability,class 2,probability 2"
    assert len(lines) == 1 + len(list((data / "red").iterdir()))
    assert lines[1].startswith(f"{files[0]},{rows[0]['class']},")


def test_names_are_whole_in_a_pipe_and_paths_come_through_one(
    adapted: tuple[Path, Path], tmp_path: Path
) -> None:
    data, folder = adapted
    long = tmp_path / ("a name that no terminal has room for " * 4) / "b.png"
    long.parent.mkdir()
    long.write_bytes(next((data / "red").iterdir()).read_bytes())
    paths = f"{long}\n\n{data / 'red'}\n"
    result = CliRunner().invoke(cli.app, ["predict", str(folder), "-"], input=paths)
    text = result.output
    assert str(long) in text
    assert len(text.splitlines()) > 2 + len(list((data / "red").iterdir()))


def test_names_from_a_file_give_the_terminal_no_orders(
    tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    names = ["\x1b[2J\x1b[31mOWNED\x1b]0;title\x07", "a\nfake row", "\ud800", "\u202egnp.exe"]
    backbone = vpt.load_backbone("vpt:vit-p8-64")
    with vpt.PromptedModel(backbone, None, vpt.Linear(192, names)) as model:
        vpt.save(tmp_path / "evil.vpt", model, scores={"\x1b[5m": "\ud800"})
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    for words in (
        ("inspect", tmp_path / "evil.vpt"),
        ("library", tmp_path),
        ("predict", tmp_path / "evil.vpt", tmp_path / "a.png"),
    ):
        text = run(*words)
        assert not set(text) & set("\x1b\x07\u202e\ud800")
        assert "fake row" not in [line.strip() for line in text.splitlines()]
        run(*words, "--json").encode()
    with pytest.raises(vpt.errors.PromptFileError, match=r"\\x1b\[31m"):
        run("inspect", "\x1b[31mnothing.vpt")


def test_a_library_is_listed_and_predicts(adapted: tuple[Path, Path], tmp_path: Path) -> None:
    data, folder = adapted
    (tmp_path / "colours.vpt").write_bytes((folder / "prompt.vpt").read_bytes())
    text = run("library", tmp_path)
    assert "colours" in text
    assert "blue, green, red" in text
    assert [path.name for path in tmp_path.iterdir()] == ["colours.vpt"]  # nothing is drawn into it
    assert json.loads(run("library", tmp_path, "--json"))["colours"]["bytes"] > 0
    files = sorted((data / "red").iterdir())[:2]
    found = json.loads(
        run("predict", "--library", tmp_path, "--task", "colours", *files, "--json").splitlines()[
            -1
        ]
    )
    assert [row["file"] for row in found] == [str(file) for file in files]
    assert found == json.loads(run("predict", folder, *files, "--json").splitlines()[-1])
    with pytest.raises(vpt.errors.PromptFileError, match="needed is one of its tasks: colours"):
        run("predict", "--library", tmp_path, "--task", "roses", *files)


def test_inspect(adapted: tuple[Path, Path]) -> None:
    text = run("inspect", adapted[1])
    assert "8 pixels wide" in " ".join(text.replace("│", " ").split())
    assert "vpt:vit-p8-64" in text
    found = json.loads(run("inspect", adapted[1] / "prompt.vpt", "--json"))
    assert found["parameters"]["prompt"] == 3 * (64 * 64 - 48 * 48) + 8 * 192
    assert Path(found["pictures"][0]).stat().st_size > 1000


def test_backbones() -> None:
    assert "vpt:vit-p8-64" in run("backbones")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["inspect", "nowhere"], "Found no prompt file"),
        (["evaluate", "nowhere", "x"], "Found no prompt file"),
        (["predict", "{run}", "nowhere.png"], "no such file"),
        (["adapt", "nowhere", "--out", "x"], "Found nothing at nowhere"),
        (["adapt", "{data}", "--out", "{run}"], "finished run"),
        (["adapt", "{data}", "--out", "x", "--prompt", "lora:1"], "needed is one of"),
        (["adapt", "{data}", "--out", "x", "--prompt", "depe:5"], "Did you mean deep:5?"),
        (["adapt", "{data}", "--out", "x", "--prompt", "deep=5"], "Did you mean deep:5?"),
        (
            ["adapt", "{data}", "--out", "x", "--prompt", "full", "--readout", "bayes"],
            "Did you mean map:bayes?",
        ),
        (
            ["adapt", "{data}", "--out", "x", "--epochs", "3"],
            "Leave that out, or name a prompt that learns as it is told",
        ),
        (["adapt", "{data}", "--out", "x", "--backbone", "vit-p8-64"], "Near: vpt:vit-p8-64"),
        (["adapt", "{data}", "--out", "x", "--backbone", "nonsense"], "Found no model"),
    ],
)
def test_a_mistake_is_a_message_not_a_traceback(
    adapted: tuple[Path, Path],
    words: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    words = [w.format(data=adapted[0], run=adapted[1]) for w in words]
    monkeypatch.setattr("sys.argv", ["vpt", *words])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 1
    error = capsys.readouterr().err
    assert message in " ".join(error.split())
    assert "Traceback" not in error


def test_importing_vpt_is_light() -> None:
    import subprocess
    import sys

    heavy = "{'torch', 'timm', 'transformers', 'torchaudio', 'sklearn', 'matplotlib'}"
    program = (
        f"import sys, vpt, vpt.cli; found = {heavy} & set(sys.modules); assert not found, found; "
    )
    program += "vpt.load_backbone('vpt:vit-p8-64'); assert 'torchaudio' not in sys.modules"
    subprocess.run([sys.executable, "-W", "ignore", "-c", program], check=True)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = vpt.nothing
    assert "load_backbone" in dir(vpt)


# fairness -------------------------------------------------------------------------------
@pytest.fixture
def biased(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A table with groups, and a module of the user's own that makes the model."""
    (tmp_path / "mine.py").write_text(
        "import vpt\nfrom helpers import planted_model\n\n"
        "def model():\n    return vpt.load_backbone(planted_model(), classes=['dull', 'red'])\n\n"
        "def number():\n    return 7\n"
    )
    monkeypatch.chdir(tmp_path)
    return table(tmp_path / "data")


def test_reprogram_and_audit(biased: Path, tmp_path: Path) -> None:
    columns = ["--label", "look", "--group", "sky", "--model", "mine:model"]
    text = run(
        "reprogram",
        biased,
        *columns,
        "--border",
        4,
        "--strength",
        3,
        "--epochs",
        1,
        "--lr",
        0.003,
        "--out",
        tmp_path / "run",
    )
    assert all(
        word in text for word in ("bare model", "group thresholds", "chosen", "0 is never inside")
    )
    assert max(len(line) for line in text.splitlines()) <= 80
    before = run("audit", biased, *columns)
    assert "equalized odds difference" in before
    assert "Few examples" in before
    found = json.loads(
        run(
            "audit",
            biased,
            *columns,
            "--prompt",
            tmp_path / "run",
            "--json",
            "--out",
            tmp_path / "audit.html",
        ).splitlines()[-1]
    )
    assert found["n"] == 100
    two = json.loads(run("audit", biased, *columns, "--group", "day", "--json").splitlines()[-1])
    assert "plain, odd" in two["per_group"]


def test_a_model_of_ones_own_that_is_none(biased: Path) -> None:
    for source, message in (
        ("mine:nothing", "no attribute 'nothing'"),
        ("absent:model", "No module named"),
        ("mine:number", "gave int"),
    ):
        with pytest.raises(vpt.errors.VptError, match=message):
            run("audit", biased, "--label", "look", "--group", "sky", "--model", source)
    with pytest.raises(vpt.errors.BackboneError, match="neither --model nor --prompt"):
        run("audit", biased, "--label", "look", "--group", "sky")


@pytest.mark.long
def test_fairness_demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vpt.demo import shows as demo

    whole = demo.tuning
    monkeypatch.setattr(demo, "tuning", lambda case, seed: whole(case, 60, 60, seed))
    monkeypatch.setattr(demo, "FAIRER", {"epochs": 1, "strengths": (1.0,)})
    text = run("demo", "--fairness", "--out", tmp_path)
    assert (
        text.index("handwritten digit")
        < text.index("less than five")
        < text.index("drawn face")
        < text.rindex("lipstick")
    )
    assert "→ " in text
    assert "average odds difference" in text
    refused = CliRunner().invoke(cli.app, ["demo", "--fairness", "--audio"])
    assert refused.exit_code == 2
    assert "goes alone" in refused.output
