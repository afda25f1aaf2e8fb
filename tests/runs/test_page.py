"""The page of a run: what it says is what the run measured; names are data, never markup."""

from __future__ import annotations

import json
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from helpers import write_images, write_sounds

import vpt
from vpt.data import Examples
from vpt.errors import PromptFileError
from vpt.report.page import html_of, markdown_of
from vpt.runs.mistakes import alike, classes, groups, matrix, reliability
from vpt.runs.page import markdown, page_of, write_page
from vpt.runs.showing import from_notes, from_parts
from vpt.training import side_by_side

EVIL = "<blink>&\u202e\x1b'\""


class Read(HTMLParser):
    """Tags, attributes and text of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.sources: list[str] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.tags.append(tag)
        self.sources += [value for name, value in attrs if name in ("src", "href")]
        assert tag != "img" or dict(attrs).get("alt")

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("page")
    few = pytest.MonkeyPatch()
    few.setattr(side_by_side, "STEPS", 5)
    few.setattr(side_by_side, "FEWEST", 5)
    try:
        vpt.adapt(str(write_images(root / "data", per_class=8)), out=root / "run", progress=False)
    finally:
        few.undo()
    return root / "run"


def test_a_run_leaves_a_page_that_needs_nothing_else(run: Path) -> None:
    metrics = json.loads((run / "metrics.json").read_text())
    page = Read((run / "report.html").read_text())
    assert {"script", "link", "iframe"}.isdisjoint(page.tags)
    assert all(source.startswith("data:") for source in page.sources)
    assert page.tags.count("svg") >= 3
    assert "img" in page.tags
    scored = metrics["parts"]["test"]["methods"][metrics["method"]]
    assert f"{scored['accuracy']:.1%}" in page.text
    assert metrics["verdict"][1:] in page.text
    for words in ("out of fold", "Class by class", "vpt predict", "vpt:vit-p8-64", "red"):
        assert words in page.text


def test_it_is_written_again_from_the_folder_and_as_markdown(run: Path) -> None:
    before = (run / "report.html").read_text()
    (run / "report.html").unlink()  # what it showed is kept
    again = write_page(run).read_text()
    assert again == before
    text = markdown(run)
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert len(rows) == 2 + len(page_of(run, lambda part, name: None)["numbers"])
    assert "**" in text


def test_what_cannot_be_shown_is_said(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    page = page_of(copy, lambda part, name: None)
    assert page["unseen"]
    assert "the files were not at hand" in Read(html_of(page).decode()).text
    (copy / "predictions.csv").unlink()
    with pytest.raises(PromptFileError, match=r"Found no predictions.csv in"):
        write_page(copy)
    (copy / "predictions.csv").write_text("part,file\n")
    (copy / "metrics.json").write_text('{"verdict": "old"}')
    with pytest.raises(PromptFileError, match="of an older vpt"):
        write_page(copy)


def row(label: str, answer: str, sure: float, part: str = "test", file: str = "f") -> dict:
    return {
        "part": part,
        "file": file,
        "label": label,
        "answer": answer,
        "probability": str(sure),
        "probability of label": "0.01",
    }


def test_names_are_never_markup(run: Path) -> None:
    page = page_of(run, lambda part, name: None)
    page |= {"title": EVIL, "verdict": EVIL, "facts": [(EVIL, EVIL)], "left_out": [(EVIL, EVIL)]}
    page["matrix"] = matrix([row(EVIL, "b", 0.9)], [EVIL, "b"])
    page["groups"], _ = groups([row(EVIL, "b", 0.9)], [], lambda part, name: None)
    found = Read(html_of(page).decode())
    assert "blink" not in found.tags
    assert found.text.count("<blink>&") > 5
    assert "\x1b" not in found.text
    assert "\u202e" not in found.text
    assert "<blink" not in markdown_of(page).replace("\\<", "")


def test_mistakes_are_sorted_by_how_sure_they_are() -> None:
    rows = [row("a", "b", 0.6), row("a", "b", 0.9), row("b", "b", 0.5), row("b", "b", 0.99)]
    rows += [row("a", "b", 0.97, "out_of_fold"), row("a", "b", 0.9, "out_of_fold")]
    found, unseen = groups(rows[:4], rows, lambda part, name: None)
    assert [[item["probability"] for item in group["examples"]] for group in found] == [
        ["90%", "60%"],
        ["50%", "99%"],
        ["97%"],
    ]
    assert unseen
    assert alike(rows[:4]) == [{"text": "a and b (2)"}]
    assert groups([], [], lambda part, name: None)[1] is False


def test_a_thousand_classes_leave_a_matrix_that_can_be_read() -> None:
    names = [str(i) for i in range(1000)]
    rows = [row(str(i), str(i + (i < 30)), 0.5) for i in range(999)]
    found = matrix(rows, names)
    assert len(found["classes"]) == 20
    assert "Of 1000 classes" in found["caption"]
    assert matrix([], names) is None
    assert matrix(rows, ["one"]) is None
    few = matrix([row("a", "b", 1.0), row("a", "a", 1.0)], ["a", "b"])
    assert [cell["share"] for cell in few["rows"][0]["cells"]] == ["0.50", "0.50"]
    assert [cell["share"] for cell in few["rows"][1]["cells"]] == ["0.00", "0.00"]
    listed = classes({"a": {"train": 2}, "b": {"train": 1}}, {"per_class": {"b": 0.5}})
    assert [one["name"] for one in listed] == ["b", "a"]
    assert reliability([]) is None


def test_sounds_have_a_spectrogram_and_a_player(tmp_path: Path) -> None:
    write_sounds(tmp_path / "d")
    data = vpt.load_data(tmp_path / "d", vpt.load_backbone("vpt:ast-tiny").inputs, progress=False)
    show = from_parts({"train": data.train})
    given = show("out_of_fold", data.train.name(0))
    assert given.picture.startswith("data:image/jpeg;base64,")
    assert given.sound.startswith("data:audio/wav;base64,")
    assert show("test", data.train.name(0)) is None
    assert show("out_of_fold", "nowhere") is None


def test_a_name_that_two_examples_have_is_not_shown_and_the_part_decides() -> None:
    red, blue = (
        Examples(lambda i, c=c: torch.full((3, 8, 8), c), [0, 0], ["a"]) for c in (0.9, 0.1)
    )
    show = from_parts({"train": red, "test": blue})
    assert show("out_of_fold", "1") != show("test", "1") is not None
    assert from_parts({"train": red, "val": blue})("out_of_fold", "1") is None
    assert from_parts({"train": red, "val": blue})("val", "1") is not None

    def gone(i: int) -> torch.Tensor:
        raise vpt.errors.DataError("it is gone")

    assert from_parts({"test": Examples(gone, [0], ["a"])})("test", "0") is None


def test_only_what_was_noted_and_leads_nowhere_is_shown_again() -> None:
    good = {"picture": "data:image/jpeg;base64,AAAA", "sound": ""}
    notes = {"test/a": good, "test/b": good | {"picture": "https://x/y.jpg"}, "test/c": {}}
    show = from_notes(notes)
    assert show("test", "a").picture == good["picture"]
    assert [show("test", name) for name in "bcd"] == [None] * 3
