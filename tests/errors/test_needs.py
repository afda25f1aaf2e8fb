"""The checks that write error sentences."""

from __future__ import annotations

import numpy as np
import pytest

from vpt.errors import DataError, PromptError
from vpt.errors.needs import one_of, share, whole


@pytest.mark.parametrize("value", [0, -1, True, 1.0, "3", None, float("nan"), np.int64(3)])
def test_what_is_no_whole_number(value: object) -> None:
    with pytest.raises(
        PromptError, match=r"Found count=.*; needed is a whole number of at least 1"
    ):
        whole(PromptError, count=value)


def test_whole_numbers_in_a_range() -> None:
    whole(DataError, least=0, most=3, first=0, last=3)
    whole(DataError, numpy=True, seed=np.int64(3))
    with pytest.raises(DataError, match="Found last=4; needed is a whole number from 0 to 3"):
        whole(DataError, least=0, most=3, first=0, last=4)


@pytest.mark.parametrize("value", [1, 1.0, -0.1, True, "0.5", None, float("nan")])
def test_what_is_no_share(value: object) -> None:
    share(PromptError, dropout=0.5, other=0)
    with pytest.raises(PromptError, match=r"Found dropout=.*; needed is a number in \[0, 1\)"):
        share(PromptError, dropout=value)


def test_one_of_several_words() -> None:
    one_of(DataError, ["a", "b"], part="a")
    one_of(DataError, {"a": 1, "b": 2}, part="b")
    with pytest.raises(DataError, match="Found part='c'; needed is one of a, b"):
        one_of(DataError, iter(["a", "b"]), part="c")
