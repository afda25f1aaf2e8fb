"""What corrections come to, in words and on their page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from vpt.errors import PromptFileError
from vpt.runs.corrections import changed, in_words, is_corrected, write_corrected
from vpt.runs.journal import log

TURNED = {"name": "a/<b>.png", "label": "a", "said": "a", "now": "b"}


def report(**changes: Any) -> dict[str, Any]:
    given = {
        "number": 1,
        "date": "2026-01-02",
        "given": 3,
        "mistaken": 2,
        "mended": 2,
        "held_out": {"mended": 1, "of": 2, "low": 0.1, "high": 0.9},
        "budget": 0.005,
        "turned_wrong": 0.01,
        "turned_right": 0.002,
        "recommendation": "use",
        "check": None,
        "examples": [{"digest": "0", "name": "x.png", "label": "a", "said": "b", "now": "a"}],
    }
    return given | changes


CHECK = {
    "n": 60,
    "before": 0.9,
    "after": 0.85,
    "difference": {"value": -0.05, "low": -0.09, "high": -0.01, "worse": 3, "better": 0},
    "turned_wrong": [TURNED] * 9,
    "turned_right": [],
}


def test_what_is_expected_of_others_is_said() -> None:
    said = " ".join(in_words(report()))
    assert "2 of 2 mistakes mended. 1 were right already." in said
    assert "Held out in turn, 1 of 2 are mended (10% to 90%)" in said
    assert "about 1.0% of answers turn wrong and 0.2% right" in said
    assert "says nothing about others" in " ".join(in_words(report(held_out=None)))
    assert "accuracy 90.0% → 85.0%, -5.0 points (-9.0 to -1.0); 3 turn wrong" in " ".join(
        in_words(report(check=CHECK))
    )


def test_what_turns_wrong_is_listed_and_cut() -> None:
    assert changed(report()) is None
    table = changed(report(check=CHECK))
    assert table is not None
    assert (table.row_count, table.caption) == (8, "and 1 more")
    assert changed(report(check=CHECK), "turned_right") is None


def test_the_page_of_a_corrected_run(tmp_path: Path) -> None:
    assert not is_corrected(tmp_path)
    with pytest.raises(PromptFileError, match=r"Found no corrections\.json"):
        write_corrected(tmp_path)
    log(tmp_path, [report(), report(number=2, check=CHECK, recommendation="keep the model")])
    assert is_corrected(tmp_path)
    page = write_corrected(tmp_path).read_text()
    assert "corrected 2 times" in page
    assert "Keep the model as it is. 2 of 2 mistakes mended." in page
    assert "a/&lt;b&gt;.png" in page
    assert "-0.8 points, foreseen" in page
    assert "-5.0 points of 60" in page
