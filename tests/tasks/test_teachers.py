"""The teachers of a shared prompt: their heads, what they learn, and tasks with nothing to tell."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from accelerate import Accelerator
from families import open_tiny
from helpers import three_tasks

import vpt
from vpt.data import Data
from vpt.errors import DataError
from vpt.tasks.teachers import check_classes, class_means, taught, validation


def test_a_head_begins_at_class_means_and_its_teacher_learns() -> None:
    backbone, data = open_tiny("timm ViT"), three_tasks()["plain"]
    head = class_means(backbone, data, Accelerator())
    assert head.classes == data.train.classes
    assert bool(head.weight.abs().sum() > 0)
    assert backbone.attachment is None
    model = vpt.PromptedModel(backbone, vpt.DeepTokens.like(backbone, 1), head)
    learn = partial(vpt.fit, epochs=1, progress=False)
    found, accuracy = taught(model, data, learn, None, Accelerator())
    assert found.shape == (24, 3)
    assert torch.isfinite(found).all()
    assert 0 <= accuracy <= 1
    assert backbone.attachment is None


def test_tasks_with_nothing_to_tell_apart() -> None:
    data = three_tasks()["plain"]
    check_classes(data, "plain")
    lone = Data(data.train.subset([0, 3]), data.val.subset([]), None, data.classes, [])
    with pytest.raises(DataError, match="'plain' has examples of 1 classes"):
        check_classes(lone, "plain")
    assert validation(lone) is None
    assert validation(data) is data.val
