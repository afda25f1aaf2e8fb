"""Drawn faces: hair says the label, and nothing else does for sure."""

from __future__ import annotations

import numpy as np
import pytest

from vpt.demo.portraits import Head, portraits
from vpt.errors import DataError


def test_hair_says_the_label() -> None:
    faces = portraits(60, agreement=0.5)
    hair = [float(faces[i][0][:, 19:24, 26:38].mean()) for i in range(60)]
    by_label = [
        np.mean([h for h, y in zip(hair, faces.targets, strict=True) if y == label])
        for label in (0, 1)
    ]
    assert by_label[1] > by_label[0] + 0.1
    assert (faces.classes, faces.group_names) == (["dark", "blond"], ["beard", "lipstick"])


def test_places_are_from_the_middle_of_the_face() -> None:
    head = Head(32, 30, 12, 15, unit=4.0)
    assert head.box(1, -2, 3, 4) == [120, 96, 144, 128]
    assert head.span(-1, 0, 1, 2) == [124, 120, 132, 128]


def test_no_number_of_faces() -> None:
    with pytest.raises(DataError, match="count=True; needed is a whole number"):
        portraits(True)
