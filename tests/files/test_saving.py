"""Prompt files: the same bytes back, nothing but `PromptFileError` from damage, and old files for
ever.
"""

from __future__ import annotations

import json
import os
import random
import warnings
from pathlib import Path

import pytest
import torch
from families import FORMS, make, open_tiny
from safetensors.torch import save_file
from timm.models import VisionTransformer
from torch import nn

import vpt
from vpt import files
from vpt.errors import PromptFileError
from vpt.runs import folder as runs

RELEASED = Path(__file__).parent / "released"


@pytest.fixture(scope="module")
def backbone() -> vpt.Backbone:
    return open_tiny("timm ViT")


def saved(backbone: vpt.Backbone, path: Path, form: str = "stack") -> tuple[Path, torch.Tensor]:
    with vpt.PromptedModel(
        backbone, FORMS[form](backbone), vpt.Linear(32, ["ä cat", "dög", "☂"])
    ) as model:
        torch.nn.init.normal_(model.readout.weight)
        vpt.save(path, model, trained_on={"n": 3}, scores={"accuracy": 0.5})
        return path, model.eval()(backbone.inputs.example(2))


@pytest.mark.parametrize("form", FORMS)
def test_round_trip_is_exact(backbone: vpt.Backbone, tmp_path: Path, form: str) -> None:
    path, out = saved(backbone, tmp_path / "a.vpt", form)
    with vpt.load(path, backbone) as model:
        assert torch.equal(model(backbone.inputs.example(2)), out)
        assert model.classes == ["ä cat", "dög", "☂"]
        vpt.save(tmp_path / "b.vpt", model, trained_on={"n": 3}, scores={"accuracy": 0.5})
    assert path.read_bytes() == (tmp_path / "b.vpt").read_bytes()
    assert path.stat().st_size < (130_000 if form == "smm" else 60_000)
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


@pytest.mark.parametrize("readout", ["identity", "nearest", "none"])
def test_other_readouts_round_trip(backbone: vpt.Backbone, tmp_path: Path, readout: str) -> None:
    x = backbone.inputs.example(4)
    made = {
        "identity": vpt.Identity(index=[3, 1]),
        "nearest": vpt.NearestMean(32, 2),
        "none": vpt.Identity(),
    }[readout]
    with vpt.PromptedModel(backbone, None, made) as model:
        if readout == "nearest":
            made.update(backbone.features(x), torch.tensor([0, 1, 0, 1]))
        out = model(x)
        vpt.save(tmp_path / "a.vpt", model)
    with vpt.load(tmp_path / "a.vpt", backbone) as model:
        assert torch.equal(model(x), out)


def test_it_reopens_a_bundled_backbone_by_name(tmp_path: Path) -> None:
    bundled = vpt.load_backbone("vpt:vit-p8-64")
    with vpt.PromptedModel(bundled, vpt.DeepTokens.like(bundled, 2), vpt.Linear(192, 3)) as model:
        vpt.save(tmp_path / "a.vpt", model)
        out = model.eval()(bundled.inputs.example(1))
    assert torch.equal(vpt.load(tmp_path / "a.vpt")(bundled.inputs.example(1)), out)


def test_it_reopens_random_weights_from_their_seed(tmp_path: Path) -> None:
    options = {"weights": "random", "seed": 5, "img_size": 32, "num_classes": 4}
    made = vpt.load_backbone("vit_tiny_patch16_224.augreg_in21k", **options)
    with vpt.PromptedModel(made, vpt.ShallowTokens.like(made, 1), vpt.Identity()) as model:
        vpt.save(tmp_path / "a.vpt", model)
    assert vpt.load(tmp_path / "a.vpt").backbone.fingerprint() == made.fingerprint()


