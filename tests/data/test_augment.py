"""Random changes to images: each output is a shifted, perhaps mirrored, copy of its input."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch

from vpt.data import AUGMENTS, Examples, in_views
from vpt.data.augment import augment
from vpt.errors import DataError

HEIGHT, WIDTH = 12, 25  # shifts of at most 1 row and 2 columns


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def images(batch, seed=1):
    return torch.rand(batch, 3, HEIGHT, WIDTH, generator=seeded(seed))


def moves(before, after):
    """Every (down, across, mirrored) that makes `after` of `before` `[C,H,W]`, mirrored edges."""
    padded = np.pad(before.numpy(), ((0, 0), (2, 2), (4, 4)), mode="reflect")
    found = []
    for down in range(-2, 3):
        for across in range(-4, 5):
            cut = padded[:, 2 + down : 2 + down + HEIGHT, 4 + across : 4 + across + WIDTH]
            found += [
                (down, across, flip)
                for flip in (False, True)
                if np.array_equal(cut[..., ::-1] if flip else cut, after)
            ]
    return found


@pytest.mark.parametrize("how", ["crop", "flip-crop"])
def test_every_image_is_shifted_by_up_to_8_percent_and_perhaps_mirrored(how):
    x = images(200)
    after = augment(x, how, seeded())
    assert (after.shape, after.dtype) == (x.shape, x.dtype)
    done = [moves(a, b.numpy()) for a, b in zip(x, after, strict=True)]
    assert all(len(found) == 1 for found in done)
    downs, acrosses, flips = (
        Counter(values) for values in zip(*(found[0] for found in done), strict=True)
    )
    assert set(downs) == {-1, 0, 1}
    assert set(acrosses) == {-2, -1, 0, 1, 2}
    assert min(downs.values()) > 40  # 200/3, a binomial's 5 sigma below is 33
    assert flips[True] == 0 if how == "crop" else 65 < flips[True] < 135


@pytest.mark.parametrize("how", AUGMENTS)
def test_the_input_is_not_changed_and_values_come_from_it(how):
    x = images(8)
    kept = x.clone()
    after = augment(x, how, seeded())
    assert torch.equal(x, kept)
    for before, one in zip(x, after, strict=True):
        assert set(one.flatten().tolist()) <= set(before.flatten().tolist())


@pytest.mark.parametrize("how", ["crop", "flip-crop"])
def test_what_is_done_depends_on_the_generator_alone(how):
    x = images(16)
    again = [augment(x, how, seeded(seed)) for seed in (0, 0, 1)]
    assert torch.equal(again[0], again[1])
    assert not torch.equal(again[0], again[2])
    torch.manual_seed(5)
    assert torch.equal(again[0], augment(x, how, seeded(0)))


def test_none_changes_nothing_and_draws_nothing():
    generator, x = seeded(), images(2)
    state = generator.get_state()
    assert torch.equal(augment(x, "none", generator), x)
    assert torch.equal(generator.get_state(), state)


@pytest.mark.parametrize("how", ["flip", "", "Crop", "mixup"])
def test_unknown_names_are_refused(how):
    with pytest.raises(
        DataError, match=rf"augment='{how}'; needed is one of none, crop, flip-crop"
    ):
        augment(images(1), how, seeded())


@pytest.mark.parametrize(
    "x",
    [(torch.zeros(2, 100), torch.tensor([100, 100])), torch.zeros(2, 16, 8), torch.zeros(2, 100)],
)
def test_sound_is_refused_but_for_none(x):
    with pytest.raises(DataError, match=r"is for images; use augment='none' for sound"):
        augment(x, "crop", seeded())
    assert augment(x, "none", seeded()) is x


def test_an_empty_batch_stays_empty():
    assert augment(images(0), "crop", seeded()).shape == (0, 3, HEIGHT, WIDTH)


def test_views_are_the_image_itself_and_a_few_random_changes_that_stay():
    x = images(6)
    examples = Examples(list(x).__getitem__, [0, 1, 0, 1, 0, 1], ["a", "b"]).subset([4, 1, 3])
    seen = in_views(examples, "flip-crop", 4, seed=3)
    views = [torch.stack([image for image, _ in view]) for view in seen.views()]
    assert len(views) == 4
    assert torch.equal(views[0], x[[4, 1, 3]])
    for view in views[1:]:
        assert all(moves(before, after) for before, after in zip(views[0], view, strict=True))
    assert len({view.numpy().tobytes() for view in views}) == 4
    assert not torch.equal(views[1] - views[0], views[2] - views[0])
    for epoch in range(1, 10):
        assert torch.equal(
            torch.stack([image for image, _ in seen.drawn(0, epoch)]), views[(epoch - 1) % 4]
        )
    again = in_views(examples, "flip-crop", 4, seed=3).views()[2]
    assert torch.equal(torch.stack([image for image, _ in again]), views[2])
    assert not torch.equal(
        torch.stack([image for image, _ in in_views(examples, "flip-crop", 4, seed=4).views()[2]]),
        views[2],
    )
    assert [y for _, y in seen] == [0, 1, 1]
