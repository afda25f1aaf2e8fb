"""What the commands for a biased model say of their results: the verdict first."""

from __future__ import annotations

from typing import Any

from vpt.cli.terminal import careful, console
from vpt.report.progress import clean
from vpt.report.tables import RECOMMENDED, audit_tables, sentence, tradeoff_tables


def show_audited(found: dict[str, Any]) -> None:
    """What can be done about it, the tables of an audit, and what is to be careful with."""
    if "remedies" in found:
        said = found["remedies"]
        console.print(
            f"[bold]{sentence(said['verdict'])}:[/] {clean(said['why'])}.\nOn"
            f" its features the label is told on {said['knows_label']:.1%}, the group on"
            f" {said['knows_group']:.1%} (cells weighed alike, out of fold).",
            highlight=False,
        )
    if "compared" in found:
        said = found["compared"]
        recommendation = RECOMMENDED[said["recommendation"]]
        console.print(
            f"[bold]Recommendation: {recommendation}.[/] Beside the model without the prompt,"
            f" {clean(said['why'])}.",
            highlight=False,
        )
    if "not_compared" in found:
        console.print(
            f"Not compared with the model without the prompt: {clean(found['not_compared'])}",
            highlight=False,
        )
    for table in audit_tables(found):
        console.print(table)
    for label_name, name in found["empty"]:
        console.print(
            f"[yellow]No examples[/] of label {clean(label_name)} in group {clean(name)}: its rates"
            " are left out."
        )
    if found["small"]:
        small = "; ".join(f"{label_name}, {name}" for label_name, name in found["small"])
        console.print(
            f"[yellow]Few examples[/] (their rates say little): {clean(small)}.", highlight=False
        )
    if found["warning"]:
        careful(found["warning"])


def show_reprogrammed(report: dict[str, Any]) -> None:
    """Whether to use it, what was chosen by what rule, accuracy by label and group before and
    after, and the trade-off.
    """
    recommendation = RECOMMENDED[report["recommendation"]]
    verdict, why = (clean(sentence(report[name])) for name in ("verdict", "why"))
    console.print(f"[bold]Recommendation: {recommendation}.[/] {why}.", highlight=False)
    console.print(f"{verdict}.\nChosen: {clean(report['rule'])}.")
    for note in report["notes"]:
        careful(note)
    for table in tradeoff_tables(report):
        console.print(table)