def test_wrong_backbone_names_both(backbone: vpt.Backbone, tmp_path: Path) -> None:
    path, _ = saved(backbone, tmp_path / "a.vpt")
    with pytest.raises(
        PromptFileError,
        match=r"made for another backbone: .*VisionTransformer.*this is .*VisionTransformer",
    ):
        vpt.load(path, open_tiny("timm ViT", seed=1))
    with pytest.raises(PromptFileError, match="cannot be opened by name alone"):
        vpt.load(path)
    with pytest.raises(vpt.errors.BackboneError, match="load_backbone"):
        vpt.load(path, backbone.model)
    other = vpt.load_backbone(
        make("timm ViT"), inputs=vpt.Images(size=(32, 32), mean=(0.1,), std=(0.3,))
    )
    with pytest.raises(
        PromptFileError,
        match=r"made for other inputs; this backbone has mean 0\.1,0\.1,0\.1 instead of 0,0,0",
    ):
        vpt.load(path, other)


def deep(levels: int) -> list:
    return [deep(levels - 1)] if levels else []


def rewritten(path: Path, change) -> Path:
    """The same file with another header, its hash made right again: what an attacker can do."""
    header, tensors = files.unpack(path.read_bytes(), "x")
    change(header, tensors)
    path.write_bytes(files.pack(tensors, header))
    return path


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda h, t: h.update(version=3), "version 3"),
        (lambda h, t: h.update(version="1; import os"), "version"),
        (lambda h, t: h.update(format="other"), "needed is a prompt file"),
        (lambda h, t: h["prompt"].update(name="os.system"), "known are"),
        (lambda h, t: h["readout"].update(name="eval"), "fit together"),
        (
            lambda h, t: h["prompt"]["config"]["prompts"][1]["config"].update(count=4000),
            "do not match its header",
        ),
        (
            lambda h, t: h["prompt"]["config"]["prompts"][0]["config"].update(
                shape=[3, 10**6, 10**6]
            ),
            "do not match its header",
        ),
        (lambda h, t: h["readout"]["config"].update(features=10**12), "do not match its header"),
        (
            lambda h, t: h["prompt"]["config"]["prompts"][1]["config"].update(count="3"),
            "whole number",
        ),
        (lambda h, t: h["prompt"]["config"]["prompts"][1]["config"].update(evil=1), "fit together"),
        (lambda h, t: h["prompt"].pop("config"), "prompt.config is None"),
        (lambda h, t: h.update(prompt=[]), r"prompt is \[\]"),
        (lambda h, t: t.pop("readout.bias"), "readout.bias"),
        (lambda h, t: t.update({"readout.extra": torch.zeros(1)}), "readout.extra"),
        (lambda h, t: t.update({"readout.bias": torch.zeros(4)}), "readout.bias"),
        (
            lambda h, t: h["backbone"].update(identity={"kind": "folder", "source": "/etc"}),
            "cannot be opened by name",
        ),
        (
            lambda h, t: h["backbone"].update(identity={"kind": "hub", "source": "../../etc"}),
            "cannot be opened by name",
        ),
        (
            lambda h, t: h["backbone"].update(
                identity={"kind": "timm", "source": "vit", "options": {"checkpoint_path": "x"}}
            ),
            "by name",
        ),
        (
            lambda h, t: h["backbone"].update(
                identity={"kind": "hub", "source": "a/b", "options": {"trust_remote_code": True}}
            ),
            "by name",
        ),
        (lambda h, t: h["backbone"].update(identity=None), "backbone.identity is None"),
        (lambda h, t: h.pop("backbone"), "backbone is None"),
        (lambda h, t: h["backbone"].update(fingerprint="x"), "needed is a SHA-256"),
        (
            lambda h, t: h["backbone"]["identity"].update(options={"img_size": 20000}),
            "img_size is 20000; needed is a whole number",
        ),
        (lambda h, t: h["backbone"]["identity"].update(seconds=1e9), "of up to an hour"),
        (lambda h, t: h["backbone"]["identity"].update(seed=10**30), "seed is 1000"),
        (lambda h, t: h["inputs"].update(size=[20000, 20000]), r"inputs.size is 20000"),
        (lambda h, t: h["inputs"].update(mean=[0.5]), r"one number per channel \(3\)"),
        (
            lambda h, t: h["prompt"]["config"]["prompts"][2]["config"].update(
                blocks=list(range(10**5))
            ),
            "needed are at most 1024",
        ),
        (lambda h, t: h["readout"]["config"].update(classes=10**10), "needed are at most 100000"),
        (lambda h, t: h.update(classes=["a"] * 100_001), "100001 of them"),
        (lambda h, t: h.update(classes=["x", "y", "z"]), "other classes than its readout"),
        (lambda h, t: h.update(scores={"a": deep(900)}), "more than 16 deep"),
        (lambda h, t: h.update(exact="maybe"), "exact is 'maybe'"),
        (
            lambda h, t: t.update({"readout.bias": torch.full((3,), float("nan"))}),
            "NaN or infinite",
        ),
        (
            lambda h, t: t.update({"readout.bias": torch.zeros(3, dtype=torch.int64)}),
            "is of type torch.int64",
        ),
        (
            lambda h, t: t.update({"readout.bias": torch.zeros(3, dtype=torch.complex64)}),
            "is of type torch.complex64",
        ),
        (
            lambda h, t: t.update({"readout.bias": torch.zeros(3).to(torch.float8_e4m3fn)}),
            "is of type torch.float8_e4m3fn",
        ),
    ],
)
def test_forged_headers_are_refused_before_anything_is_allocated(
    backbone: vpt.Backbone, tmp_path: Path, change, message: str
) -> None:
    path, _ = saved(backbone, tmp_path / "a.vpt")
    with pytest.raises(PromptFileError, match=message):
        vpt.load(rewritten(path, change))


