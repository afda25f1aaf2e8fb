"""What `distil.py` teaches, and who teaches it: pictures by a CLIP image tower, spoken words by a
Whisper encoder.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import audio
import image
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import (
    CLIPImageProcessor,
    CLIPVisionModel,
    WhisperFeatureExtractor,
    WhisperModel,
)

# -- configuration -----------------------------------------------------------------------
# pixels of a side, as the teacher sees a picture: at 224 it takes twice as long
TEACHER_SIZE = 160
# what a view keeps of the picture (share of a side), light, colour, chance of grey and of negative
ZOOM, LIGHT, COLOUR, GREY, NEGATIVE = (0.7, 1.0), 0.3, 0.4, 0.1, 0.05
JUDGED = 2000  # held-out examples that measure training on the way
# ---

Answer = Callable[[Tensor], Tensor]


class Lesson(Protocol):
    """What is taught. model: the pupil, as it begins. width: of its features. prefix: how many
    tokens come before the patches. embeds: the module whose output is all its tokens. targets: the
    class `[N]` of each example. size: of what the teacher gets, in pixels or samples.
    """

    model: nn.Module
    width: int
    prefix: int
    embeds: nn.Module
    targets: Tensor
    size: int

    def teacher(self) -> Answer:
        """Open the teacher: which examples `[B]` → what it sees, `[B,1+N,D]` in fp16: the whole,
        and N parts.
        """

    def shown(self, chosen: Tensor, parts: Tensor) -> tuple[Tensor, Tensor]:
        """What the pupil gets of the examples `[B]`, and the parts `[B,N,D]` as they are there."""

    def read(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Features `[B,D]`, patches `[B,N,D]` and logits `[B,C]` of the pupil."""

    def accuracy(self, every: bool = False) -> float:
        """Top-1 accuracy in [0,1] on held-out examples, on all or on some."""

    def export(self, folder: Path) -> None:
        """Write the pupil as its own recipe does."""


