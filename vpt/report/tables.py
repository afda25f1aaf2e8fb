"""What numbers look like in a terminal."""

from __future__ import annotations

from rich.table import Table

from vpt.errors.text import printable
from vpt.metrics.groups import TITLES
from vpt.report.progress import clean
from vpt.sites import Config

HEADS = {"out_of_fold": "out of fold", "val": "validation", "test": "test"}
# a gap is never negative, so noise only widens it
PERCENTILES = (
    "(2.5 to 97.5 % of redrawings of the examples; those of a gap lie too high, 0 is never inside)"
)

RECOMMENDED = {
    "use": "use it",
    "keep the model": "keep the model as it is",
    "cannot tell": "none, it cannot be told",
}


def sentence(text: str) -> str:
    """The same with a capital letter in front, and the rest as it is."""
    return text[:1].upper() + text[1:]


def tradeoff_tables(report: Config) -> list[Table]:
    """Bare model, strengths, thresholds by group; and each cell without and with the chosen; on
    test (or validation).
    """
    gap = report["gap"]
    part, words = ("test", "test") if report["base"]["test"] else ("val", "validation")
    caption = (
        f"{report['base'][part]['n']} {words} examples. Balanced: mean over label × group. Gap:"
        f" {gap.replace('_', ' ')} {PERCENTILES}"
    )
    table = Table(
        "strength",
        "accuracy",
        "balanced",
        "worst group",
        "gap",
        title=clean(report["prompt"]),
        caption=caption,
    )
    rows = [("bare model", report["base"])]
    for point in report["points"]:
        name = "accuracy alone" if point["strength"] is None else f"{point['strength']:g}"
        rows.append((name + (" ← chosen" if point["name"] == report["chosen"] else ""), point))
    if report["thresholds"]:
        rows.append(("group thresholds", report["thresholds"]))
    for name, point in rows:
        metrics = point[part]["metrics"]
        shares = [
            f"{100 * metrics[metric]['value']:.1f} %"
            for metric in ("accuracy", "balanced_accuracy", "worst_group_accuracy")
        ]
        table.add_row(name, *shares, _interval(metrics[gap], False))
    chosen = next(point for point in report["points"] if point["name"] == report["chosen"])
    tables = [table, _cells_table(report["base"][part], chosen[part])]
    return [_forms_table(report), *tables] if report.get("forms") else tables


def _forms_table(report: Config) -> Table:
    """The forms that were compared, out of fold: by that one of them is taken."""
    table = Table(
        "form", "accuracy", "worst group", "gap", "so", title="forms, each with all held out once"
    )
    names = ("accuracy", "worst_group_accuracy", report["gap"])
    base = {name: report["base"]["val"]["metrics"][name]["value"] for name in names}
    rows = [("bare model", base, "")]
    rows += [
        (one["form"] + (" ← taken" if one["taken"] else ""), one["val"], one["recommendation"])
        for one in report["forms"]
    ]
    for name, values, said in rows:
        shares = [f"{100 * values[metric]:.1f} %" for metric in names[:2]]
        gap = values[names[2]]
        table.add_row(clean(name), *shares, "–" if gap is None else f"{gap:.3f}", said)
    return table


def _interval(metric: Config, percent: bool) -> str:
    if metric["value"] is None:
        return "–"
    value, low, high = (
        f"{100 * metric[name]:.1f}" if percent else f"{metric[name]:.3f}"
        for name in ("value", "low", "high")
    )
    return f"{value} [dim]({low}–{high})[/]"


def audit_tables(audit: Config) -> list[Table]:
    """The metrics with their intervals, and accuracy by label and group."""
    rates = "each class against the rest; the worst is shown"
    if audit["positive"]:
        rates = f"rates are of {audit['positive']!r}"
    rates += f". In brackets: {PERCENTILES[1:-1]}"
    numbers = Table(
        "metric", "value (2.5–97.5 %)", title=f"{audit['n']} examples", caption=clean(rates)
    )
    for name, title in TITLES.items():
        numbers.add_row(title, _interval(audit["metrics"][name], name.endswith("accuracy")))
    groups = audit["per_group"]
    cells = Table("accuracy", *(clean(name) for name in groups), title="by label and group")
    for label, row in audit["cells"].items():
        cells.add_row(clean(label), *(_accuracy_of(row[name]) for name in groups))
    cells.add_row("all", *(_accuracy_of(group) for group in groups.values()))
    return [numbers, cells]


def _accuracy_of(cell: Config) -> str:
    """With its interval, where there is one, and of how many."""
    return f"{_share(cell)}{_known(cell)} [dim]of {cell['n']}[/]" if cell["n"] else "–"


def _known(cell: Config) -> str:
    """Its interval."""
    low, high = cell.get("low"), cell.get("high")
    return "" if low is None or high is None else f" ({100 * low:.0f}–{100 * high:.0f})"


def _cells_table(before: Config, after: Config) -> Table:
    """Accuracy of each label and group, without a prompt and with it, from two audits."""
    table = Table(
        "label", "group", "examples", "without", "with (95 %)", title="accuracy by label and group"
    )
    for label, row in before["cells"].items():
        for group, cell in row.items():
            changed = after["cells"][label][group]
            with_it = f"{_share(changed)}{_known(changed)}"
            table.add_row(clean(label), clean(group), str(cell["n"]), _share(cell), with_it)
    return table


def _share(cell: Config) -> str:
    return f"{cell['accuracy']:.1%}" if cell["n"] else "–"


def map_text(mapping: dict[str, list[tuple[str, float]]]) -> str:
    """Each class with the source classes that stand for it."""
    rows = []
    for name, sources in mapping.items():
        weights = ", ".join(f"{source} {weight:.0%}" for source, weight in sources)
        rows.append(printable(f"{name}: {weights}", lines=False))
    if len(rows) > 20:
        rows = [*rows[:20], f"and {len(rows) - 20} more"]
    return "\n".join(rows)


def report_table(report: Config) -> Table:
    """Every method that `vpt.adapt` tried, the fitted one last, with intervals of 95 %."""
    parts, method = report["parts"], report["method"]
    held = next(part for part in ("out_of_fold", "val") if part in parts)
    names = dict.fromkeys(name for part in parts.values() for name in part["methods"])
    table = Table("method", *(HEADS[part] for part in (held, "test")), "parameters")
    for name in [*(name for name in names if name != method), method]:
        cells = [
            _share_of(parts.get(part, {}).get("methods", {}).get(name)) for part in (held, "test")
        ]
        numbers = f"{sum(report['parameters_trained'].values()):,}" if name == method else "–"
        table.add_row(clean(name), *cells, numbers)
    return table


def _share_of(scored: Config | None) -> str:
    if scored is None:
        return "–"
    low, high = scored["interval"]
    return f"{scored['accuracy']:.1%} [dim]({100 * low:.0f}–{100 * high:.0f})[/]"
