"""How a model serves each group, and what that says against prompting it at all."""

from __future__ import annotations

from torch import Tensor

from vpt.data import Examples
from vpt.metrics.audit import Audit, audit
from vpt.model import PromptedModel
from vpt.training.evaluation import grouped, scores

NAMED = 6  # cells at most
PRECISION = 0.1  # of a cell's rate that is wished for, half of an interval of 95 %
ABOVE_CHANCE = 0.1  # of group-balanced accuracy; with less, a model knows the group alone


def audit_model(
    model: PromptedModel, examples: Examples, positive: str | None = None, progress: bool = False
) -> Audit:
    """`vpt.metrics.audit.audit` of the model's decisions on labelled examples with groups. Raises
    `DataError`.
    """
    examples = grouped(model, examples, "audited")
    decided = scores(model, examples, progress=progress)[0].argmax(1)
    return audit_decisions(examples, decided, positive)


def audit_decisions(examples: Examples, decided: Tensor, positive: str | None) -> Audit:
    """An audit of decisions `[n]` on examples with groups."""
    groups, names = examples.grouped or [], examples.group_names or []
    return audit(
        examples.targets, decided.tolist(), groups, examples.classes, names, positive=positive
    )


def suspicion(audited: Audit) -> str:
    """What an audit says against prompting this model at all: it knows the group only, or nothing;
    else an empty text.
    """
    groups = list(dict.fromkeys(name for row in audited.cells.values() for name in row))
    if len(groups) < 2:
        return (
            f"all examples are of one group, {groups[0]!r}, so there is no gap to measure; name"
            " another column"
        )
    chance = 1 / len(audited.cells)
    balanced, accuracy = audited.value("balanced_accuracy"), audited.value("accuracy")
    if accuracy <= chance:
        return (
            f"accuracy is {accuracy:.1%}, no better than chance ({chance:.1%}): look at how labels"
            " and classes are matched"
        )
    if balanced >= chance + ABOVE_CHANCE or accuracy < chance + ABOVE_CHANCE:
        return ""
    return (
        f"accuracy is {accuracy:.1%}, but {balanced:.1%} once label and group are balanced, near"
        f" chance ({chance:.1%}): this model seems to know the group only, and a prompt cannot"
        " bring out what is not in it"
    )


def collapse(audited: Audit) -> str:
    """What happened where a model no longer tells the classes apart; else an empty text."""
    least = 1 / len(audited.cells) + ABOVE_CHANCE / 2
    if audited.value("balanced_accuracy") < least:
        return "it hardly tells the classes apart any more"
    return ""


def few_in_cells(audited: Audit) -> str:
    """Which cells have too few examples for anything to be said of them, and how many are needed;
    else an empty text.
    """
    small = [
        f"{label}, {group}: {audited.cells[label][group].n}"
        for label, group in [*audited.empty, *audited.small]
    ]
    if not small:
        return ""
    more = f"; and {len(small) - NAMED} more" if len(small) > NAMED else ""
    needed = round(0.25 * (1.96 / PRECISION) ** 2)
    return (
        f"few examples in some cells ({'; '.join(small[:NAMED])}{more}): what is said of them may"
        f" be chance; to know a rate to {100 * PRECISION:.0f} points, a cell needs about {needed}"
    )


def cell_counts(audited: Audit) -> str:
    """How many examples each label × group cell has, for people."""
    return "; ".join(
        f"{label}, {group}: {cell.n}"
        for label, row in audited.cells.items()
        for group, cell in row.items()
    )
