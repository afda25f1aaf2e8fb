"""The parts of a data set, by name."""

from __future__ import annotations

import pytest
from helpers import colours

from vpt.data.parts import CALLED, Data


def test_parts_are_those_that_there_are() -> None:
    train, val = colours(6), colours(3, 1)
    data = Data(train, val, None, train.classes, [])
    assert data.parts == {"train": train, "val": val}
    assert set(data.parts) < set(CALLED)
    with pytest.raises(TypeError, match="classes"):
        Data(train, val, None)  # type: ignore[call-arg]
