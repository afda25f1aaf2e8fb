"""A prompt file and a backbone that is not the one it was made for."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
from families import make, open_tiny
from saved_prompts import saved
from torch import nn

import vpt
from vpt import files
from vpt.errors import PromptFileError
from vpt.files.matching import GPU_TOLERANCE, HALF_TOLERANCE, TOLERANCE, tolerance

RELEASED = Path(__file__).parent / "released"


@pytest.fixture(scope="module")
def backbone() -> vpt.Backbone:
    return open_tiny("timm ViT")


def test_rounding_is_allowed_by_the_precision_of_either_side(backbone: vpt.Backbone) -> None:
    assert tolerance(backbone, "float32") == TOLERANCE < GPU_TOLERANCE
    assert tolerance(backbone, "bfloat16") == HALF_TOLERANCE


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
