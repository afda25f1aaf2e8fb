"""The classes that the project's own tests put through the six checks; any other is checked when it
is opened.
"""

from __future__ import annotations

from vpt.backbones.base import Backbone

SEEN = {
    "timm.models": {
        "vision_transformer.VisionTransformer",
        "deit.VisionTransformerDistilled",
        "beit.Beit",
        "eva.Eva",
        "cait.Cait",
        "swin_transformer.SwinTransformer",
    },
    "transformers.models": {
        "vit.modeling_vit.ViTModel",
        "vit.modeling_vit.ViTForImageClassification",
        "audio_spectrogram_transformer.modeling_audio_spectrogram_transformer.ASTModel",
        "audio_spectrogram_transformer.modeling_audio_spectrogram_transformer.ASTForAudioClassification",
        "deit.modeling_deit.DeiTForImageClassificationWithTeacher",
        "dinov2.modeling_dinov2.Dinov2ForImageClassification",
        "dinov2_with_registers.modeling_dinov2_with_registers.Dinov2WithRegistersModel",
        "dinov3_vit.modeling_dinov3_vit.DINOv3ViTModel",
        "clip.modeling_clip.CLIPVisionModel",
        "siglip.modeling_siglip.SiglipVisionModel",
        "beit.modeling_beit.BeitForImageClassification",
        "swin.modeling_swin.SwinForImageClassification",
        "wav2vec2.modeling_wav2vec2.Wav2Vec2ForSequenceClassification",
        "hubert.modeling_hubert.HubertModel",
        "whisper.modeling_whisper.WhisperEncoder",
        "videomae.modeling_videomae.VideoMAEForVideoClassification",
        "clap.modeling_clap.ClapAudioModel",
    },
    "torchvision.models": {
        "vision_transformer.VisionTransformer",
        "swin_transformer.SwinTransformer",
    },
}
SEEN_PARTS = {
    "Attention",
    "Block",
    "LayerScaleBlock",
    "TalkingHeadAttn",
    "EvaAttention",
    "EvaBlock",
    "SwinTransformerBlock",
    "WindowAttention",
    "MultiheadAttention",
    "ShiftedWindowAttention",
    "EncoderBlock",
    "ASTAttention",
    "ASTLayer",
    "BeitAttention",
    "BeitLayer",
    "ClapAudioAttention",
    "ClapAudioLayer",
    "CLIPAttention",
    "CLIPEncoderLayer",
    "DeiTAttention",
    "DeiTLayer",
    "Dinov2Attention",
    "Dinov2Layer",
    "Dinov2WithRegistersAttention",
    "Dinov2WithRegistersLayer",
    "DINOv3ViTAttention",
    "DINOv3ViTLayer",
    "HubertAttention",
    "HubertEncoderLayer",
    "SiglipAttention",
    "SiglipEncoderLayer",
    "SwinAttention",
    "SwinLayer",
    "VideoMAEAttention",
    "VideoMAELayer",
    "ViTAttention",
    "ViTLayer",
    "Wav2Vec2Attention",
    "Wav2Vec2EncoderLayerStableLayerNorm",
    "WhisperAttention",
    "WhisperEncoderLayer",
}
LIBRARIES = ("timm", "transformers", "torchvision")
STOCK = ("torch.nn.", "timm.", "transformers.", "torchvision.")
SEEN_NAMES = {f"{package}.{name}" for package, names in SEEN.items() for name in names}


def is_known(backbone: Backbone) -> bool:
    """Whether the tests check this class, with these blocks and settings, and nothing in it was
    exchanged (for int8, by peft).
    """
    model, parts = (
        backbone.model,
        {type(part) for b in backbone.blocks for part in (b.module, b.attention)},
    )
    known = all(
        part.__name__ in SEEN_PARTS and part.__module__.split(".")[0] in (*LIBRARIES, "torch")
        for part in parts
    )
    stock = all(type(part).__module__.startswith(STOCK) for part in model.modules())
    plain = stock and not getattr(
        getattr(model, "config", None), "use_weighted_layer_sum", False
    )  # it stacks what every block gave
    return f"{type(model).__module__}.{type(model).__name__}" in SEEN_NAMES and known and plain
