"""Prompted models as files that run without vpt: they say the same, whatever the prompt."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from families import MODELS, of_each_kind, open_tiny
from helpers import colours

import vpt
from vpt.deploy.exporting import BATCHES, export
from vpt.deploy.graph import Graph
from vpt.deploy.onnx import Onnx
from vpt.errors import ExportError, PromptError
from vpt.readouts.named import Named

CLASSES = ["a", "b", "c"]


def linear(backbone: vpt.Backbone, prompt: vpt.Prompt, of: str = "cls") -> vpt.Linear:
    """A readout of these features that says something."""
    readout = vpt.Linear(Named(of).width(backbone, prompt.reads), CLASSES, of)
    with torch.no_grad():
        readout.weight.normal_(generator=torch.Generator().manual_seed(1))
    return readout


def moved(prompt: vpt.Prompt) -> vpt.Prompt:
    """One that has learned something."""
    draw = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in prompt.parameters():
            parameter.normal_(generator=draw)
    return prompt


def prompted(name: str, form: str, of: str = "cls") -> vpt.PromptedModel:
    backbone = open_tiny(name)
    prompt = moved(vpt.prompts.parse(form, backbone))
    return vpt.PromptedModel(backbone, prompt, linear(backbone, prompt, of)).eval()


@pytest.mark.parametrize(
    ("form", "of"),
    [
        ("deep:2", "cls"),
        ("border:4+shallow:2", "cls+mean"),
        ("prefix:2", "cls"),
        ("queries:2@1,2", "cls+queries"),
    ],
)
def test_a_program_says_what_the_model_says(tmp_path: Path, form: str, of: str) -> None:
    with prompted("timm ViT", form, of) as model:
        found = export(model, tmp_path / "m.pt2", to="pt2")
        x = torch.rand(7, 3, 32, 32)  # another number than it was traced with
        live = model(x)
        again = torch.export.load(found.path).module()(x)[0]
        torch.testing.assert_close(again, live, atol=1e-5, rtol=1e-5)
        bare = model.backbone
    assert found.outputs == ["scores"]
    assert found.facts["classes"] == {"scores": CLASSES}
    assert bare.attachment is None


def test_onnx_runs_without_vpt_and_tells_how_to_prepare(tmp_path: Path) -> None:
    with prompted("timm ViT", "queries:2@1,2", "cls+queries") as model:
        found = export(model, tmp_path / "deeper" / "m.onnx")
        x = torch.rand(3, 3, 32, 32)
        with torch.no_grad():
            live = model(x).numpy()
        fingerprint = model.backbone.fingerprint()
    session = onnxruntime.InferenceSession(str(found.path))
    facts = json.loads(session.get_modelmeta().custom_metadata_map["vpt"])
    said = session.run(facts["outputs"], {facts["inputs"][0]: x.numpy()})[0]
    assert np.abs(said - live).max() < 1e-4
    assert facts["classes"]["scores"] == CLASSES
    assert facts["preparation"]["size"] == [32, 32]
    assert facts["backbone"]["fingerprint"] == fingerprint
    assert {path.name for path in found.path.parent.iterdir()} == {"m.onnx"}


def test_several_tasks_share_one_forward(tmp_path: Path) -> None:
    backbone = open_tiny("timm ViT")
    runs, live = {}, {}
    x = torch.rand(3, 3, 32, 32)
    forms = {"one": ("queries:2@1,2", "cls+queries"), "two": ("queries:3@2", "queries+mean")}
    for name, (form, of) in forms.items():
        prompt = moved(vpt.prompts.parse(form, backbone))
        with vpt.PromptedModel(backbone, prompt, linear(backbone, prompt, of)) as model:
            runs[name] = vpt.save(tmp_path / f"{name}.vpt", model.eval())
            with torch.no_grad():
                live[name] = model(x)
    found = export(runs, tmp_path / "both.pt2", to="pt2", backbone=backbone)
    assert found.outputs == ["one", "two"]
    said = torch.export.load(found.path).module()(x)
    for name, scores in zip(found.outputs, said, strict=True):
        torch.testing.assert_close(scores, live[name], atol=1e-5, rtol=1e-5)
    program = torch.export.load(found.path)
    blocks = [node for node in program.graph.nodes if "scaled_dot_product" in str(node.target)]
    assert len(blocks) <= backbone.depth + 3  # one forward, and the queries of three places


def test_eight_bits_are_smaller_and_say_what_they_cost(tmp_path: Path) -> None:
    data = colours(30, 1, size=32)
    with prompted("timm ViT", "deep:2") as model:
        model.readout.classes = data.classes
        found = export(model, tmp_path / "m.onnx", int8=data)
        plain = vpt.evaluate(model, data)["accuracy"]
        with pytest.raises(ExportError, match="Eight bits are for ONNX, for one task"):
            export(model, tmp_path / "m.pt2", to="pt2", int8=data)
    assert found.int8 is not None
    assert found.int8.n == 30
    assert found.int8.before == pytest.approx(plain)
    assert found.int8.bytes[1] < found.int8.bytes[0]
    assert found.path.stat().st_size == found.int8.bytes[1]


def test_what_cannot_be_baked_is_named(tmp_path: Path) -> None:
    backbone = open_tiny("timm ViT")
    drawn = vpt.L2P.like(backbone)
    with (
        vpt.PromptedModel(backbone, drawn, linear(backbone, drawn)) as model,
        pytest.raises(PromptError, match="L2P, is chosen or made for each sample"),
    ):
        export(model, tmp_path / "m.pt2", to="pt2")
    runs = {}
    for name in ("one", "two"):
        prompt = vpt.prompts.parse("deep:2", backbone)
        with vpt.PromptedModel(backbone, prompt, linear(backbone, prompt)) as model:
            runs[name] = vpt.save(tmp_path / f"{name}.vpt", model)
    with pytest.raises(PromptError, match="of 'one' acts on the model"):
        export(runs, tmp_path / "both.pt2", to="pt2", backbone=backbone)
    assert backbone.attachment is None
    assert not (tmp_path / "both.pt2").exists()


def test_wrong_places_and_kinds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with prompted("timm ViT", "deep:2") as model:
        with pytest.raises(ExportError, match=r"Found to='onyx'; needed is one of onnx \(runs in"):
            export(model, tmp_path / "m.onnx", to="onyx")
        with pytest.raises(ExportError, match="is a folder; needed is a new file"):
            export(model, tmp_path)
        (tmp_path / "m.onnx").write_text("mine")
        with pytest.raises(ExportError, match="there already"):
            export(model, tmp_path / "m.onnx")
        assert (tmp_path / "m.onnx").read_text() == "mine"
        monkeypatch.setattr(Onnx, "needs", ("onnx", "no_such_package"))
        with pytest.raises(
            ExportError, match=r"no no_such_package; .* pip install 'vpt\[export\]'"
        ):
            export(model, tmp_path / "n.onnx")
    with pytest.raises(ExportError, match="Found no task"):
        export({}, tmp_path / "none.pt2", to="pt2")


def test_a_file_that_says_something_else_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    traced = torch.export.export

    def altered(graph: Graph, *args: object, **kwargs: object) -> object:
        weight = graph.parts[0].weight
        with torch.no_grad():
            weight *= 1.01
            try:
                return traced(graph, *args, **kwargs).run_decompositions()
            finally:
                graph.parts[0].weight = torch.nn.Parameter(weight / 1.01)

    monkeypatch.setattr(torch.export, "export", altered)
    with (
        prompted("timm ViT", "deep:2") as model,
        pytest.raises(ExportError, match="says something else than the model: scores differ by"),
    ):
        export(model, tmp_path / "m.pt2", to="pt2")
    assert not list(tmp_path.iterdir())


# families that are refused: traced, transformers adds its mask of truth values to BEiT's bias of
# positions as numbers, so that the model's own keys outweigh a prompt's
REFUSED = {"transformers BEiT": "says something else than the model"}


@pytest.mark.parametrize("name", of_each_kind(MODELS))
def test_every_family_is_traced(tmp_path: Path, name: str) -> None:
    with prompted(name, "deep:2" if "CaiT" not in name else "shallow:2") as model:
        if name in REFUSED:
            with pytest.raises(ExportError, match=REFUSED[name]):
                export(model, tmp_path / "m.pt2", to="pt2")
            return
        assert export(model, tmp_path / "m.pt2", to="pt2").difference < 1e-4
    assert max(BATCHES) > 2
