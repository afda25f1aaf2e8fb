"""The models that every property is tested on: tiny, random, of real classes, with layer scale and
head re-drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest
import torch
import transformers
from timm.models.beit import Beit
from timm.models.cait import Cait
from timm.models.deit import VisionTransformerDistilled
from timm.models.eva import Eva
from timm.models.swin_transformer import SwinTransformer
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import VisionTransformer as TorchvisionViT
from torchvision.models.swin_transformer import SwinTransformer as TorchvisionSwin

import vpt

VIT = {
    "img_size": 32,
    "patch_size": 8,
    "embed_dim": 32,
    "depth": 3,
    "num_heads": 2,
    "num_classes": 5,
}
HF = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 48}
HF_VIT = HF | {"image_size": 32, "patch_size": 8, "num_labels": 5}
HF_VISION = HF | {"image_size": 32, "patch_size": 8}
# the last stage is one window
SWIN = {"embed_dim": 16, "depths": [2, 2, 1], "num_heads": [2, 4, 8], "window_size": 4}
HF_SPEECH = HF | {
    "conv_dim": [16, 16],
    "conv_kernel": [10, 4],
    "conv_stride": [5, 4],
    "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2,
    "classifier_proj_size": 16,
    "num_labels": 4,
    "apply_spec_augment": False,
}
HF_WHISPER = {
    "d_model": 32,
    "encoder_layers": 3,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "num_labels": 4,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "num_mel_bins": 16,
    "max_source_positions": 25,
    "vocab_size": 64,
    "classifier_proj_size": 16,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 1,
    "num_hidden_layers": 3,
}
LAYER_NORM = {"feat_extract_norm": "layer", "do_stable_layer_norm": True}
VIDEO = {"num_frames": 4, "tubelet_size": 2}
DINOV3 = {
    "use_abs_pos_emb": False,
    "use_rot_pos_emb": True,
    "rope_type": "dinov3",
    "num_reg_tokens": 4,
    "rope_rotate_half": True,
    "init_values": 1e-5,
}
HF_CLAP = {
    "window_size": 4,
    "num_mel_bins": 16,
    "spec_size": 64,
    "patch_size": 4,
    "patch_embeds_hidden_size": 16,
    "hidden_size": 32,
    "depths": [2, 2],
    "num_attention_heads": [2, 4],
}
HF_AST = HF | {"num_mel_bins": 36, "max_length": 66, "num_labels": 4}


class Attention(nn.Module):
    """One head, as in KWT-1."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.q, self.k, self.v, self.proj = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (layer(x)[:, None] for layer in (self.q, self.k, self.v))
        return self.proj(F.scaled_dot_product_attention(q, k, v)[:, 0])


class PostNormBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.attn, self.norm1, self.norm2 = (
            Attention(width),
            nn.LayerNorm(width),
            nn.LayerNorm(width),
        )
        self.mlp = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm1(x + self.attn(x))
        return self.norm2(x + self.mlp(x))


class KeywordTransformer(nn.Module):
    """A user's own module that follows no library: post-norm blocks over MFCC frames `[B,T,F]`, a
    class token, logits.
    """

    def __init__(
        self, frames: int = 20, bins: int = 8, width: int = 24, depth: int = 3, classes: int = 4
    ) -> None:
        super().__init__()
        self.embed = nn.Linear(bins, width)
        self.cls_token, self.pos = (
            nn.Parameter(torch.randn(1, 1, width)),
            nn.Parameter(torch.randn(1, frames + 1, width)),
        )
        self.layers = nn.ModuleList(PostNormBlock(width) for _ in range(depth))
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), self.embed(x)], dim=1) + self.pos
        for layer in self.layers:
            x = layer(x)
        return self.head(x[:, 0])


class TorchEncoder(nn.Module):
    """torch's own encoder in its default layout `[N,B,D]`, mean pooling, no classifier: returns
    tokens `[B,N,D]`.
    """

    def __init__(self, frames: int = 20, bins: int = 8, width: int = 24) -> None:
        super().__init__()
        self.embed = nn.Linear(bins, width)
        self.pos = nn.Parameter(torch.randn(frames, 1, width))
        self.layers = nn.ModuleList(nn.TransformerEncoderLayer(width, 2, 48) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x).transpose(0, 1) + self.pos
        for layer in self.layers:
            x = layer(x)
        return x.transpose(0, 1)


class TinyCNN(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, 1),
            nn.ReLU(),
            nn.Conv2d(8, 16, 3, 2, 1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
        )
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x).flatten(1))


