"""What numbers look like in a terminal."""

from __future__ import annotations

import statistics
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Column, Table

from vpt.errors.text import printable
from vpt.metrics.groups import TITLES
from vpt.report.progress import clean

# a gap is never negative, so noise only widens it
PERCENTILES = (
    "(2.5 to 97.5 % of redrawings of the examples; those of a gap lie too high, 0 is never inside)"
)


def tradeoff_tables(report: dict[str, Any]) -> list[Table]:
    """Bare model, strengths, thresholds by group; and each cell without and with the chosen; on
    test (or validation).
    """
    part, gap = "test" if report["base"]["test"] else "val", report["gap"]
    on = f"{report['base'][part]['n']} {'test' if part == 'test' else 'validation'} examples"
    caption = f"{on}. Balanced: mean over label × group. Gap: {gap.replace('_', ' ')} {PERCENTILES}"
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
    rows += [("group thresholds", report["thresholds"])] if report["thresholds"] else []
    for name, point in rows:
        found = point[part]["metrics"]
        shares = [
            f"{100 * found[k]['value']:.1f} %"
            for k in ("accuracy", "balanced_accuracy", "worst_group_accuracy")
        ]
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
    rates = (
        f"rates are of {found['positive']!r}"
        if found["positive"]
        else "each class against the rest; the worst is shown"
    )
    rates += f". In brackets: {PERCENTILES[1:-1]}"
    numbers = Table(
        "metric", "value (2.5–97.5 %)", title=f"{found['n']} examples", caption=clean(rates)
    )
    for name, title in TITLES.items():
        numbers.add_row(title, _interval(found["metrics"][name], name.endswith("accuracy")))
    groups = list(found["per_group"])
    cells = Table("accuracy", *(clean(name) for name in groups), title="by label and group")
    for label, row in found["cells"].items():
        found_cells = [row[name] for name in groups]
        cells.add_row(
            clean(label),
            *(f"{c['accuracy']:.1%} [dim]of {c['n']}[/]" if c["n"] else "–" for c in found_cells),
        )
    cells.add_row(
        "all",
        *(
            f"{found['per_group'][g]['accuracy']:.1%} [dim]of {found['per_group'][g]['n']}[/]"
            for g in groups
        ),
    )
    return [numbers, cells]


def _cells_table(before: dict[str, Any], after: dict[str, Any]) -> Table:
    """Accuracy by label and group, without a prompt and with it, from two audits."""
    table = Table(
        "accuracy",
        *(clean(name) for name in before["per_group"]),
        title="by label and group, without → with",
    )
    share = lambda cell: f"{cell['accuracy']:.1%}" if cell["n"] else "–"  # noqa: E731
    for label, row in before["cells"].items():
        table.add_row(
            clean(label),
            *(
                f"{share(cell)} → {share(after['cells'][label][name])}"
                for name, cell in row.items()
            ),
        )
    return table


def map_text(mapping: dict[str, list[tuple[str, float]]]) -> str:
    """Each class with the source classes that stand for it."""
    rows = [
        printable(
            f"{name}: {', '.join(f'{source} {weight:.0%}' for source, weight in found)}",
            lines=False,
        )
        for name, found in mapping.items()
    ]
    return "\n".join([*rows[:20], *([f"and {len(rows) - 20} more"] if len(rows) > 20 else [])])


def report_table(report: dict[str, Any]) -> Table:
    """Baselines and prompt of `vpt adapt`."""
    table = Table("method", "validation", "test", "parameters")
    for name, values in report["baselines"].items():
        test = f"{values['test']:.1%}" if "test" in values else "–"
        table.add_row(name.replace("_", " "), f"{values['val']:.1%}", test, "–")
    test = f"{report['test_accuracy']:.1%}" if report["test_accuracy"] is not None else "–"
    table.add_row(
        "prompt",
        f"{report['val_accuracy']:.1%}",
        test,
        f"{sum(report['parameters_trained'].values()):,}",
    )
    return table


