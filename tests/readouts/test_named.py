"""Features by name: what they are, how wide, and what is refused."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from families import MODELS, open_tiny, refusal
from helpers import example

import vpt
from vpt.errors import DataError, PromptError
from vpt.readouts.named import Named


def outputs(backbone: vpt.Backbone, of: str, prompt: vpt.Prompt | None = None) -> torch.Tensor:
    width = Named(of).width(backbone, prompt.reads if prompt else 0)
    with vpt.PromptedModel(backbone, prompt, vpt.Linear(width, 3, of)) as model:
        x = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            found = model.outputs(x)
            assert torch.equal(found[:2], model.outputs(x)[:2])
    return found


@pytest.mark.parametrize(
    ("of", "width"),
    [("cls", 32), ("cls+mean", 64), ("mean", 32), ("blocks:2", 128), ("blocks", 192)],
)
def test_what_they_are(of: str, width: int) -> None:
    backbone = open_tiny("timm ViT")
    found = outputs(backbone, of)
    assert found.shape == (4, width)
    if "cls" in of:
        assert torch.equal(found[:, :32], outputs(backbone, "cls"))
    if of.startswith("blocks"):  # the last two numbers are of the last block
        assert torch.equal(found[:, -64:], outputs(backbone, "blocks:1"))
        assert torch.equal(found[:, -32:], outputs(backbone, "mean"))


def test_queries_come_behind_the_models_own() -> None:
    backbone = open_tiny("timm ViT")
    prompt = vpt.QueryTokens.like(backbone, 2, blocks=[1, 2])
    assert prompt.reads == 2 * 2 * 32
    both = outputs(backbone, "cls+queries", prompt)
    assert torch.equal(both[:, :32], outputs(backbone, "cls"))
    assert torch.allclose(both[:, 32:], outputs(backbone, "queries", prompt), atol=1e-6)


@pytest.mark.parametrize("name", [name for name in MODELS if not refusal(name, "deep")])
def test_their_number_is_known_beforehand(name: str) -> None:
    backbone = open_tiny(name)
    named = Named("blocks+mean")
    width = named.width(backbone, 0)
    model = vpt.PromptedModel(backbone, None, vpt.Linear(width, 2, "blocks+mean"))
    with torch.no_grad():
        assert model.eval().outputs(example(backbone)).shape[1] == width


@pytest.mark.parametrize(
    "text", ["", "cls+cls", "blocks:0", "blocks+blocks:2", "head", "cls, mean", 3]
)
def test_other_names_are_refused(text: str) -> None:
    with pytest.raises(PromptError, match="needed are different ones of cls"):
        Named(text)


def test_what_does_not_go_together_is_refused() -> None:
    backbone = open_tiny("timm ViT")
    queries = vpt.QueryTokens.like(backbone, 2)
    for prompt, readout, words in (
        (None, vpt.Linear(64, 3, "queries"), "the prompt has none"),
        (queries, vpt.Linear(32, 3), "nothing reads them"),
        (queries, vpt.Identity(), "nothing reads them"),
        (queries, vpt.Linear(7, 3, "queries"), "readout of 7 features"),
        (None, vpt.Linear(32, 3, "blocks:4"), "at most 3"),
    ):
        with pytest.raises(PromptError, match=words):
            vpt.PromptedModel(backbone, prompt, readout)
        assert backbone.attachment is None
    with pytest.raises(vpt.errors.BackboneError, match="has no transformer blocks"):
        vpt.PromptedModel(open_tiny("CNN"), None, vpt.Linear(32, 3, "blocks"))


def test_statistics_are_those_of_the_training_data_and_one_example_has_none() -> None:
    x = torch.randn(50, 4, generator=torch.Generator().manual_seed(0)) * 3 + 100
    x[:, 2] = 7.0
    readout = vpt.Linear(4, 2, "mean")
    readout.update(x[:20], torch.zeros(20).long())
    readout.update(x[20:], torch.zeros(30).long())
    readout.settle()
    assert torch.allclose(readout.mean, x.mean(0), atol=1e-4)
    assert torch.allclose(1 / readout.scale[:2], x.std(0, correction=0)[:2], rtol=1e-4)
    assert readout.scale[2] == 0  # says nothing, whatever it is later
    readout.reset()
    readout.update(x[:1], torch.zeros(1).long())
    with pytest.raises(DataError, match="Found 1 example to standardise"):
        readout.settle()


def test_it_learns_by_fit_and_is_saved_copied_and_loaded(tmp_path) -> None:
    from helpers import colours

    backbone = open_tiny("timm ViT")
    train = colours(24)
    prompt = vpt.QueryTokens.like(backbone, 2, dropout=0.1)
    readout = vpt.Linear(32 + prompt.reads, train.classes, "cls+queries")
    model = vpt.PromptedModel(backbone, prompt, readout)
    before = [rows.clone() for rows in prompt.queries]
    history = vpt.fit(model, train, colours(12, 1), epochs=4, lr=0.05, progress=False)
    assert history.rows[-1]["loss"] < history.rows[1]["loss"]
    assert not any(torch.equal(a, b) for a, b in zip(before, prompt.queries, strict=True))
    assert bool((readout.scale != 1).any())
    x = torch.stack([train[i][0] for i in range(4)])
    model.eval()
    out = model(x)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(twin(x), out)
    assert model(x[:0]).shape == (0, 3)
    path = vpt.save(tmp_path / "queries.vpt", model)
    model.close()
    again = vpt.load(path, backbone)
    assert torch.equal(again(x), out)
