"""Pictures for a page: what they hold, and that nothing in a name becomes markup."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from vpt.report import charts

EVIL = '<script>alert("x")</script>&'


def drawn(svg: str) -> ElementTree.Element:
    return ElementTree.fromstring(svg)


def texts(svg: str) -> list[str]:
    return [part.text for part in drawn(svg).iter("text")]


def test_intervals_lie_within_an_axis_that_is_no_cliff() -> None:
    rows = [("probe", 0.880, 0.878, 0.882), (EVIL, 0.885, 0.883, 0.888)]
    svg = charts.intervals(rows, EVIL, "accuracy")
    assert "<script" not in svg
    assert "88.5%" in texts(svg)
    ticks = [int(text[:-1]) for text in texts(svg) if re.fullmatch(r"\d+%", text)]
    assert max(ticks) - min(ticks) >= 8  # points: of 0.5 nobody makes a cliff
    dots = [float(part.get("cx")) for part in drawn(svg).iter("circle")]
    bars = [(float(p.get("x1")), float(p.get("x2"))) for p in drawn(svg).iter("line")][-2:]
    assert all(low < dot < high for dot, (low, high) in zip(dots, bars, strict=True))
    assert all(charts.LEFT <= dot <= charts.WIDTH - charts.RIGHT for dot in dots)
    assert "probe 88.0% (87.8% to 88.2%)" in drawn(svg).get("aria-label")


def test_lines_are_named_where_they_end_and_epochs_are_whole() -> None:
    rows = [{"epoch": e, "a": 0.5 + e / 100, "b": 0.5 + e / 99} for e in range(1, 31)]
    svg = charts.lines(rows, {"a": "one", "b": "other", "c": "absent"}, 7, "accuracy")
    assert not any("absent" in text for text in texts(svg))
    assert "epoch 7 was kept: least loss on validation" in texts(svg)
    whole = [text for text in texts(svg) if text.isdigit()]
    assert whole[0] == "1"
    assert len(whole) <= 11
    names = [part for part in drawn(svg).iter("text") if part.get("class", "").startswith("name")]
    heights = [float(part.get("y")) for part in names]
    assert abs(heights[0] - heights[1]) >= 13  # they do not lie over each other
    charts.lines([{"epoch": 0, "a": 0.5}], {"a": "one"}, 0, "one epoch, one value")


@pytest.mark.parametrize("bins", [[], [(0.9, 1.0, 3)], [(0.2, 0.0, 1), (0.9, 0.8, 100)]])
def test_reliability_has_a_circle_for_each_bin(bins: list) -> None:
    assert len(list(drawn(charts.reliability(bins, "sure")).iter("circle"))) == len(bins)


def test_long_names_are_cut() -> None:
    assert charts.short("x" * 100) == "x" * 25 + "…"
    assert charts.text_of("a\x1b[2J<") == "a\\x1b[2J&lt;"