# what cannot act there, and the words of the refusal; everything else must work
NO_SDPA, WINDOWS, NO_BLOCKS = (
    "never called torch's scaled_dot_product_attention",
    "into windows",
    "has no transformer blocks",
)
ONE_BIN = "hides the whole"  # a waveform is one bin wide
SMALL, MAPS = "in both directions", "take maps"
REFUSED: dict[str, dict[str, str]] = {
    "timm CaiT": {"prefix": NO_SDPA, "stack": NO_SDPA},
    "timm Swin": {"shallow": WINDOWS, "stack": WINDOWS},
    "transformers Swin": {"shallow": WINDOWS, "stack": WINDOWS},
    "transformers CLAP audio": {
        "shallow": WINDOWS,
        "prefix": NO_SDPA,
        "stack": NO_SDPA,
        "deep": NO_SDPA,
    },
    "torchvision Swin": {"shallow": MAPS, "prefix": NO_SDPA, "stack": NO_SDPA, "deep": MAPS},
    "CNN": dict.fromkeys(("shallow", "deep", "prefix", "stack"), NO_BLOCKS),
    "transformers wav2vec2": {"patch": ONE_BIN, "smm": SMALL},
    "transformers HuBERT": {"patch": ONE_BIN, "smm": SMALL},
}


# the same in a word, for the README
REASONS = {
    NO_SDPA: "no SDPA",
    WINDOWS: "windows",
    NO_BLOCKS: "no blocks",
    ONE_BIN: "one bin",
    SMALL: "one bin",
    MAPS: "maps",
}


def refusal(name: str, form: str) -> str | None:
    """The words with which a model refuses a form, or None where it works."""
    return REFUSED.get(name, {}).get(form.split(",")[0] if "border" not in form else form)


def hf(model: str, config: str, sizes: dict) -> nn.Module:
    """A transformers model of this class."""
    return getattr(transformers, model)(getattr(transformers, config)(**sizes))


def plain_front_end(waveform: Tensor, lengths: Tensor) -> Tensor:
    """20 frames of 8 log band energies from 0.2 s at 8 kHz."""
    frames = waveform.unfold(1, 80, 80)
    return torch.log(frames.unflatten(2, (8, 10)).square().mean(3) + 1e-6)


SOUND = vpt.Sound(
    sample_rate=8000,
    samples=1600,
    frames=20,
    bins=8,
    front_end=plain_front_end,
    window=80,
    hop=80,
    mean=-3.0,
    std=2.0,
)

