"""Pictures of numbers for a page: SVG that takes the page's colours, by day and by night, and tells
its content in words, too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

from vpt.errors.text import printable

WIDTH = 640  # of the drawing; the page scales it
ROW = 26
LEFT, RIGHT = 190, 70  # what names and numbers take
LETTER, LONGEST = 7.6, 40  # width of a bold letter, and how many of them a name may have
Interval = tuple[str, float, float, float]  # name, value, low, high


def text_of(value: object) -> str:
    """Any text as it can stand in SVG or HTML."""
    return escape(printable(str(value), lines=False))


def short(name: str, most: int = 26) -> str:
    """A name that fits, its end left out where it does not."""
    return name if len(name) <= most else name[: most - 1] + "…"


def intervals(rows: Sequence[Interval], emphasised: str, words: str) -> str:
    """A dot with its interval for each row, on an axis that is at least as wide as the intervals.

    rows: shares in [0,1]. emphasised: the name of the row that counts. words: what it shows.
    """
    low = max(0.0, min(row[2] for row in rows) - 0.02)
    high = min(1.0, max(row[3] for row in rows) + 0.02)
    middle = (low + high) / 2
    span = max(high - low, 0.1)  # a tenth at least: no cliff where all are alike
    low = max(0.0, min(middle - span / 2, 1 - span))
    ticks = _ticks(low, low + span)
    height = ROW * len(rows) + 30
    names = [short(row[0], LONGEST) for row in rows]
    left = max(LEFT, 12 + LETTER * max(map(len, names)))

    def x(value: float) -> float:
        return left + (value - low) / span * (WIDTH - left - RIGHT)

    parts = [
        f'<line class="grid" x1="{x(t):.1f}" x2="{x(t):.1f}" y1="4" y2="{height - 22}"/>'
        f'<text class="tick" x="{x(t):.1f}" y="{height - 6}" text-anchor="middle">{t:.0%}</text>'
        for t in ticks
    ]
    for i, (name, value, start, end) in enumerate(rows):
        y, strong = ROW * i + 18, " strong" if name == emphasised else ""
        parts.append(
            f'<text class="name{strong}" x="{left - 12:.0f}" y="{y + 4}" text-anchor="end">'
            f"{text_of(names[i])}</text>"
            f'<line class="bar{strong}" x1="{x(start):.1f}" x2="{x(end):.1f}" y1="{y}" y2="{y}"/>'
            f'<circle class="dot{strong}" cx="{x(value):.1f}" cy="{y}" r="5"/>'
            f'<text class="value{strong}" x="{WIDTH - RIGHT + 10}" y="{y + 4}">{value:.1%}</text>'
        )
    said = "; ".join(f"{name} {v:.1%} ({a:.1%} to {b:.1%})" for name, v, a, b in rows)
    return _svg(height, f"{words}: {said}", parts)


def reliability(bins: Sequence[tuple[float, float, int]], words: str) -> str:
    """How often the model is right (up) by how sure it is (across), a circle for each bin, as large
    as it has examples; on the line they agree.

    bins: (mean probability, share that is right, examples).
    """
    side, left, top = 300, 60, 10
    most = max((n for _, _, n in bins), default=1)

    def place(across: float, up: float) -> tuple[float, float]:
        return left + across * side, top + (1 - up) * side

    parts = [f'<rect class="frame" x="{left}" y="{top}" width="{side}" height="{side}"/>']
    (x1, y1), (x2, y2) = place(0, 0), place(1, 1)
    parts.append(f'<line class="grid" x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}"/>')
    for tick in (0.0, 0.5, 1.0):
        x, y = place(tick, tick)
        parts.append(
            f'<text class="tick" x="{x:.0f}" y="{top + side + 18}" text-anchor="middle">'
            f'{tick:.0%}</text><text class="tick" x="{left - 8}" y="{y + 4:.0f}"'
            f' text-anchor="end">{tick:.0%}</text>'
        )
    for sure, right, n in bins:
        x, y = place(sure, right)
        radius = 3 + 9 * (n / most) ** 0.5
        parts.append(f'<circle class="dot strong see" cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}"/>')
    parts.append(
        f'<text class="tick" x="{left + side / 2}" y="{top + side + 38}" text-anchor="middle">how'
        " sure it is</text>"
        f'<text class="tick" x="{left + side + 12}" y="{top + 14}">above the line: too modest'
        f'</text><text class="tick" x="{left + side + 12}" y="{top + side - 4}">below: too sure'
        "</text>"
    )
    said = "; ".join(f"{n} examples {sure:.0%} sure, {right:.0%} right" for sure, right, n in bins)
    return _svg(top + side + 48, f"{words}: {said}", parts)


def lines(
    rows: Sequence[Mapping[str, float]], names: Mapping[str, str], marked: int, words: str
) -> str:
    """Values by epoch, each line named at its end.

    rows: each with "epoch". names: key → what the line is called. marked: the epoch that was kept.
    """
    series = {key: [(row["epoch"], row[key]) for row in rows if key in row] for key in names}
    series = {
        key: [(epoch, value) for epoch, value in points if math.isfinite(value)]
        for key, points in series.items()
    }
    series = {key: points for key, points in series.items() if points}
    if not series:
        return ""
    every = [value for points in series.values() for _, value in points]
    last = max(row["epoch"] for row in rows)
    first = min(row["epoch"] for row in rows)
    low, high = min(every), max(every)
    pad = max((high - low) * 0.08, 0.01)
    low, high = low - pad, high + pad
    height, right = 220, 150

    def place(epoch: float, value: float) -> tuple[float, float]:
        across = (epoch - first) / max(last - first, 1)
        return 50 + across * (WIDTH - 50 - right), 10 + (high - value) / (high - low) * (
            height - 50
        )

    parts = []
    for tick in _ticks(low, high):
        _, y = place(first, tick)
        parts.append(
            f'<line class="grid" x1="50" x2="{WIDTH - right}" y1="{y:.1f}" y2="{y:.1f}"/>'
            f'<text class="tick" x="42" y="{y + 4:.1f}" text-anchor="end">{tick:g}</text>'
        )
    step = max(1, -(-int(last - first) // 10))
    for epoch in range(int(first), int(last) + 1, step):
        x, _ = place(epoch, low)
        parts.append(
            f'<text class="tick" x="{x:.1f}" y="{height - 22}" text-anchor="middle">{epoch}</text>'
        )
    x, _ = place(marked, low)
    parts.append(
        f'<line class="mark" x1="{x:.1f}" x2="{x:.1f}" y1="10" y2="{height - 40}"/>'
        f'<text class="tick" x="{x:.1f}" y="{height - 6}" text-anchor="middle">epoch {marked} was'
        " kept: least loss on validation</text>"
    )
    ends: list[float] = []
    for number, (key, points) in enumerate(series.items()):
        path = " ".join("{:.1f},{:.1f}".format(*place(*point)) for point in points)
        end_x, end_y = place(*points[-1])
        while any(abs(end_y - other) < 14 for other in ends):  # labels that would lie over another
            end_y += 14
        ends.append(end_y)
        strong = " strong" if number else ""
        parts.append(
            f'<polyline class="line{strong}" points="{path}"/>'
            f'<text class="name{strong}" x="{end_x + 8:.1f}" y="{end_y + 4:.1f}">'
            f"{text_of(names[key])} {points[-1][1]:.3g}</text>"
        )
    said = "; ".join(f"{names[key]} {points[-1][1]:.3g}" for key, points in series.items())
    return _svg(height, f"{words}, at the end: {said}; epoch {marked} was kept", parts)


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers within an axis, three to seven."""
    size = 10.0 ** math.floor(math.log10(high - low))
    step = next(one for one in (size / 5, size / 2, size, 2 * size) if (high - low) / one <= 6)
    first = -(-low // step)
    return [round(i * step, 6) for i in range(int(first), int(high // step) + 1)]


def _svg(height: float, words: str, parts: Sequence[str]) -> str:
    said = text_of(words)
    return (
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{said}"><title>{said}</title>'
        + "".join(parts)
        + "</svg>"
    )
