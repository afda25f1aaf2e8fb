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
from safetensors import safe_open

import vpt
from vpt.deploy.constants import beside
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
        found = export(model, tmp_path / "m.pt2")  # its ending says what it is
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


def test_a_model_that_was_closed_is_not_exported_as_another(tmp_path: Path) -> None:
    backbone = open_tiny("timm ViT")
    both = []
    for form in ("deep:2", "prefix:2"):
        prompt = moved(vpt.prompts.parse(form, backbone))
        both.append(vpt.PromptedModel(backbone, prompt, linear(backbone, prompt)))
        if len(both) == 1:
            both[0].close()
    with pytest.raises(PromptError, match="This model was closed"):
        export(both[0], tmp_path / "m.safetensors")
    export(both[1], tmp_path / "m.safetensors")


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


def attended(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    return torch.softmax(q @ k.mT / q.shape[-1] ** 0.5, -1) @ v


@pytest.mark.parametrize("form", ["deep:2", "prefix:3", "deep:2+prefix:3@1"])
def test_constants_are_what_a_runtime_of_ones_own_puts_beside_keys(
    tmp_path: Path, form: str
) -> None:
    """A ViT in twenty lines, from its weights and the file alone."""
    with prompted("timm ViT", form) as model:
        found = export(model, tmp_path / "m.safetensors", to="safetensors")
        x = torch.rand(3, 3, 32, 32)
        with torch.no_grad():
            live = model(x)
        vit, inputs = model.backbone.model, model.backbone.inputs
        with safe_open(found.path, framework="pt") as file:
            facts = json.loads(file.metadata()["vpt"])
            tensors = {name: file.get_tensor(name) for name in list(file.keys())}
        with torch.no_grad(), model.prompts_off():
            tokens = vit._pos_embed(vit.patch_embed(inputs.prepare(x)[0]))
            for number, block in enumerate(vit.blocks):
                y, own = block.norm1(tokens), block.attn
                q, k, v = (
                    part.unflatten(-1, (own.num_heads, -1)).transpose(1, 2)
                    for part in own.qkv(y).chunk(3, -1)
                )
                if f"blocks.{number}.keys" in tensors:
                    keys, values = (tensors[f"blocks.{number}.{n}"] for n in ("keys", "values"))
                    k = torch.cat([keys[None].expand(len(k), -1, -1, -1), k], 2)
                    v = torch.cat([values[None].expand(len(v), -1, -1, -1), v], 2)
                out = attended(q, k, v).transpose(1, 2).flatten(2)
                tokens = tokens + block.ls1(own.proj(out))
                tokens = tokens + block.ls2(block.mlp(block.norm2(tokens)))
            features = vit.forward_head(vit.norm(tokens), pre_logits=True)
            readout = vpt.Linear(features.shape[1], facts["classes"]["scores"])
            state = {n.removeprefix("readout."): t for n, t in tensors.items() if "readout" in n}
            readout.load_state_dict(state)
            said = readout(features)
    torch.testing.assert_close(said, live, atol=1e-5, rtol=1e-5)
    assert found.path.stat().st_size < 100_000  # without the model
    assert facts["preparation"]["size"] == [32, 32]


def test_constants_of_other_forms_and_of_several_tasks(tmp_path: Path) -> None:
    with prompted("timm ViT", "border:2+queries:2@1", "cls+queries") as model:
        found = export(model, tmp_path / "m.safetensors", to="safetensors")
        with safe_open(found.path, framework="pt") as file:
            names = set(file.keys())
        assert {f"prompt.{name}" for name in model.prompt.state_dict()} <= names
        assert not any(name.startswith("blocks.") for name in names)
        backbone = model.backbone
    runs = {}
    for name in ("one", "two"):
        prompt = moved(vpt.prompts.parse("queries:2@1", backbone))
        with vpt.PromptedModel(backbone, prompt, linear(backbone, prompt, "queries")) as model:
            runs[name] = vpt.save(tmp_path / f"{name}.vpt", model)
    found = export(runs, tmp_path / "both.safetensors", to="safetensors", backbone=backbone)
    with safe_open(found.path, framework="pt") as file:
        assert {"one.readout.weight", "two.readout.weight"} <= set(file.keys())


def test_constants_that_are_not_those_of_the_model_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def halved(graph: Graph) -> dict[int, tuple[torch.Tensor, torch.Tensor]]:
        return {block: (keys, values / 2) for block, (keys, values) in beside(graph).items()}

    monkeypatch.setattr("vpt.deploy.constants.beside", halved)
    with (
        prompted("timm ViT", "deep:2") as model,
        pytest.raises(ExportError, match="says something else than the model"),
    ):
        export(model, tmp_path / "m.safetensors", to="safetensors")
    assert not list(tmp_path.iterdir())


def test_wrong_places_and_kinds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with prompted("timm ViT", "deep:2") as model:
        with pytest.raises(ExportError, match=r"Found to='onyx'; needed is one of .*onnx \("):
            export(model, tmp_path / "m.onnx", to="onyx")
        with pytest.raises(ExportError, match="is a folder; needed is a file"):
            export(model, tmp_path)
        with pytest.raises(ExportError, match=r"Found to='onnx' and a file m"):
            export(model, tmp_path / "m.pt2", to="onnx")
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


# families that are refused: a user's module says len(x), which a trace takes for a number; in
# BEiT's, traced, transformers adds its mask of truth values to the bias of positions as numbers, so
# that the model's own keys outweigh a prompt's
REFUSED = {
    "transformers BEiT": "says something else than the model",
    "transformers BEiT, shared bias": "says something else than the model",
    "user's keyword transformer": "its forward fixes the batch, as len",
}


@pytest.mark.parametrize("name", of_each_kind(MODELS))
def test_every_family_is_traced(tmp_path: Path, name: str) -> None:
    with prompted(name, "deep:2" if "CaiT" not in name else "shallow:2") as model:
        if name in REFUSED:
            with pytest.raises(ExportError, match=REFUSED[name]):
                export(model, tmp_path / "m.pt2", to="pt2")
            return
        assert export(model, tmp_path / "m.pt2", to="pt2").difference < 1e-4
    assert max(BATCHES) > 2
