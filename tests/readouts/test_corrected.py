"""A correction that is added to scores."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from families import open_tiny

import vpt
from vpt.errors import PromptError
from vpt.readouts import build
from vpt.readouts.corrected import Corrected


def test_it_begins_as_its_base_and_adds_up() -> None:
    torch.manual_seed(0)
    base = vpt.Linear(4, ["a", "b", "c"])
    torch.nn.init.normal_(base.weight)
    made, out = Corrected(base), torch.randn(5, 4)
    assert torch.equal(made(out), base(out))
    weight, bias = torch.randn(3, 4), torch.randn(3)
    made.add(weight, bias)
    made.add(weight, bias)
    expected = base(out) + 2 * (out @ weight.T + bias)
    assert torch.allclose(made(out), expected, atol=1e-5)
    again = build("Corrected", made.config())
    again.load_state_dict(made.state_dict())
    assert torch.equal(again(out), made(out))
    assert again.classes == ["a", "b", "c"]


def test_it_travels_in_a_prompt_file(tmp_path: Path) -> None:
    backbone = open_tiny("timm ViT")
    prompt, x = vpt.QueryTokens.like(backbone, 2), torch.rand(2, 3, 32, 32)
    parts = [vpt.Linear(32, 3), vpt.Linear(prompt.reads, 3, "queries")]
    made = Corrected(vpt.Average(parts))
    made.add(torch.randn(3, 32 + prompt.reads), torch.randn(3))
    with vpt.PromptedModel(backbone, prompt, made).eval() as model:
        out = model(x)
        vpt.save(tmp_path / "prompt.vpt", model)
    with vpt.load(tmp_path, backbone) as again:
        assert torch.equal(again(x), out)


def test_what_reads_no_features_is_refused() -> None:
    for base in (vpt.Identity(["a", "b"]), vpt.TaskHeads(4, {"one": ["a"], "two": ["b"]})):
        with pytest.raises(PromptError, match="needed is a readout of features"):
            Corrected(base)
