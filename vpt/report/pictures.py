"""Pictures of numbers: how a run went, whom it serves, what it costs. Drawn off screen, as PNG."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from io import BytesIO
from itertools import cycle
from textwrap import fill
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import Bbox

from vpt.errors.text import printable
from vpt.sites import Config

INK = "#1b2a41"
SOFT = "#8d99ae"
GOOD = "#c1440e"

# where a name can stand beside its point, in points of print
PLACES = [(x, y) for y in (5, -11, 16, -22, 27, -33) for x in (8, -8)]

Ratio = tuple[float, float, float]  # a value, and its interval


def figure_of(width: float, height: float) -> Figure:
    """An empty figure, in inches."""
    figure = Figure(figsize=(width, height), dpi=140, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def png_of(figure: Figure) -> bytes:
    """A figure as PNG; its texts are plain text, whatever stands in them."""
    buffer = BytesIO()
    # names of classes and files: no formulas, nothing that cannot be drawn
    for text in figure.findobj(Text):
        text.set_parse_math(False)
        text.set_text(printable(text.get_text()))
    with warnings.catch_warnings():
        # names in scripts that matplotlib's font lacks
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def curves(
    rows: Sequence[Mapping[str, float]], best: int, baselines: Mapping[str, float], title: str
) -> bytes:
    """Accuracy and loss by epoch, the epoch that was kept, and baselines on validation as lines;
    each is named at its end.
    """
    figure = figure_of(8, 3.4)
    left, right = figure.subplots(1, 2)
    ends = _lines(left, rows, {"train_accuracy": SOFT, "val_accuracy": GOOD})
    for (name, value), style in zip(baselines.items(), cycle(("--", ":", "-.")), strict=False):
        left.axhline(value, color=INK, lw=1, ls=style)
        ends.append((value, name, INK))
    _name_ends(left, ends)
    _name_ends(right, _lines(right, rows, {"loss": SOFT, "val_loss": GOOD}))
    for axes, label in ((left, "accuracy"), (right, "cross-entropy")):
        if best in [row["epoch"] for row in rows]:
            axes.axvline(best, color=GOOD, lw=6, alpha=0.15)
        axes.set(xlabel="epoch", ylabel=label)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.spines[["top", "right"]].set_visible(False)
    kept = f"; kept was epoch {best}, of least loss on validation" if rows else ""
    figure.suptitle(title + kept, color=INK, fontsize=10)
    return png_of(figure)


def _lines(
    axes: Axes, rows: Sequence[Mapping[str, float]], colours: Mapping[str, str]
) -> list[tuple[float, str, str]]:
    """Draw what was measured, by epoch; where each line ends, its name and colour. colours: of each
    name.
    """
    ends = []
    for name, colour in colours.items():
        points = [(row["epoch"], row[name]) for row in rows if name in row]
        if points:
            x, y = zip(*points, strict=True)
            axes.plot(x, y, color=colour, marker="o", ms=3)
            part = "training" if name in ("loss", "train_accuracy") else "validation"
            ends.append((points[-1][1], part, colour))
    return ends


def _name_ends(axes: Axes, ends: Sequence[tuple[float, str, str]]) -> None:
    """Write names to the right of the axes, each beside its value, none over another."""
    low, high = axes.get_ylim()
    places: list[float] = []
    for value, name, colour in sorted(ends):
        place = (value - low) / (high - low)
        place = max(place, places[-1] + 0.06) if places else place
        places.append(place)
        axes.text(
            1.02, place, name, transform=axes.transAxes, color=colour, fontsize=7, va="center"
        )


def group_bars(before: Config, after: Config, title: str) -> bytes:
    """Accuracy of every label × group cell without (grey) and with the prompt, from two audits;
    what is empty is left out.
    """
    cells = [
        (f"{label}\n{group}", label, group)
        for label, row in before["cells"].items()
        for group in row
    ]
    figure = figure_of(max(5.0, 1.1 * len(cells) + 1.5), 3.4)
    axes = figure.add_subplot()
    for shift, audit, colour, name in ((-0.2, before, SOFT, "before"), (0.2, after, GOOD, "after")):
        accuracies = [
            (i + shift, audit["cells"].get(label, {}).get(group, {}).get("accuracy"))
            for i, (_, label, group) in enumerate(cells)
        ]
        known = [(place, value) for place, value in accuracies if value is not None]
        places, values = [place for place, _ in known], [value for _, value in known]
        bars = axes.bar(places, values, 0.38, color=colour, label=name)
        axes.bar_label(bars, fmt=lambda v: f"{v:.0%}", fontsize=7, color=INK)
    axes.set_xticks(range(len(cells)), [name for name, _, _ in cells], fontsize=8)
    axes.set(
        ylabel="accuracy",
        xlim=(-0.6, len(cells) - 0.4),
        ylim=(0, 1.25),
        yticks=[0, 0.25, 0.5, 0.75, 1],
    )
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8, frameon=False, ncols=2, loc="upper right")
    axes.set_title(fill(title, 80), color=INK, fontsize=9)
    return png_of(figure)


def tradeoff(
    points: Sequence[tuple[str, Ratio, Ratio]],
    marks: dict[str, tuple[Ratio, Ratio]],
    chosen: int,
    x_label: str,
    title: str,
) -> bytes:
    """Accuracy against a gap, with intervals of 95 % in grey; the axes are at least a tenth wide.
    points: (name, gap, accuracy) along the strengths; marks: others beside them, by name.
    """
    figure = figure_of(6.4, 4.4)
    axes = figure.add_subplot()
    along = [(gap[0], accuracy[0]) for _, gap, accuracy in points]
    axes.plot(*zip(*along, strict=True), color=SOFT, lw=1, zorder=1)
    named = [*((name, gap, accuracy) for name, gap, accuracy in points)]
    named += [(name, gap, accuracy) for name, (gap, accuracy) in marks.items()]
    for _, (x, left, right), (y, low, high) in named:
        axes.plot([left, right], [y, y], color=SOFT, lw=0.8, alpha=0.55, zorder=0)
        axes.plot([x, x], [low, high], color=SOFT, lw=0.8, alpha=0.55, zorder=0)
    axes.plot(*zip(*along, strict=True), "o", color=SOFT, ms=6)
    axes.plot(*along[chosen], "o", ms=12, mfc="none", mec=GOOD, mew=2)
    for (gap, accuracy), marker in zip(marks.values(), cycle("sD^v"), strict=False):
        axes.plot(gap[0], accuracy[0], marker, color=INK, ms=7)
    for axis in (axes.xaxis, axes.yaxis):
        low, high = axis.get_view_interval()
        short = max(0.0, 0.1 - (high - low)) / 2
        axis.set_view_interval(low - short, high + short, ignore=True)
    axes.set(xlabel=x_label, ylabel="accuracy")
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(title, color=INK, fontsize=9)
    called = [
        (f"{name} (chosen on validation)" if i == chosen else name, gap[0], accuracy[0])
        for i, (name, gap, accuracy) in enumerate(named)
    ]
    _name_points(figure, axes, called)
    return png_of(figure)


def _name_points(figure: Figure, axes: Axes, points: Sequence[tuple[str, float, float]]) -> None:
    """Write names beside points, where none lies over another, over a point or over the edge."""
    figure.draw_without_rendering()
    inside = axes.get_window_extent()
    spots = axes.transData.transform([(x, y) for _, x, y in points])
    taken = [Bbox.from_extents(*(spot - 8), *(spot + 8)) for spot in spots]
    for name, x, y in points:
        for place in PLACES:
            side: Literal["left", "right"] = "left" if place[0] > 0 else "right"
            text = axes.annotate(
                name, (x, y), place, textcoords="offset points", fontsize=7, color=INK, ha=side
            )
            box = text.get_window_extent().padded(1)
            fits = inside.contains(*box.min) and inside.contains(*box.max)
            if fits and not any(box.overlaps(other) for other in taken):
                break
            if place != PLACES[-1]:
                text.remove()
        taken.append(box)


def costs(rows: Sequence[tuple[str, Ratio | None, Ratio | None]], title: str) -> bytes:
    """Times ÷ the plain forward's as bars with 95 % intervals, (name, of inference, of a training
    step) from top to bottom.
    """
    figure = figure_of(7.5, 0.9 + 0.36 * len(rows))
    axes = figure.add_subplot()
    bars = [
        ("inference", SOFT, -0.2, [row[1] for row in rows]),
        ("training step", GOOD, 0.2, [row[2] for row in rows]),
    ]
    for label, color, shift, ratios in bars:
        at = [(i + shift, *ratio) for i, ratio in enumerate(ratios) if ratio is not None]
        whiskers = [
            [max(0.0, value - low) for _, value, low, _ in at],
            [max(0.0, high - value) for _, value, _, high in at],
        ]
        places, values = [bar[0] for bar in at], [bar[1] for bar in at]
        axes.barh(
            places, values, 0.36, color=color, label=label, xerr=whiskers, ecolor=INK, capsize=2
        )
        for place, value, _, high in at:
            axes.text(
                max(value, high) + 0.04, place, f"{value:.2f}", va="center", fontsize=7, color=INK
            )
    axes.set_yticks(range(len(rows)), [row[0] for row in rows], fontsize=8)
    axes.invert_yaxis()
    for floor in (1, 2):
        axes.axvline(floor, color=INK, linewidth=0.7, linestyle=":")
    axes.set_xlabel(
        "time ÷ a plain forward (dotted: one forward, and one with its gradients)", fontsize=8
    )
    axes.legend(fontsize=7, loc="upper right")
    axes.set_title(title, color=INK, fontsize=9, wrap=True)
    return png_of(figure)


def sequence(lines: dict[str, Sequence[Sequence[float]]], title: str) -> bytes:
    """Accuracy after each task of a sequence, mean over the runs of each method; one number (joint
    training) is a line across.
    """
    figure = figure_of(6.5, 3.8)
    axes = figure.add_subplot()
    longest = max(len(run) for runs in lines.values() for run in runs)
    for (name, runs), style in zip(lines.items(), cycle(("-", "--", "-.", ":")), strict=False):
        mean = np.mean(np.asarray(runs), axis=0)
        if len(mean) == 1 and longest > 1:
            axes.axhline(mean[0], color=SOFT, lw=1, ls=style, label=name)
        else:
            axes.plot(range(1, len(mean) + 1), mean, marker="o", ms=4, lw=1.5, ls=style, label=name)
    axes.set(xlabel="tasks learned", ylabel="accuracy", xticks=range(1, longest + 1))
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=7, frameon=False, loc="lower left")
    axes.set_title(title, color=INK, fontsize=9)
    return png_of(figure)
