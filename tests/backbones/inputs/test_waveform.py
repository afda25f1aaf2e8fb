"""Models that read samples: normalisation, masks, valid tokens, against transformers' own feature
extractor.
"""

from __future__ import annotations

import pytest
import torch
import transformers
from families import HF_SPEECH, LAYER_NORM, hf, make, open_tiny

import vpt
from vpt.errors import InputError


def clips() -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    return torch.randn(3, 1600).mul(0.2).clamp(-1, 1), torch.tensor([1600, 1000, 801])


def test_wav2vec2_gets_what_its_own_extractor_makes() -> None:
    backbone = open_tiny("transformers wav2vec2")
    waveform, lengths = clips()
    extractor = transformers.Wav2Vec2FeatureExtractor(return_attention_mask=True, do_normalize=True)
    rows = [row[:n].numpy() for row, n in zip(waveform, lengths.tolist(), strict=True)]
    given = extractor(rows, sampling_rate=16000, padding=True, return_tensors="pt")
    ours, extra = backbone.inputs.arguments(*backbone.inputs.prepare((waveform, lengths)))
    assert torch.allclose(ours, given.input_values, atol=1e-5)
    assert torch.equal(extra["attention_mask"], given.attention_mask.long())
    assert torch.allclose(
        backbone.logits((waveform, lengths)), backbone.model(**given).logits, atol=1e-5
    )


def test_padding_changes_nothing_under_a_mask_with_and_without_prompts() -> None:
    backbone = open_tiny("transformers wav2vec2")
    waveform, lengths = clips()
    garbage = torch.where(torch.arange(1600) < lengths[:, None], waveform, torch.rand(3, 1600))
    model = vpt.PromptedModel(backbone, None, vpt.Identity())
    for prompt in (
        None,
        vpt.ShallowTokens.like(backbone, 2),
        vpt.DeepTokens.like(backbone, 2),
        vpt.Prefix.like(backbone, 2),
    ):
        model.swap(prompt)
        assert torch.allclose(model((waveform, lengths)), model((garbage, lengths)), atol=1e-5)
        alone = model((waveform[1:2, :1000], lengths[1:2]))
        assert torch.allclose(model((waveform, lengths))[1:2], alone, atol=1e-4)


def test_features_of_a_bare_model_are_pooled_over_valid_tokens() -> None:
    backbone = open_tiny("transformers HuBERT")
    waveform, lengths = clips()
    spec = backbone.inputs
    assert not spec.masked  # its convolutions have a group norm
    tokens = backbone.model(spec.normalize((waveform, lengths))).last_hidden_state
    counts = backbone.model._get_feat_extract_output_lengths(lengths)
    assert torch.equal(spec.token_lengths(lengths, tokens.shape[1]), counts)
    expected = torch.stack(
        [row[:n].mean(0) for row, n in zip(tokens, counts.tolist(), strict=True)]
    )
    assert torch.allclose(backbone.features((waveform, lengths)), expected, atol=1e-6)


def test_clip_length_follows_seconds_and_too_short_ones_are_refused() -> None:
    model = make("transformers wav2vec2")
    assert vpt.load_backbone(model).inputs.samples == 32000
    assert vpt.load_backbone(model, seconds=0.5).inputs.samples == 8000
    with pytest.raises(InputError, match=r"needs at least 0\.003 s"):
        vpt.load_backbone(model, seconds=0.002)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.zeros(2, 3, 4), "Found sound of shape"),
        ((torch.zeros(2, 100), torch.tensor([1, 101])), "clip lengths from 1 to 101"),
        ((torch.full((1, 50), 3.0), torch.tensor([50])), "32768"),
        (torch.zeros(2, 50, dtype=torch.int16), "32768"),
    ],
)
def test_wrong_sound_is_refused(x: object, message: str) -> None:
    spec = vpt.Waveform(sample_rate=8000, samples=80)
    with pytest.raises(InputError, match=message):
        spec.prepare(x)


def test_eager_attention_with_masks_refuses_tokens_by_name() -> None:
    torch.manual_seed(0)
    model = hf(
        "Wav2Vec2ForSequenceClassification",
        "Wav2Vec2Config",
        HF_SPEECH | LAYER_NORM | {"attn_implementation": "eager"},
    )
    backbone = vpt.load_backbone(model, seconds=0.1)
    with pytest.raises(vpt.errors.PromptError, match=r"attention_mask.*attn_implementation='sdpa'"):
        vpt.PromptedModel(backbone, vpt.DeepTokens.like(backbone, 2), vpt.Identity())
