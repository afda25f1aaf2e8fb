"""What numbers look like in a terminal."""

from __future__ import annotations

from typing import Any

from rich.markup import escape
from rich.table import Table

from vpt.group_metrics import TITLES


def tradeoff_tables(report: dict[str, Any]) -> list[Table]:
    """Bare model, strengths, thresholds by group; and each cell without and with the chosen; on test (or validation)."""
    part, gap = "test" if report["base"]["test"] else "val", report["gap"]
    on = f"{report['base'][part]['n']} {'test' if part == 'test' else 'validation'} examples"
    caption = f"{on}. Balanced: mean over label × group. Gap: {gap.replace('_', ' ')}, with its 95 % interval"
    table = Table("strength", "accuracy", "balanced", "worst group", "gap", title=escape(report["prompt"]), caption=caption)
    rows = [("bare model", report["base"])]
    for point in report["points"]:
        name = "accuracy alone" if point["strength"] is None else f"{point['strength']:g}"
        rows.append((name + (" ← chosen" if point["name"] == report["chosen"] else ""), point))
    rows += [("group thresholds", report["thresholds"])] if report["thresholds"] else []
    for name, point in rows:
        found = point[part]["metrics"]
        shares = [f"{100 * found[k]['value']:.1f} %" for k in ("accuracy", "balanced_accuracy", "worst_group_accuracy")]
        table.add_row(name, *shares, _interval(found[gap], False))
    chosen = next(point for point in report["points"] if point["name"] == report["chosen"])
    return [table, _cells_table(report["base"][part], chosen[part])]


def _interval(found: dict[str, Any], percent: bool) -> str:
    if found["value"] is None:
        return "–"
    show = (lambda v: f"{100 * v:.1f}") if percent else (lambda v: f"{v:.3f}")
    return f"{show(found['value'])} [dim]({show(found['low'])}–{show(found['high'])})[/]"


def audit_tables(found: dict[str, Any]) -> list[Table]:
    """The metrics with their intervals, and accuracy by label and group."""
    rates = f"rates are of {found['positive']!r}" if found["positive"] else "each class against the rest; the worst is shown"
    numbers = Table("metric", "value (95 % interval)", title=f"{found['n']} examples", caption=escape(rates))
    for name, title in TITLES.items():
        numbers.add_row(title, _interval(found["metrics"][name], name.endswith("accuracy")))
    groups = list(found["per_group"])
    cells = Table("accuracy", *(escape(name) for name in groups), title="by label and group")
    for label, row in found["cells"].items():
        shown = [row[name] for name in groups]
        cells.add_row(escape(label), *(f"{c['accuracy']:.1%} [dim]of {c['n']}[/]" if c["n"] else "–" for c in shown))
    cells.add_row("all", *(f"{found['per_group'][g]['accuracy']:.1%} [dim]of {found['per_group'][g]['n']}[/]" for g in groups))
    return [numbers, cells]


def _cells_table(before: dict[str, Any], after: dict[str, Any]) -> Table:
    """Accuracy by label and group, without a prompt and with it, from two audits."""
    table = Table("accuracy", *(escape(name) for name in before["per_group"]), title="by label and group, without → with")
    share = lambda cell: f"{cell['accuracy']:.1%}" if cell["n"] else "–"  # noqa: E731
    for label, row in before["cells"].items():
        table.add_row(escape(label), *(f"{share(cell)} → {share(after['cells'][label][name])}" for name, cell in row.items()))
    return table


def map_text(mapping: dict[str, list[tuple[str, float]]]) -> str:
    """Each class with the source classes that stand for it."""
    rows = [f"{name}: {', '.join(f'{source} {weight:.0%}' for source, weight in found)}" for name, found in mapping.items()]
    return "\n".join([*rows[:20], *([f"and {len(rows) - 20} more"] if len(rows) > 20 else [])])


def report_table(report: dict[str, Any]) -> Table:
    """Baselines and prompt of `vpt adapt`."""
    table = Table("method", "validation", "test", "parameters", title=escape(report["prompt"]))
    for name, values in report["baselines"].items():
        test = f"{values['test']:.1%}" if "test" in values else "–"
        table.add_row(name.replace("_", " "), f"{values['val']:.1%}", test, "–")
    test = f"{report['test_accuracy']:.1%}" if report["test_accuracy"] is not None else "–"
    table.add_row("prompt", f"{report['val_accuracy']:.1%}", test, f"{sum(report['parameters_trained'].values()):,}")
    return table
