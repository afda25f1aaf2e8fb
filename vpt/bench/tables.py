"""What a bench report looks like: tables for a terminal, and a picture."""

from __future__ import annotations

import statistics

from rich.box import SIMPLE_HEAD
from rich.table import Column, Table

from vpt.bench.report import BenchReport, Costs
from vpt.report.pictures import costs
from vpt.report.progress import clean

# kinds of cases, for people, in the order of the table
CALLED = {
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


def bench_tables(report: BenchReport) -> list[Table]:
    """Times as ratios to the plain forward, counted operations, peak memory; and epochs of a late
    prompt, and starting up.
    """
    machine, setting = report.machine, report.setting
    plain = statistics.median(report.seconds["plain infer"])
    precision = "bf16 autocast" if setting.precision == "bf16" else "fp32"
    title = f"{setting.source}, batch {setting.batch}, {precision}"
    title += f", weights in {setting.dtype}" if setting.dtype else ""
    title += ", compiled" if setting.compile else ""
    caption = (
        f"× plain: median of {report.repeats} rounds' ratios to the plain forward of the same"
        f" round ({plain * 1000:.4g} ms), ± half its 95 % interval. Operations: counted, likewise;"
        f" the floor is 1 for inference and about 2 for a step. {machine.device}, {machine.threads}"
        f" threads, torch {machine.torch}"
    )
    names = ("tokens", "inference\n× plain", "step\n× plain", "÷ in-\nserted")
    columns = [
        Column(name, no_wrap=True) for name in (*names, "operations\ninf. / step", "peak\nmemory")
    ]
    table = Table(*columns, title=clean(title), caption=clean(caption), box=SIMPLE_HEAD)
    memory = report.memory or {}
    for name, key, infer, train in cost_rows(report):
        inserted = f"{train.insert[0]:.2f}" if train and train.insert else ""
        counts = " / ".join(f"{row.operations:.2f}" if row else "–" for row in (infer, train))
        size = _size(memory.get(f"{key} train"))
        table.add_row(name, _times(infer), _times(train), inserted, counts, size)
    return [table, _other_costs(report)]


def cost_rows(report: BenchReport) -> list[tuple[str, str, Costs | None, Costs | None]]:
    """(name, key, costs of inference, costs of a training step), each kind together; None where
    not measured.
    """
    cases = report.costs
    keys = list(dict.fromkeys(key.rsplit(" ", 1)[0] for key in cases))
    order = list(CALLED)
    keys.sort(key=lambda key: order.index(key.split()[0]))
    names = [" ".join([CALLED[key.split()[0]], *key.split()[1:]]) for key in keys]
    return [
        (name, key, cases.get(f"{key} infer"), cases.get(f"{key} train"))
        for name, key in zip(names, keys, strict=True)
    ]


def picture(report: BenchReport) -> bytes:
    """The ratios as bars, a PNG."""
    rows = [
        (name, infer.plain if infer else None, train.plain if train else None)
        for name, _, infer, train in cost_rows(report)
    ]
    machine, setting = report.machine, report.setting
    title = f"{setting.source}, batch {setting.batch}, {machine.device}, {machine.threads} threads"
    return costs(rows, title)


def _size(count: int | None) -> str:
    """Bytes as people read them."""
    if not count:
        return ""
    return f"{count / 1e6:.0f} MB" if count < 1e9 else f"{count / 1e9:.1f} GB"


def _times(row: Costs | None) -> str:
    if row is None:
        return ""
    value, low, high = row.plain
    return f"{value:.2f} [dim]±{(high - low) / 2:.2f}[/]"


def _other_costs(report: BenchReport) -> Table:
    start, late = report.startup, report.late
    table = Table(show_header=False, box=SIMPLE_HEAD)
    if late and late.faster:
        value, low, high = late.faster
        first, last = late.blocks
        what = (
            f"epochs of {late.images}, {late.tokens} tokens in blocks {first} to {last}, what"
            " enters them kept"
        )
        table.add_row(what, f"{value:.2f} times faster [dim]({low:.2f}–{high:.2f})[/]")
    elif late:
        table.add_row("what enters a late prompt is not kept", clean(late.reason))
    beyond = max(0.0, start["torch and vpt"] - start["torch"])
    table.add_row("import vpt, beyond import torch", f"{beyond:.2f} s")
    table.add_row("vpt --help", f"{start['vpt --help']:.2f} s")
    return table