# the same weights, another function -----------------------------------------------------
class Tokens(nn.Module):
    """A model that returns its tokens, so that pooling is chosen from outside."""

    def __init__(self) -> None:
        super().__init__()
        self.vit = make("timm ViT")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.vit.forward_features(x)


INPUTS = vpt.Images(size=(32, 32), mean=0.5, std=0.5)


def relu() -> nn.Module:
    model = make("timm ViT")
    for block in model.blocks:
        block.mlp.act = nn.ReLU()
    return model


def sharp() -> nn.Module:
    """Attention that looks somewhere; that of small random weights looks everywhere, whatever its
    heads.
    """
    model = make("timm ViT")
    with torch.no_grad():
        for block in model.blocks:
            block.attn.qkv.weight.normal_(0, 0.5, generator=torch.Generator().manual_seed(0))
    return model


def four_heads() -> nn.Module:
    model = sharp()
    for block in model.blocks:
        block.attn.num_heads, block.attn.head_dim, block.attn.scale = 4, 8, 8**-0.5
    return model


def hooked() -> nn.Module:
    model = make("timm ViT")
    model.blocks[0].register_forward_hook(lambda module, args, output: 2 * output)
    return model


def int8(seed: int) -> nn.Module:
    model = make("timm ViT")
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "blocks" in name and p.ndim == 2:
                p.normal_(0, 0.3, generator=torch.Generator().manual_seed(seed))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.ao.quantization.quantize_dynamic(model.eval(), {nn.Linear}, dtype=torch.qint8)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (lambda: make("timm ViT"), relu),
        (sharp, four_heads),
        (hooked, lambda: make("timm ViT")),
        (lambda: int8(1), lambda: int8(2)),
    ],
    ids=["activation", "heads", "hook", "int8"],
)
def test_the_same_weights_that_compute_something_else_are_refused(
    one, other, tmp_path: Path
) -> None:
    with warnings.catch_warnings():
        # of torch's own int8 modules
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        warnings.filterwarnings("ignore", category=UserWarning)
        first, second = (vpt.load_backbone(model(), inputs=INPUTS) for model in (one, other))
        assert first.fingerprint() == second.fingerprint()
        with vpt.PromptedModel(first, None, vpt.Linear(first.out_features, 2)) as model:
            path = vpt.save(tmp_path / "a.vpt", model)
            with (
                vpt.PromptLibrary(second) as library,
                pytest.raises(PromptFileError, match="computes something else"),
            ):
                library.add("a", path)
        with pytest.raises(PromptFileError, match="same weights that computes something else"):
            vpt.load(path, second)
        vpt.load(path, first).close()