COSTS = {
    "plain": "plain forward",
    "probe": "linear probe",
    "insert": "inserted,",
    "ours": "ours,",
    "baked": "ours, baked,",
    "autocast": "ours, autocast,",
    "rounded": "ours, in bf16,",
    "lora": "LoRA (r = 8)",
    "full": "full fine-tuning",
}


def bench_tables(report: dict[str, Any]) -> list[Table]:
    """Times as ratios to the plain forward, counted operations, peak memory; and epochs of a late
    prompt, and starting up.
    """
    on, setting = report["machine"], report["setting"]
    plain = statistics.median(report["seconds"]["plain infer"])
    title = (
        f"{setting['source']}, batch {setting['batch']},"
        f" {'bf16 autocast' if setting['precision'] == 'bf16' else 'fp32'}"
    )
    title += f", weights in {setting['dtype']}" if setting["dtype"] else ""
    title += ", compiled" if setting["compile"] else ""
    caption = (
        f"× plain: median of {report['repeats']} rounds' ratios to the plain forward of the same"
        f" round ({plain * 1000:.4g} ms), ± half its 95 % interval. Operations: counted, likewise;"
        f" the floor is 1 for inference and about 2 for a step. {on['device']}, {on['threads']}"
        f" threads, torch {on['torch']}"
    )
    columns = [
        Column(name, no_wrap=True)
        for name in ("tokens", "inference\n× plain", "step\n× plain", "÷ in-\nserted")
    ]
    columns += [Column(name, no_wrap=True) for name in ("operations\ninf. / step", "peak\nmemory")]
    table = Table(*columns, title=clean(title), caption=clean(caption), box=SIMPLE_HEAD)
    for name, key, infer, train in cost_rows(report):
        counts = [f"{row['operations']:.2f}" if row else "–" for row in (infer, train)]
        memory = report.get("memory", {}).get(f"{key} train")
        inserted = f"{train['insert'][0]:.2f}" if train and "insert" in train else ""
        table.add_row(
            name, _times(infer), _times(train), inserted, " / ".join(counts), _size(memory)
        )
    return [table, _other_costs(report)]


def cost_rows(report: dict[str, Any]) -> list[tuple[str, str, Any, Any]]:
    """(name, key, ratios of inference, ratios of a training step), each kind together; None where
    not measured.
    """
    ratios = report["ratios"]
    keys = list(dict.fromkeys(key.rsplit(" ", 1)[0] for key in ratios))
    order = list(COSTS)
    keys.sort(key=lambda key: order.index(key.split()[0]))
    names = [" ".join([COSTS[key.split()[0]], *key.split()[1:]]) for key in keys]
    return [
        (name, key, ratios.get(f"{key} infer"), ratios.get(f"{key} train"))
        for name, key in zip(names, keys, strict=True)
    ]


def _size(count: int | None) -> str:
    """Bytes as people read them."""
    if not count:
        return ""
    return f"{count / 1e6:.0f} MB" if count < 1e9 else f"{count / 1e9:.1f} GB"


def _times(row: dict[str, Any] | None) -> str:
    if row is None:
        return ""
    value, low, high = row["plain"]
    return f"{value:.2f} [dim]±{(high - low) / 2:.2f}[/]"


def _other_costs(report: dict[str, Any]) -> Table:
    start, late = report["import"], report.get("late")
    table = Table(show_header=False, box=SIMPLE_HEAD)
    if late and late.get("faster"):
        value, low, high = late["faster"]
        first, last = late["blocks"]
        what = (
            f"epochs of {late['images']}, {late['tokens']} tokens in blocks {first} to {last}, what"
            " enters them kept"
        )
        table.add_row(what, f"{value:.2f} times faster [dim]({low:.2f}–{high:.2f})[/]")
    elif late:
        table.add_row("what enters a late prompt is not kept", clean(late["reason"]))
    table.add_row(
        "import vpt, beyond import torch",
        f"{max(0.0, start['torch and vpt'] - start['torch']):.2f} s",
    )
    table.add_row("vpt --help", f"{start['vpt --help']:.2f} s")
    return table
