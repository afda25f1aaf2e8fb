"""What an audit of a model says against prompting it."""

from __future__ import annotations

import pytest
from helpers import planted, planted_prompted, regrouped

from vpt.errors import DataError
from vpt.fairness.auditing import audit_model, cell_counts, collapse, suspicion
from vpt.metrics.audit import Audit, Cell, Interval


def audited(accuracy: float, balanced: float, groups: str = "ab") -> Audit:
    values = {"accuracy": accuracy, "balanced_accuracy": balanced}
    metrics = {name: Interval(value, None, None) for name, value in values.items()}
    cells = {label: dict.fromkeys(groups, Cell(5, accuracy)) for label in ("dull", "red")}
    return Audit(20, metrics, {}, cells, ("dull", "a"), "red", [], [])


def test_a_model_that_knows_the_group_only_is_warned_of() -> None:
    assert "seems to know the group only" in suspicion(audited(0.85, 0.52))
    assert "all examples are of one group, 'a'" in suspicion(audited(0.85, 0.52, "a"))
    assert suspicion(audited(0.85, 0.7)) == ""
    assert suspicion(audited(0.52, 0.51)) == ""
    assert "no better than chance" in suspicion(audited(0.4, 0.41))


def test_a_model_that_no_longer_tells_the_classes_apart() -> None:
    assert collapse(audited(0.85, 0.54)) == "it hardly tells the classes apart any more"
    assert collapse(audited(0.85, 0.56)) == ""


def test_a_models_decisions_are_audited() -> None:
    data = planted(60, 2)
    found = audit_model(planted_prompted(), data)
    assert found.n == 60
    assert cell_counts(found).startswith("dull, plain: ")
    assert sum(cell.n for row in found.cells.values() for cell in row.values()) == 60
    with pytest.raises(DataError, match="The audited examples have no groups"):
        audit_model(planted_prompted(), regrouped(data, groups=None, group_names=None))
