"""Sound files: only what is used is decoded, wherever it stands, at any rate; whatever a decoder
throws has a name.
"""

from __future__ import annotations

import io
import math
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from torchaudio.functional import resample

from vpt.data import sounds
from vpt.data.sounds import decode_sound, resampled, seconds_of, starts_of
from vpt.errors import DataError


def noise(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-0.5, 0.5, count).astype("float32")


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 22050, 44100, 48000, 44101])
def test_a_part_is_what_the_whole_has_there(tmp_path: Path, rate: int) -> None:
    """Decoded in part, with a margin, and then resampled: the same as all of it resampled, and then
    cut.
    """
    soundfile.write(tmp_path / "a.wav", noise(2 * rate), rate, subtype="FLOAT")
    found, length = decode_sound(tmp_path / "a.wav", 16000, 4000, start=1.0)
    whole = resampled(torch.from_numpy(noise(2 * rate)), rate, 16000).clamp(-1, 1)
    assert length == 4000
    assert torch.allclose(found, whole[16000:20000], atol=1e-4)


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 44100, 44101])
@pytest.mark.parametrize("start", [0.25, 1.3])
def test_a_part_begins_where_it_is_said(tmp_path: Path, rate: int, start: float) -> None:
    soundfile.write(
        tmp_path / "a.wav",
        0.5 * np.sin(2 * np.pi * 440 * np.arange(2 * rate) / rate),
        rate,
        subtype="FLOAT",
    )
    found, _ = decode_sound(tmp_path / "a.wav", 16000, 4000, start)
    begun = round(start * rate) / rate  # at a sample of the file
    needed = 0.5 * np.sin(2 * np.pi * 440 * (begun + np.arange(4000) / 16000))
    assert np.abs(found.numpy() - needed)[20:].max() < 0.01


def test_only_what_is_used_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two hours were decoded and resampled for one second."""
    soundfile.write(tmp_path / "a.flac", noise(60 * 44100), 44100)
    read: list[int] = []
    real = soundfile.SoundFile.read

    def counting(
        self: soundfile.SoundFile, frames: int = -1, *args: object, **more: object
    ) -> np.ndarray:
        read.append(frames)
        return real(self, frames, *args, **more)

    monkeypatch.setattr(soundfile.SoundFile, "read", counting)
    decode_sound(tmp_path / "a.flac", 16000, 16000, start=40.0)
    assert sum(read) < 2 * 44100
    assert max(read) <= sounds.BLOCK


@pytest.mark.parametrize(
    ("rate", "wanted"),
    [(44100, 16000), (8000, 16000), (48000, 16000), (22050, 16000), (16000, 8000)],
)
def test_the_direct_filter_is_torchaudios(rate: int, wanted: int) -> None:
    x, common = torch.from_numpy(noise(30_000)), math.gcd(rate, wanted)
    assert torch.allclose(
        sounds._directly(x, rate // common, wanted // common), resample(x, rate, wanted), atol=2e-4
    )


@pytest.mark.parametrize("rate", [44101, 191_999, 7919])
def test_odd_rates_need_no_gigabytes(rate: int) -> None:
    """A kernel for every place between two samples took 2 to 12 GB."""
    t = np.arange(rate) / rate
    found = resampled(torch.from_numpy(np.sin(2 * np.pi * 440 * t).astype("float32")), rate, 16000)
    needed = torch.from_numpy(np.sin(2 * np.pi * 440 * np.arange(16000) / 16000).astype("float32"))
    assert len(found) == 16000
    assert (found - needed)[500:-500].abs().max() < 0.02


@pytest.mark.parametrize("rate", [1, 900, 2_000_000, 2**31 - 1])
def test_rates_that_no_sound_has_are_refused(tmp_path: Path, rate: int) -> None:
    soundfile.write(tmp_path / "a.wav", noise(100), rate)
    with pytest.raises(DataError, match=r"a sample rate of .* Hz; read are 1,000 to 1,000,000"):
        decode_sound(tmp_path / "a.wav", 16000, 16000)


@pytest.mark.parametrize("samples", [(1 << 36) - 1, 2 * 3600 * 16000 * 8])
def test_a_header_that_claims_hours_allocates_nothing(tmp_path: Path, samples: int) -> None:
    path = tmp_path / "a.flac"
    soundfile.write(path, noise(4000), 16000)
    data = bytearray(path.read_bytes())
    head = int.from_bytes(data[18:26], "big") >> 36 << 36
    data[18:26] = (head | samples).to_bytes(8, "big")
    path.write_bytes(data)
    assert seconds_of(path) > 3600
    for start in (0.0, 3000.0):
        with pytest.raises(DataError, match="not readable sound"):
            decode_sound(path, 16000, 4000, start)


def test_windows_cover_a_clip_to_its_end() -> None:
    assert starts_of(0.4, 1.0) == starts_of(1.0, 1.0) == starts_of(1.05, 1.0) == [0.0]
    assert starts_of(1.5, 1.0) == [0.0, 0.5]
    assert starts_of(3.0, 1.0) == [0.0, 1.0, 2.0]
    long = starts_of(7200.0, 1.0)
    assert len(long) == sounds.MOST_WINDOWS
    assert (long[0], long[-1]) == (0.0, 7199.0)


@pytest.mark.parametrize(
    "form",
    [("WAV", "PCM_16"), ("WAV", "FLOAT"), ("FLAC", "PCM_16"), ("OGG", "VORBIS"), ("MP3", None)],
)
def test_damaged_sounds_have_reasons(tmp_path: Path, form: tuple[str, str | None]) -> None:
    buffer, draw = io.BytesIO(), np.random.default_rng(0)
    soundfile.write(buffer, noise(8000), 16000, format=form[0], subtype=form[1])
    whole = buffer.getvalue()
    for i in range(60):
        data = bytearray(whole)
        for _ in range(draw.integers(1, 5)):
            data[draw.integers(0, min(len(data), 60 if i % 2 else len(data)))] = draw.integers(
                0, 256
            )
        (tmp_path / "a.x").write_bytes(data[: draw.integers(1, len(data))] if i % 5 == 0 else data)
        try:
            waveform, length = decode_sound(tmp_path / "a.x", 16000, 16000)
        except DataError:
            continue
        assert waveform.shape == (16000,)
        assert 0 < length <= 16000