def test_pooling_is_kept_and_belongs_to_the_function(tmp_path: Path) -> None:
    with vpt.PromptedModel(
        vpt.load_backbone(Tokens(), inputs=INPUTS, pool="mean"), None, vpt.Linear(32, 2)
    ) as model:
        path = vpt.save(tmp_path / "a.vpt", model)
    with pytest.raises(PromptFileError, match=r"something else.*pool=…"):
        vpt.load(path, vpt.load_backbone(Tokens(), inputs=INPUTS))
    assert (
        vpt.load(path, vpt.load_backbone(Tokens(), inputs=INPUTS, pool="mean")).backbone.pool
        == "mean"
    )
    assert files.read(path)[0]["backbone"]["identity"]["pool"] == "mean"


def test_rounding_is_no_other_function(tmp_path: Path) -> None:
    whole, half = (
        vpt.load_backbone("vpt:vit-p8-64"),
        vpt.load_backbone("vpt:vit-p8-64", dtype="bf16"),
    )
    for made, used in ((whole, half), (half, whole)):
        with vpt.PromptedModel(made, None, vpt.Linear(192, 2)) as model:
            path = vpt.save(tmp_path / "a.vpt", model)
        vpt.load(path, used).close()


def test_a_file_of_version_1_says_that_only_weights_were_compared(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level("WARNING", logger="vpt"):
        vpt.load(RELEASED / "version-1.vpt").close()
    assert "only the weights can be compared" in caplog.text


def test_a_backbone_of_options_that_no_file_can_name_is_saved_all_the_same(tmp_path: Path) -> None:
    options = {
        "weights": "random",
        "img_size": 32,
        "patch_size": 8,
        "depth": 2,
        "act_layer": nn.ReLU,
    }
    backbone = vpt.load_backbone("vit_tiny_patch16_224", **options)
    with vpt.PromptedModel(backbone, None, vpt.Linear(192, 2)) as model:
        path = vpt.save(tmp_path / "a.vpt", model)
    with pytest.raises(PromptFileError, match="cannot be opened by name alone"):
        vpt.load(path)
    vpt.load(path, backbone).close()


# places ---------------------------------------------------------------------------------
def test_a_timm_name_is_a_timm_name_whatever_lies_in_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path, _ = saved(open_tiny("timm ViT"), tmp_path / "a.vpt")
    make_folder(tmp_path / "evil")
    make_folder(tmp_path / "vit_tiny_patch16_224")
    assert vpt.load_backbone("evil").identity["kind"] == "folder"
    rewritten(path, lambda h, t: h["backbone"].update(identity={"kind": "timm", "source": "evil"}))
    with pytest.raises(vpt.errors.BackboneError, match="timm has no model of this name"):
        vpt.load(path)
    opened = vpt.load_backbone("vit_tiny_patch16_224", kind="timm", weights="random")
    assert (opened.identity["kind"], opened.depth) == ("timm", 12)
    with pytest.raises(vpt.errors.BackboneError, match="kind='pickle'; needed is one of"):
        vpt.load_backbone("evil", kind="pickle")


def make_folder(folder: Path) -> None:
    """A model as timm writes it."""
    folder.mkdir()
    sizes = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2}
    cfg = {
        "input_size": [3, 32, 32],
        "num_classes": 3,
        "classifier": "head",
        "first_conv": "patch_embed.proj",
    }
    config = {
        "architecture": "vit_tiny_patch16_224",
        "num_classes": 3,
        "model_args": sizes,
        "pretrained_cfg": cfg,
    }
    (folder / "config.json").write_text(json.dumps(config))
    save_file(VisionTransformer(num_classes=3, **sizes).state_dict(), folder / "model.safetensors")


def test_places_that_are_no_plain_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.vpt")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "large.vpt").touch()
    os.truncate(tmp_path / "large.vpt", 3 << 30)  # holes: it takes no room
    for place, message in (
        (tmp_path / "pipe.vpt", "it is no plain file"),
        ("/dev/zero", "it is no plain file"),
        (tmp_path, "it is a folder"),
        (tmp_path / "loop", "there is nothing"),
        (tmp_path / "large.vpt", "3.2 GB, more than any prompt file"),
        ("a\0b", "there is nothing"),
        ("a" * 5000, "there is nothing"),
    ):
        with pytest.raises(PromptFileError, match=message):
            vpt.load(place)
        with pytest.raises(PromptFileError):
            runs.inspect(place)
    with (
        vpt.PromptedModel(open_tiny("timm ViT"), None, vpt.Identity()) as model,
        pytest.raises(PromptFileError, match="cannot be written"),
    ):
        vpt.save("a\0b.vpt", model)