class Pictures:
    """64-pixel pictures; a CLIP image tower teaches the model of `image.py`."""

    prefix, size, told = 1, TEACHER_SIZE, "CLIP ViT-B/16"

    def __init__(self, options: argparse.Namespace) -> None:
        listed = (options.data / "classes.tsv").read_text(encoding="utf-8").splitlines()
        self.names = [line.split("\t") for line in listed if line]
        self.name, classes = options.teacher, [name[0] for name in self.names]
        train, held = sorted(options.data.glob("train*.zip")), [options.data / "val.zip"]
        self.images, self.targets = image.pictures(train, classes, options.out / "train.npy")
        self.held = image.pictures(held, classes, options.out / "val.npy")
        self.model = image.build(len(classes))
        self.model.load_state_dict(load_file(options.start))
        self.embeds, self.width = self.model.patch_drop, self.model.num_features
        self.embeds.prob = 0.0  # what is left out is chosen where it is known which
        self.grid = image.SIZE // image.MODEL["patch_size"]

    def teacher(self) -> Answer:
        # two plain products: on a CPU faster than the fused kernel at this length
        how = {"dtype": torch.bfloat16, "attn_implementation": "eager"}
        tower = CLIPVisionModel.from_pretrained(self.name, **how).eval()
        inputs = CLIPImageProcessor.from_pretrained(self.name)
        mean, std = (torch.tensor(v)[:, None, None] for v in (inputs.image_mean, inputs.image_std))
        size = {"size": (self.size, self.size), "mode": "bicubic", "antialias": True}

        @torch.no_grad()
        def answer(chosen: Tensor) -> Tensor:
            x = torch.from_numpy(self.images[chosen.numpy()]).float() / 255
            x = ((F.interpolate(x, **size).clamp(0, 1) - mean) / std).to(tower.dtype)
            out = tower(x, interpolate_pos_encoding=True)
            patches = tower.post_layernorm(out.last_hidden_state[:, 1:]).float().transpose(1, 2)
            side = round(patches.shape[2] ** 0.5)
            pooled = F.adaptive_avg_pool2d(patches.unflatten(2, (side, side)), self.grid)
            whole = out.pooler_output.float()[:, None]
            return torch.cat([whole, pooled.flatten(2).transpose(1, 2)], 1).half()

        return answer

    def shown(self, chosen: Tensor, parts: Tensor) -> tuple[Tensor, Tensor]:
        x = torch.from_numpy(self.images[chosen.numpy()]).to(parts.device).float() / 255
        x, parts = moved(x, parts, self.grid)
        return image.normalised(lit(x)), parts

    def read(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        tokens = self.model.forward_features(x)
        return tokens[:, 0], tokens[:, 1:], self.model.forward_head(tokens)

    def accuracy(self, every: bool = False) -> float:
        images, targets = self.held
        some = slice(None, None, 1 if every else max(1, len(images) // JUDGED))  # of every class
        return image.accuracy(self.model, images[some], targets[some])

    def export(self, folder: Path) -> None:
        shape = (
            f"ViT, {image.SIZE} px, patch {image.MODEL['patch_size']}, width"
            f" {self.model.num_features}, depth {image.MODEL['depth']}"
        )
        kinds = f"{len(self.names)} Tiny-ImageNet classes"
        about = {
            "summary": f"{shape}, distilled from {self.told} on {kinds}",
            "licence": "research only (see its card)",
        }
        image.export(self.model, self.names, folder, image.ARCHITECTURE, image.MODEL, about)


class Words:
    """Words spoken by espeak-ng; a Whisper encoder teaches the model of `audio.py`. It hears a clip
    as it was spoken, the pupil through a microphone and at another time: so the whole is taught,
    and no parts.
    """

    prefix = 2

    def __init__(self, options: argparse.Namespace) -> None:
        each = audio.UTTERANCES
        self.name, self.sound = options.teacher, audio.sound()
        self.spoken, self.lengths = audio.clips(options.data / "spoken", each, options.seed)
        numbers = torch.arange(len(self.spoken))
        self.held = numbers[numbers % each < audio.HELD_OUT]
        self.rest = numbers[numbers % each >= audio.HELD_OUT]
        self.targets = self.rest // each
        self.model = audio.build(audio.names())
        self.model.load_state_dict(load_file(options.start))
        self.embeds = self.model.audio_spectrogram_transformer.embeddings
        self.size, self.width = self.sound.samples, self.model.config.hidden_size

    def _clips(self, numbers: Tensor) -> tuple[Tensor, Tensor]:
        waves = torch.from_numpy(self.spoken[numbers.numpy()]).float() / 32768
        return waves, torch.from_numpy(self.lengths[numbers.numpy()])

    def teacher(self) -> Answer:
        inputs = WhisperFeatureExtractor.from_pretrained(self.name)
        encoder = WhisperModel.from_pretrained(self.name).encoder.eval()
        hops = 2 * inputs.hop_length  # samples of a token
        tokens = -(-self.sound.samples // hops)
        # of the half minute that it can hear, as much as a clip is long
        encoder.embed_positions = nn.Embedding.from_pretrained(
            encoder.embed_positions.weight[:tokens]
        )
        encoder.config.max_source_positions = tokens

        @torch.no_grad()
        def answer(chosen: Tensor) -> Tensor:
            waves, lengths = self._clips(self.rest[chosen])
            waves = F.pad(waves, (0, tokens * hops - waves.shape[1])).numpy()
            heard = inputs(list(waves), sampling_rate=16000, return_tensors="pt", padding=False)
            out = encoder(heard.input_features).last_hidden_state
            inside = torch.arange(tokens) * hops < lengths[:, None]
            whole = (out * inside[:, :, None]).sum(1) / inside.sum(1, keepdim=True).clamp(min=1)
            return whole[:, None].half()

        return answer

    def shown(self, chosen: Tensor, parts: Tensor) -> tuple[Tensor, Tensor]:
        heard = audio.heard(*self._clips(self.rest[chosen]), self.sound.sample_rate)
        return audio.masked(self.sound.normalize(heard)).to(parts.device), parts

    def read(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        out = self.model.audio_spectrogram_transformer(x)
        features = self.model.classifier.layernorm(out.pooler_output)
        return features, out.last_hidden_state[:, 2:], self.model.classifier.dense(features)

    def accuracy(self, every: bool = False) -> float:
        held = self.held if every else self.held[:: max(1, len(self.held) // JUDGED)]
        device, right = self.model.device, 0
        for some in held.split(256):
            x = self.sound.normalize(self._clips(some)).to(device)
            labels = self.model(x).logits.argmax(1).cpu()
            right += (labels == some // audio.UTTERANCES).sum().item()
        return right / len(held)

    def export(self, folder: Path) -> None:
        audio.export(self.model, folder)


def moved(x: Tensor, parts: Tensor, grid: int) -> tuple[Tensor, Tensor]:
    """Pictures `[B,3,H,W]`, each cropped and mirrored by chance, and what the teacher sees in their
    parts `[B,grid²,D]`, moved with them.
    """
    b = len(x)
    uniform = lambda low, high: torch.rand(b, device=x.device) * (high - low) + low  # noqa: E731
    zoom, flip = uniform(*ZOOM), torch.where(uniform(0, 1) < 0.5, -1.0, 1.0)
    turn = torch.zeros(b, 2, 3, device=x.device)
    turn[:, 0, 0], turn[:, 1, 1] = zoom * flip, zoom
    turn[:, :, 2] = (1 - zoom)[:, None] * torch.stack([uniform(-1, 1), uniform(-1, 1)], 1)

    def through(y: Tensor) -> Tensor:
        at = F.affine_grid(turn, list(y.shape), align_corners=False)
        return F.grid_sample(y, at, padding_mode="border", align_corners=False)

    parts = parts.transpose(1, 2).unflatten(2, (grid, grid))
    return through(x), through(parts).flatten(2).transpose(1, 2)


def lit(x: Tensor) -> Tensor:
    """Pictures `[B,3,H,W]` in [0,1], each in another light and colour, some grey or negative."""
    b = len(x)
    uniform = lambda low, high: (  # noqa: E731
        torch.rand(b, 1, 1, 1, device=x.device) * (high - low) + low
    )
    grey = (x * x.new_tensor([0.299, 0.587, 0.114])[:, None, None]).sum(1, keepdim=True)
    colour = torch.where(uniform(0, 1) < GREY, 0.0, uniform(1 - COLOUR, 1 + COLOUR))
    x = grey + (x - grey) * colour
    x = (x - 0.5) * uniform(1 - LIGHT, 1 + LIGHT) + 0.5 + uniform(-LIGHT, LIGHT) / 2
    return torch.where(uniform(0, 1) < NEGATIVE, 1 - x, x).clamp(0, 1)
