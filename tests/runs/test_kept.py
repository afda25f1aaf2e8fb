"""What one pass keeps: of some examples alone, and as queries read it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from families import open_tiny
from helpers import colours

import vpt
from vpt.data import Examples, read_parts
from vpt.runs.kept import keep


def long_clips(backbone: vpt.Backbone, root: Path) -> Examples:
    """Clips of one to three times what the model hears."""
    rate, heard = backbone.inputs.sample_rate, backbone.inputs.samples
    draw = np.random.default_rng(0)
    for i in range(6):
        path = root / "ab"[i % 2] / f"{i}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, 0.1 * draw.standard_normal(heard * (1 + i % 3)), rate)
    return read_parts(root, backbone.inputs, "train", progress=False)


@pytest.mark.parametrize("name", ["timm ViT", "timm Swin", "transformers AST base"])
def test_some_alone_are_as_if_they_were_run_alone(name: str, tmp_path: Path) -> None:
    backbone = open_tiny(name)
    prompt = vpt.QueryTokens.like(backbone, 2)
    sound = backbone.inputs.kind == "sound"
    examples = long_clips(backbone, tmp_path) if sound else colours(9, size=backbone.inputs.size[0])
    assert (len(examples.windows()[0]) > len(examples)) == sound
    kept = keep(backbone, examples, blocks=prompt.blocks, prompt=prompt)
    chosen = [3, 0, 4]
    found = kept.take(chosen).with_read(prompt)
    needed = keep(backbone, examples.subset(chosen), blocks=prompt.blocks, prompt=prompt)
    assert torch.equal(found.y, needed.y)
    assert torch.equal(found.clips, needed.clips)
    assert torch.allclose(found.features, needed.features, atol=1e-5)
    assert torch.allclose(found.read, needed.read, atol=1e-4)
    for place, sums in needed.sums.items():
        assert torch.allclose(found.sums[place], sums, atol=1e-5)
    assert torch.allclose(kept.with_read(prompt).read, kept.read, atol=1e-4)
