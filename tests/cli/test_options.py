"""What help says of registered forms, which it reads from files without importing them."""

from __future__ import annotations

import pytest

from vpt.cli.options import registered
from vpt.objectives import OBJECTIVES
from vpt.prompts import PROMPTS
from vpt.readouts import READOUTS
from vpt.sites import Registry


@pytest.mark.parametrize(
    ("room", "registry"), [("prompts", PROMPTS), ("readouts", READOUTS), ("objectives", OBJECTIVES)]
)
def test_help_names_what_is_registered(room: str, registry: Registry) -> None:
    assert registered(room) == {
        form.usage: registry.about[form.cls.__name__] for form in registry.forms.values()
    }
    assert registered(room)
