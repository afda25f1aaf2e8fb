"""Every example runs, at a tiny setting, and stays short."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from helpers import write_images, write_sounds

EXAMPLES = Path(__file__).parents[1] / "examples"
TINY = {
    "adapt_folder": ["{images}", "--out", "{out}", "--epochs", "1"],
    "learn_a_border": ["{images}", "--out", "{out}", "--epochs", "1"],
    "adapt_audio": ["--data", "{sounds}", "--seconds", "0.4", "--out", "{out}", "--epochs", "1"],
    "own_module": ["--epochs", "2"],
    "label_map_table": [
        "{images}",
        "--shots",
        "2",
        "--seeds",
        "1",
        "--epochs",
        "1",
        "--prompt",
        "border:2",
    ],
    "many_tasks": ["--epochs", "1", "--per-digit", "2", "--test", "30", "--out", "{out}"],
    "mixed_batch_times": ["--samples", "8", "--repeats", "1"],
    "class_incremental": (
        [
            "{images}",
            "--methods",
            "ridge",
            "coda",
            "joint",
            "--per-task",
            "3",
            "--epochs",
            "1",
            "--out",
            "{out}",
        ]
    ),
    "shared_prompt": ["--epochs", "1", "--per-class", "2", "--shots", "1", "--test", "1"],
    "few_shot_table": [
        "{images}",
        "--shots",
        "2",
        "--seeds",
        "2",
        "--epochs",
        "1",
        "--prompts",
        "deep:1",
        "--out",
        "{out}",
    ],
}


@pytest.mark.parametrize("name", TINY)
def test_example(name: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    places = {"images": tmp_path / "images", "sounds": tmp_path / "sounds", "out": tmp_path / "out"}
    if "{images}" in TINY[name]:
        write_images(places["images"], per_class=6)
    if "{sounds}" in TINY[name]:
        write_sounds(places["sounds"], per_class=6)
    module.main([word.format(**places) for word in TINY[name]])
    out = capsys.readouterr().out
    assert any(words in out for words in ("accuracy", "saved and loaded", "times as long"))


def test_all_are_here_and_short() -> None:
    files = sorted(EXAMPLES.glob("*.py"))
    assert [f.stem for f in files] == sorted(TINY)
    assert all(len(f.read_text().splitlines()) <= 70 for f in files)
