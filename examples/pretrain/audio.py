"""Pre-train `vpt:ast-tiny`: an audio spectrogram transformer that has heard only words spoken by
espeak-ng.

python examples/pretrain/audio.py --out runs/audio

On GPUs: `accelerate launch examples/pretrain/audio.py …`. A run that was stopped goes on when
called again. The backbone is written to `OUT/model`.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from loop import Schedule, half, share, train
from safetensors.torch import save_file
from scipy.fft import next_fast_len
from speech import VARIANTS, Speaker, draw, vocabulary
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import ASTConfig, ASTFeatureExtractor, ASTForAudioClassification

from vpt.backbones.inputs.ast import ast_sound
from vpt.backbones.inputs.sound import Sound
from vpt.report.progress import progress_bar

# -- configuration -----------------------------------------------------------------------
MODEL = {
    "hidden_size": 192,
    "num_hidden_layers": 6,
    "num_attention_heads": 3,
    "intermediate_size": 768,
    "num_mel_bins": 128,
    "max_length": 104,
    "patch_size": 16,
    "frequency_stride": 16,
    "time_stride": 8,
}
MEAN, STD = -8.8, 5.0  # of the log energies of the training clips, rounded
SCHEDULE = {
    "steps": 2600,
    "batch": 256,
    "lr": 2e-3,
    "weight_decay": 0.05,
    "warmup": 200,
    "decay": 0.35,
}
PRECISION, LABEL_SMOOTHING = "bf16", 0.1
# steps in which all that changes a clip grows from nothing to what follows; else nothing is learned
# for long
EASY = 1000
UTTERANCES, HELD_OUT = 110, 4  # of each word; those held out measure training, on the same voices
# patchout: share of the patches left out, and share of the last steps that see all of them
PATCH_DROP, WHOLE = 0.5, 0.08
SPEED = (0.85, 1.18)  # resampling: pitch, formants and speed together
# dB at each of 8 frequencies; cut-offs in Hz
EQUALISER, LOW_PASS, HIGH_PASS = 10.0, (3000.0, 8000.0), (20.0, 300.0)
ECHO = (0.02, 0.35)  # seconds until a room's echo has fallen by 60 dB
NOISE = (0.0, 40.0)  # dB of speech above noise, or above other voices
GAIN = (-26.0, 0.0)  # dB
MASKS, MASK_BINS, MASK_FRAMES = 2, 16, 14  # SpecAugment
# ---


def sound() -> Sound:
    """The model's front end."""
    return ast_sound(ASTConfig(**MODEL), {"mean": MEAN, "std": STD}, None)


def build(classes: list[str]) -> ASTForAudioClassification:
    """A stock AST with random weights."""
    config = ASTConfig(
        **MODEL, id2label=dict(enumerate(classes)), label2id={c: i for i, c in enumerate(classes)}
    )
    # two plain products: on a CPU faster than the fused kernel at this length
    config._attn_implementation = "eager"
    model = ASTForAudioClassification(config)
    for name, value in model.named_parameters():
        if name.endswith(("cls_token", "distillation_token", "position_embeddings")):
            nn.init.trunc_normal_(value, std=0.02)  # the library begins with zeros
    return model


def names() -> list[str]:
    """The words in the order of the head, those that are not English with their language."""
    return [word if language == "en" else f"{word} ({language})" for language, word in vocabulary()]


