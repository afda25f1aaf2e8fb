"""Drawn pictures: any number, the same for a seed, with the bias that was asked for and no
other.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vpt.demo.drawn import coloured_digits
from vpt.demo.portraits import portraits
from vpt.errors import DataError

BOTH = [coloured_digits, portraits]


@pytest.mark.parametrize("draw", BOTH)
def test_the_same_for_a_seed_and_a_longer_set_begins_with_a_shorter(draw) -> None:
    short, long, other = draw(4, seed=3), draw(8, seed=3), draw(4, seed=4)
    assert all(torch.equal(short[i][0], long[i][0]) for i in range(4))
    assert not torch.equal(short[0][0], other[0][0])
    x = torch.stack([long[i][0] for i in range(8)])
    assert x.shape == (8, 3, 64, 64)
    assert 0 <= float(x.min()) < 0.3
    assert 0.7 < float(x.max()) <= 1


@pytest.mark.parametrize("draw", BOTH)
def test_label_and_group_agree_as_often_as_asked(draw) -> None:
    for agreement in (0.0, 0.85, 1.0):
        data = draw(200, agreement=agreement)
        agree = np.equal(data.targets, data.grouped).mean()
        assert agree == pytest.approx(agreement, abs=0.06 if 0 < agreement < 1 else 0)
        assert sum(data.targets) == 100


def test_no_digit_is_in_two_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    from vpt.demo import drawn

    seen: dict[str, set[bytes]] = {}
    for part in ("train", "tune", "validate", "test"):
        digits: list[np.ndarray] = []
        real = drawn._digit
        monkeypatch.setattr(
            drawn,
            "_digit",
            lambda digit, *rest, real=real, digits=digits: (
                digits.append(digit) or real(digit, *rest)
            ),
        )
        coloured_digits(100, part=part)
        monkeypatch.setattr(drawn, "_digit", real)
        seen[part] = {digit.tobytes() for digit in digits}
    assert sum(map(len, seen.values())) == len(set.union(*seen.values()))


def test_colour_says_the_group() -> None:
    digits = coloured_digits(60, agreement=0.5)
    red_less_blue = [float(digits[i][0][0].mean() - digits[i][0][2].mean()) for i in range(60)]
    assert all(
        (value > 0) == bool(g) for value, g in zip(red_less_blue, digits.grouped, strict=True)
    )


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"count": 1}, "count=1; needed is a whole number of at least 2"),
        ({"count": 2.5}, "count=2.5"),
        ({"count": 4, "agreement": 1.5}, "agreement=1.5; needed is a share"),
    ],
)
@pytest.mark.parametrize("draw", BOTH)
def test_wrong_numbers(draw, given: dict, message: str) -> None:
    with pytest.raises(DataError, match=message):
        draw(**given)


def test_an_unknown_part() -> None:
    with pytest.raises(DataError, match="part='all'; needed is one of train, tune, validate, test"):
        coloured_digits(4, part="all")


def test_too_few_digits() -> None:
    few = (np.zeros((20, 8, 8)), np.arange(20) % 10)
    with pytest.raises(DataError, match=r"part 'tune' of 20 digits has . below five and . others"):
        coloured_digits(4, part="tune", written=few)