MODELS: dict[str, Callable[[], nn.Module]] = {
    "timm ViT": lambda: VisionTransformer(**VIT),
    "timm ViT mean-pooled": lambda: VisionTransformer(**VIT, global_pool="avg", class_token=False),
    "timm DeiT distilled": lambda: VisionTransformerDistilled(**VIT),
    "timm ViT registers": lambda: VisionTransformer(
        **VIT, reg_tokens=4, no_embed_class=True, init_values=1e-5
    ),
    "timm CLIP": lambda: VisionTransformer(**VIT, pre_norm=True, norm_layer=nn.LayerNorm),
    "timm SigLIP": lambda: VisionTransformer(
        **(VIT | {"num_classes": 0}), global_pool="map", class_token=False
    ),
    "transformers ViT": lambda: transformers.ViTForImageClassification(
        transformers.ViTConfig(**HF_VIT)
    ),
    "transformers ViT base": lambda: transformers.ViTModel(
        transformers.ViTConfig(**HF_VIT), add_pooling_layer=False
    ),
    "transformers AST": lambda: transformers.ASTForAudioClassification(
        transformers.ASTConfig(**HF_AST)
    ),
    "transformers AST base": lambda: transformers.ASTModel(transformers.ASTConfig(**HF_AST)),
    "user's keyword transformer": KeywordTransformer,
    "timm BEiT": lambda: Beit(
        **VIT, use_rel_pos_bias=True, use_abs_pos_emb=False, init_values=1e-5
    ),
    "timm BEiT, shared bias": lambda: Beit(**VIT, use_shared_rel_pos_bias=True),
    "timm EVA": lambda: Eva(**VIT, qkv_fused=False),
    "timm EVA-02": lambda: Eva(
        **VIT, use_rot_pos_emb=True, ref_feat_shape=(4, 4), swiglu_mlp=True, scale_mlp=True
    ),
    "timm DINOv3": lambda: Eva(**VIT, **DINOV3),
    "timm rotary ViT, mixed": lambda: Eva(
        **VIT, use_rot_pos_emb=True, rope_type="mixed", class_token=False, global_pool="avg"
    ),
    "timm DeiT3": lambda: VisionTransformer(**VIT, no_embed_class=True, init_values=1e-6),
    "timm CaiT": lambda: Cait(**VIT),
    "timm Swin": lambda: SwinTransformer(img_size=64, patch_size=4, num_classes=5, **SWIN),
    "transformers DeiT": lambda: hf("DeiTForImageClassificationWithTeacher", "DeiTConfig", HF_VIT),
    "transformers DINOv2": lambda: hf("Dinov2ForImageClassification", "Dinov2Config", HF_VIT),
    "transformers DINOv2, registers": lambda: hf(
        "Dinov2WithRegistersModel", "Dinov2WithRegistersConfig", HF_VISION
    ),
    "transformers DINOv3": lambda: hf(
        "DINOv3ViTModel", "DINOv3ViTConfig", HF_VISION | {"num_register_tokens": 2}
    ),
    "transformers CLIP vision": lambda: hf("CLIPVisionModel", "CLIPVisionConfig", HF_VISION),
    "transformers SigLIP vision": lambda: hf("SiglipVisionModel", "SiglipVisionConfig", HF_VISION),
    "transformers BEiT": lambda: hf(
        "BeitForImageClassification", "BeitConfig", HF_VIT | {"use_relative_position_bias": True}
    ),
    "transformers BEiT, shared bias": lambda: hf(
        "BeitForImageClassification",
        "BeitConfig",
        HF_VIT | {"use_shared_relative_position_bias": True},
    ),
    "transformers Swin": lambda: hf(
        "SwinForImageClassification", "SwinConfig", SWIN | {"image_size": 64, "num_labels": 5}
    ),
    "transformers wav2vec2": lambda: hf(
        "Wav2Vec2ForSequenceClassification", "Wav2Vec2Config", HF_SPEECH | LAYER_NORM
    ),
    "transformers HuBERT": lambda: hf(
        "HubertModel", "HubertConfig", HF_SPEECH | {"feat_extract_norm": "group"}
    ),
    "transformers Whisper encoder": lambda: hf("WhisperModel", "WhisperConfig", HF_WHISPER),
    "transformers VideoMAE": lambda: hf(
        "VideoMAEForVideoClassification", "VideoMAEConfig", HF_VIT | VIDEO
    ),
    "torchvision ViT": lambda: TorchvisionViT(32, 8, 3, 2, 32, 48, num_classes=5),
}
EXTRA: dict[str, Callable[[], nn.Module]] = {
    "torch encoder [N,B,D]": TorchEncoder,
    "CNN": TinyCNN,
    "transformers CLAP audio": lambda: hf("ClapAudioModel", "ClapAudioConfig", HF_CLAP),
    "torchvision Swin": lambda: TorchvisionSwin([4, 4], 16, [2, 2], [2, 4], [4, 4], num_classes=5),
}
INPUTS = {
    "user's keyword transformer": SOUND,
    "torch encoder [N,B,D]": SOUND,
    "torchvision Swin": vpt.Images(size=(64, 64)),
    "torchvision ViT": vpt.Images(size=(32, 32), mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25)),
    "CNN": vpt.Images(size=(32, 32), mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25)),
}
TOKEN_FORMS: dict[str, Callable[[vpt.Backbone], vpt.Prompt]] = {
    "shallow": lambda b: vpt.ShallowTokens.like(b, count=3),
    "deep": lambda b: vpt.DeepTokens.like(b, count=3),
    "deep, one block": lambda b: vpt.DeepTokens.like(b, count=2, blocks=[1]),
    "prefix": lambda b: vpt.Prefix.like(b, count=3),
}
PIXEL_FORMS: dict[str, Callable[[vpt.Backbone], vpt.Prompt]] = {
    "border, shrink": lambda b: vpt.Border.like(b, width=3, init="uniform"),
    "border, cover": lambda b: vpt.Border.like(b, width=3, fit="cover", init="uniform"),
    "border, free": lambda b: vpt.Border.like(b, width=2, bound=None, init="uniform"),
    "patch": lambda b: vpt.Patch.like(b, size=5, corner="bottom_right", init="uniform"),
    "full": lambda b: vpt.Full.like(b, init="uniform"),
    "smm": lambda b: vpt.SampleMask.like(b, pools=2, init="uniform"),
}
STACK = {
    "stack": lambda b: vpt.Stack(
        [
            vpt.Border.like(b, width=2),
            vpt.ShallowTokens.like(b, 2),
            vpt.DeepTokens.like(b, 2),
            vpt.Prefix.like(b, 2),
        ]
    )
}
FORMS = TOKEN_FORMS | PIXEL_FORMS | STACK


WORDS = (
    "gamma",
    "lambda",
    "layer_scale",
    "token",
    "pos",
    "head",
    "classifier",
    "norm",
    "probe",
    "latent",
    "bias_table",
    "class",
)


def make(name: str, seed: int = 0) -> nn.Module:
    """A tiny random model; layer scale, norms, class tokens and heads are drawn anew, or the checks
    would see nothing.
    """
    torch.manual_seed(seed)
    model = (MODELS | EXTRA)[name]().eval()
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if any(word in key for word in WORDS):
                parameter.add_(torch.randn_like(parameter) * 0.3)
    return model


def open_tiny(name: str, seed: int = 0) -> vpt.Backbone:
    """A backbone on `make(name)`."""
    seconds = 0.1 if "wav2vec2" in name or "HuBERT" in name else None
    return vpt.load_backbone(make(name, seed), inputs=INPUTS.get(name), seconds=seconds)


# one of each kind: for tests that take a while and whose subject does not differ from family to
# family; the others go with the long ones
KINDS = (
    "timm ViT",
    "timm DeiT distilled",
    "timm EVA-02",
    "timm Swin",
    "transformers AST",
    "transformers BEiT",
    "transformers DINOv3",
    "transformers wav2vec2",
    "transformers Whisper encoder",
    "torchvision ViT",
    "torch encoder [N,B,D]",
    "CNN",
)


def of_each_kind(names: Iterable[str]) -> list[object]:
    """The names, those that are not in `KINDS` marked long."""
    return [name if name in KINDS else pytest.param(name, marks=pytest.mark.long) for name in names]