def clips(folder: Path, each: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """`each` utterances of every word as int16 `[N,samples]`, class by class, and their lengths;
    spoken once and kept.
    """
    samples, words, lengths = sound().samples, vocabulary(), []
    if not (folder / "lengths.npy").exists():
        folder.mkdir(parents=True, exist_ok=True)
        array = np.lib.format.open_memmap(
            folder / "clips.part.npy", "w+", np.int16, (len(words) * each, samples)
        )
        chance, speaker = random.Random(seed), Speaker()
        with progress_bar(True) as bar:
            for i in bar.track(range(len(array)), description="speaking"):
                wave = speaker.say(draw(*words[i // each], chance, VARIANTS))[:samples]
                array[i, : len(wave)] = (wave * 32767).numpy().astype(np.int16)
                lengths.append(len(wave))
        array.flush()
        del array
        (folder / "clips.part.npy").replace(folder / "clips.npy")
        np.save(folder / "lengths.npy", np.array(lengths))
    found, lengths = np.load(folder / "clips.npy", mmap_mode="r"), np.load(folder / "lengths.npy")
    if found.shape != (len(words) * each, samples):
        raise SystemExit(
            f"{folder} holds {found.shape} samples, needed are {(len(words) * each, samples)};"
            " delete it."
        )
    return found, lengths


def uniform(n: int, low: float, high: float) -> Tensor:
    """`[n,1]` drawn evenly."""
    return torch.rand(n, 1) * (high - low) + low


def placed(x: Tensor, lengths: Tensor, strength: float = 1.0) -> tuple[Tensor, Tensor]:
    """Each clip `[B,T]` at another speed and place in its window, and the length of what is kept
    `[B]`: cut close, or whole.
    """
    n, samples = x.shape
    speed = uniform(n, *SPEED) ** strength
    spoken = (lengths[:, None] / speed).clamp(max=samples)
    whole = torch.rand(n, 1) < 0.5 * strength
    window = torch.where(whole, samples, spoken + uniform(n, 0, 0.2 * samples) * strength).clamp(
        max=samples
    )
    start = (window - spoken) * torch.rand(n, 1)
    at = (torch.arange(samples) - start) * speed
    low = at.floor().clamp(0, samples - 2)
    part = (at - low).clamp(0, 1)
    y = x.gather(1, low.long()) * (1 - part) + x.gather(1, low.long() + 1) * part
    return y * ((at >= 0) & (at < lengths[:, None])), window[:, 0].long()


def filters(n: int, size: int, rate: int, strength: float) -> Tensor:
    """Random microphones, `[n, size//2 + 1]`: a smooth equaliser, a low and a high pass."""
    bands = torch.randn(n, 1, 8) * EQUALISER / 2 * strength
    smooth = F.interpolate(bands, size // 2 + 1, mode="linear", align_corners=True)[:, 0]
    hertz = torch.linspace(0, rate / 2, size // 2 + 1)
    low, high = uniform(n, *LOW_PASS), uniform(n, *HIGH_PASS)
    below, above = (hertz / low).square(), (high / hertz.clamp(min=1)).square()
    passed = 1 / (1 + below.square().square()) / (1 + above.square())
    return torch.exp(smooth * 0.115129) * (1 + strength * (passed - 1))  # e^0.115129 is 1 dB


def heard(x: Tensor, lengths: Tensor, rate: int, strength: float = 1.0) -> tuple[Tensor, Tensor]:
    """What a microphone in a room makes of each clip `[B,T]`: speed, place, echo, filters, noise,
    other voices, gain.

    strength: in [0,1], how often there is any of it, and how much.
    """
    x, lengths = placed(x, lengths, strength)
    n, size = len(x), next_fast_len(x.shape[1] + rate // 4, real=True)
    time = torch.arange(rate // 4) / rate
    rooms = torch.rand(n, 1) < 0.6 * strength
    echo = (
        torch.randn(n, len(time))
        * torch.exp(-6.9 * time / uniform(n, *ECHO))
        * uniform(n, 0, 0.1)
        * rooms
    )
    echo[:, 0] = 1

    def through(y, z):
        return torch.fft.irfft(torch.fft.rfft(y, size) * z * filters(n, size, rate, strength), size)

    voice = through(x, torch.fft.rfft(echo, size))[:, : x.shape[1]]
    hiss = through(torch.randn_like(x), 1)[:, : x.shape[1]]
    others = sum(voice[torch.randperm(n)].roll(k * 1531, 1) for k in range(1, 4))
    noise = torch.where(torch.rand(n, 1) < 0.25, others, hiss)
    loud = lambda y: y.square().mean(1, keepdim=True).clamp(min=1e-8).sqrt()  # noqa: E731
    ratio = strength * 10 ** (-uniform(n, *NOISE) / 20) * (torch.rand(n, 1) < 0.8)
    mixed = voice + noise * ratio * loud(voice) / loud(noise)
    mixed = (
        mixed
        / mixed.abs().amax(1, keepdim=True).clamp(min=1e-4)
        * 10 ** (uniform(n, *GAIN) * strength / 20)
    )
    return mixed, lengths


def masked(x: Tensor, strength: float = 1.0) -> Tensor:
    """SpecAugment (Park et al., 2019) without the warp: `x` `[B,frames,bins]` with bands of bins
    and of frames at the mean.
    """
    for width, dim in ((MASK_BINS, 2), (MASK_FRAMES, 1)):
        for _ in range(MASKS):
            start, length = (
                torch.rand(len(x), 1) * (x.shape[dim] - width),
                torch.rand(len(x), 1) * width * strength,
            )
            line = torch.arange(x.shape[dim])
            inside = (line >= start) & (line < start + length)
            x = x.masked_fill(inside[:, :, None] if dim == 1 else inside[:, None], 0.0)
    return x


class PatchDrop:
    """Patchout (Koutini et al., 2022), as a hook on the embeddings: `share` of the patches is left
    out of training.
    """

    def __init__(self, model: ASTForAudioClassification) -> None:
        self.share = PATCH_DROP
        model.audio_spectrogram_transformer.embeddings.register_forward_hook(self)

    def __call__(self, module: nn.Module, inputs: object, tokens: Tensor) -> Tensor | None:
        if not module.training or self.share == 0:
            return None
        patches = tokens.shape[1] - 2
        keep = (
            torch.rand(len(tokens), patches)
            .argsort(1)[:, : round(patches * (1 - self.share))]
            .to(tokens.device)
        )
        rows = tokens[:, 2:].gather(1, keep[:, :, None].expand(-1, -1, tokens.shape[2]))
        return torch.cat([tokens[:, :2], rows], 1)


def export(model: ASTForAudioClassification, folder: Path) -> None:
    """`config.json`, `preprocessor_config.json` and `model.safetensors` (fp16) in transformers'
    layout.
    """
    folder.mkdir(parents=True, exist_ok=True)
    shape = (
        f"AST, clips of {sound().samples / sound().sample_rate:.1f} s at 16 kHz, width"
        f" {MODEL['hidden_size']}"
    )
    summary = (
        f"{shape}, depth {MODEL['num_hidden_layers']}, trained on {model.config.num_labels} words"
        " spoken by espeak-ng"
    )
    model.config.vpt = {"summary": summary, "licence": "Apache-2.0"}
    # as it is used; kept in fp16
    model.config.architectures, model.config.dtype = [type(model).__name__], "float32"
    model.config.save_pretrained(folder)
    extractor = ASTFeatureExtractor(
        num_mel_bins=MODEL["num_mel_bins"], max_length=MODEL["max_length"], mean=MEAN, std=STD
    )
    extractor.save_pretrained(folder)
    save_file(half(model), folder / "model.safetensors", {"format": "pt"})


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("runs/pretrain-audio"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--utterances", type=int, default=UTTERANCES)
    parser.add_argument("--steps", type=int, default=SCHEDULE["steps"])
    parser.add_argument("--batch", type=int, default=SCHEDULE["batch"])
    parser.add_argument("--save-every", type=int, default=250)
    options = parser.parse_args(argv)
    accelerator = Accelerator(mixed_precision=PRECISION)
    spec, each = sound(), options.utterances
    with accelerator.local_main_process_first():
        spoken, lengths = clips(options.out / "spoken", each, options.seed)
    numbers = torch.arange(len(spoken))
    held, rest = numbers[numbers % each < HELD_OUT], numbers[numbers % each >= HELD_OUT]
    if len(rest) < options.batch:
        raise SystemExit(
            f"Found {len(rest)} clips to train on; needed is at least a batch, {options.batch}:"
            " more --utterances."
        )
    schedule = Schedule(
        **(SCHEDULE | {k: getattr(options, k) for k in ("steps", "batch", "seed", "save_every")})
    )
    torch.manual_seed(options.seed)
    model = build(names())
    drop = PatchDrop(model)

    def read(chosen: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return (
            torch.from_numpy(spoken[chosen.numpy()]).float() / 32768,
            torch.from_numpy(lengths[chosen.numpy()]),
            chosen // each,
        )

    def loss(prepared: nn.Module, step: int, rank: int, processes: int) -> Tensor:
        x, n, y = read(rest[share(len(rest), schedule, step, rank, processes)])
        device = next(prepared.parameters()).device
        strength = min(1.0, step / EASY)
        x = masked(spec.normalize(heard(x, n, spec.sample_rate, strength)), strength).to(device)
        drop.share = 0.0 if step >= (1 - WHOLE) * schedule.steps else PATCH_DROP
        return F.cross_entropy(
            prepared(x).logits.float(), y.to(device), label_smoothing=LABEL_SMOOTHING
        )

    def accuracy(m: nn.Module) -> float:
        device, right = next(m.parameters()).device, 0
        for part in held.split(256):
            x, n, y = read(part)
            right += (m(spec.normalize((x, n)).to(device)).logits.argmax(1).cpu() == y).sum().item()
        return right / len(held)

    train(accelerator, model, loss, schedule, options.out, accuracy)
    if accelerator.is_main_process:
        export(model, options.out / "model")
    accelerator.end_training()


if __name__ == "__main__":
    main()