def mutations(data: bytes, count: int, seed: int) -> list[bytes]:
    draw = random.Random(seed)
    out = []
    for _ in range(count):
        kind, at = draw.randrange(6), draw.randrange(len(data))
        if kind == 0:
            new = data[:at] + bytes([data[at] ^ (1 << draw.randrange(8))]) + data[at + 1 :]
        elif kind == 1:
            new = data[:at]
        elif kind == 2:
            new = data[:at] + draw.randbytes(draw.randrange(1, 64)) + data[at:]
        elif kind == 3:
            new = data[:at] + draw.randbytes(8) + data[at + 8 :]
        elif kind == 4:
            new = draw.randbytes(8) + data[8:]
        else:
            end = min(len(data), at + draw.randrange(1, 200))
            new = data[:at] + data[end:]
        out.append(new if new != data else data + b"\0")
    return out


@pytest.mark.parametrize("count", [2000, pytest.param(10_000, marks=pytest.mark.long)])
def test_mutated_files_give_only_prompt_file_errors(
    backbone: vpt.Backbone, tmp_path: Path, count: int
) -> None:
    path, _ = saved(backbone, tmp_path / "a.vpt")
    data, altered = path.read_bytes(), tmp_path / "b.vpt"
    for new in mutations(data, count, seed=count):
        altered.write_bytes(new)
        with pytest.raises(PromptFileError):
            vpt.load(altered, backbone)


def test_files_that_are_something_else(tmp_path: Path) -> None:
    cases = {
        "empty": b"",
        "short": b"\1",
        "text": b"hello " * 99,
        "nested": (10**5).to_bytes(8, "little") + b"[" * 10**5,
        "zip": b"PK\3\4" * 40,
    }
    for name, data in cases.items():
        path = tmp_path / name
        path.write_bytes(data)
        with pytest.raises(PromptFileError, match=name):
            vpt.load(path)
    with pytest.raises(PromptFileError, match="cannot be read"):
        vpt.load(tmp_path / "missing")
    torch.save({"a": os.getcwd}, tmp_path / "pickle")
    with pytest.raises(PromptFileError):
        vpt.load(tmp_path / "pickle")


def test_a_place_that_cannot_be_written(backbone: vpt.Backbone, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        vpt.PromptedModel(backbone, None, vpt.Identity()) as model,
        pytest.raises(PromptFileError, match="cannot be written"),
    ):
        vpt.save(tmp_path / "file" / "a.vpt", model)


def test_an_interrupted_write_keeps_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"old")
    monkeypatch.setattr(os, "replace", lambda *a: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        files.write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("path", sorted(RELEASED.glob("*.vpt")), ids=lambda p: p.name)
def test_files_of_every_released_format_still_load(path: Path) -> None:
    # made for the bundled weights: made anew, by the same format, when those are replaced
    model = vpt.load(path)
    expected = json.loads(path.with_suffix(".json").read_text())
    out = model(model.backbone.inputs.example(2))
    assert torch.allclose(out, torch.tensor(expected["scores"]), atol=1e-4)
    assert model.classes == expected["classes"]


def test_there_is_a_released_file() -> None:
    assert (RELEASED / "version-1.vpt").is_file()


def test_another_model_that_takes_other_input_is_said_to_be_another(tmp_path: Path) -> None:
    """A prompt for pictures under a model of sound ended in "could not run on inputs
    [B,3,64,64]".
    """
    with vpt.PromptedModel(vpt.load_backbone("vpt:vit-p8-64"), None, vpt.Linear(192, 2)) as model:
        vpt.save(tmp_path / "p.vpt", model)
    with pytest.raises(
        PromptFileError,
        match="was made for vpt:vit-p8-64; vpt:ast-tiny cannot be opened in its place",
    ):
        vpt.load(tmp_path / "p.vpt", "vpt:ast-tiny")
