"""One file → one raw input: what is read, and what is refused with which words."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

from vpt.backbones.inputs.images import Images
from vpt.backbones.inputs.sound import Sound
from vpt.data.readers import fit_image, open_image, read_sound, reader, suffixes
from vpt.errors import DataError

INPUTS = Images(size=(16, 16))
RATE = 16000
GREEN = torch.tensor([0, 200, 0], dtype=torch.uint8)


def noise(height, width, channels=3, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


def save(path, array_or_image, **options):
    image = (
        array_or_image
        if isinstance(array_or_image, Image.Image)
        else Image.fromarray(array_or_image)
    )
    image.save(path, **options)
    return path


def tone(seconds, rate, hertz=440.0, height=0.5):
    return (height * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(
        "float32"
    )


def test_suffixes_of_each_kind():
    assert ".png" in suffixes("image")
    assert ".jpeg" in suffixes("image")
    assert ".wav" in suffixes("sound")
    assert not set(suffixes("image")) & set(suffixes("sound"))


# --- pictures ---------------------------------------------------------------------------


def test_image_of_the_right_size_is_read_unchanged(tmp_path):
    array = noise(16, 16)
    read = reader(INPUTS)(save(tmp_path / "a.png", array))
    assert read.dtype == torch.uint8
    assert torch.equal(read, torch.from_numpy(array).permute(2, 0, 1))


@pytest.mark.parametrize("size", [(16, 64), (64, 16), (16, 17), (48, 16)])
def test_the_centre_is_cut_out(size):
    array = noise(*size)
    top, left = round((size[0] - 16) / 2), round((size[1] - 16) / 2)
    expected = torch.from_numpy(array[top : top + 16, left : left + 16]).permute(2, 0, 1)
    assert torch.equal(fit_image(Image.fromarray(array), INPUTS), expected)


def test_crop_pct_keeps_that_share_of_the_resized_picture():
    array = np.full((20, 20, 3), 255, np.uint8)
    array[2:18, 2:18] = GREEN.numpy()
    cropped = fit_image(Image.fromarray(array), Images(size=16, crop_pct=0.8))
    assert torch.equal(cropped, GREEN.view(3, 1, 1).expand(3, 16, 16))
    whole = fit_image(Image.fromarray(array), Images(size=16, crop_pct=1.0))
    assert not torch.equal(whole, cropped)


@pytest.mark.parametrize("size", [(1, 1), (3, 50), (200, 7), (16, 17), (15, 16), (1, 2000)])
@pytest.mark.parametrize("wanted", [(16, 16), (10, 31)])
@pytest.mark.parametrize("crop_pct", [1.0, 0.875])
def test_every_size_fits_without_padding(size, wanted, crop_pct):
    image = Image.new("RGB", size[::-1], tuple(GREEN.tolist()))
    out = fit_image(image, Images(size=wanted, crop_pct=crop_pct))
    assert torch.equal(out, GREEN.view(3, 1, 1).expand(3, *wanted))  # a padded edge would be black


def test_interpolation_is_the_one_asked_for():
    image = Image.fromarray(noise(40, 40))
    out = {
        how: fit_image(image, Images(size=16, interpolation=how)) for how in ("bicubic", "bilinear")
    }
    for how, resample in (
        ("bicubic", Image.Resampling.BICUBIC),
        ("bilinear", Image.Resampling.BILINEAR),
    ):
        assert torch.equal(
            out[how], torch.from_numpy(np.array(image.resize((16, 16), resample))).permute(2, 0, 1)
        )
    assert not torch.equal(out["bicubic"], out["bilinear"])


@pytest.mark.parametrize(
    ("mode", "colour", "ending", "expected"),
    [
        ("L", 77, "png", (77, 77, 77)),
        ("1", 1, "png", (255, 255, 255)),
        ("LA", (77, 10), "png", (77, 77, 77)),
        ("RGBA", (10, 20, 30, 128), "png", (10, 20, 30)),
        ("RGBA", (10, 20, 30, 128), "tif", (10, 20, 30)),
        ("CMYK", (255, 0, 0, 0), "tif", (0, 255, 255)),
        ("I;16", 77 << 8, "png", (77, 77, 77)),
        ("I;16", 0xFFFF, "tif", (255, 255, 255)),
        ("I;16", 255, "png", (0, 0, 0)),
    ],
)
def test_colour_modes(tmp_path, mode, colour, ending, expected):
    path = save(tmp_path / f"a.{ending}", Image.new(mode, (20, 18), colour))
    assert reader(INPUTS)(path).flatten(1).unique(dim=1).T.tolist() == [list(expected)]


@pytest.mark.parametrize("ending", ["png", "gif"])
def test_palette_images_are_read_through_their_palette(tmp_path, ending):
    image = Image.new("P", (16, 16), 1)
    image.putpalette([255, 0, 0, 0, 0, 255])
    assert reader(INPUTS)(save(tmp_path / f"a.{ending}", image))[:, 3, 3].tolist() == [0, 0, 255]


def test_palette_with_transparency_is_read_without_a_warning(tmp_path):
    image = Image.new("P", (16, 16), 1)
    image.putpalette([255, 0, 0, 0, 0, 255])
    assert reader(INPUTS)(save(tmp_path / "a.png", image, transparency=bytes([0, 128])))[
        :, 3, 3
    ].tolist() == [0, 0, 255]


@pytest.mark.parametrize(("mode", "value"), [("I", 70000), ("F", 0.5)])
def test_32_bit_pictures_are_refused(tmp_path, mode, value):
    with pytest.raises(DataError, match=r"32 bits.*8 or 16 bits"):
        reader(INPUTS)(save(tmp_path / "a.tif", Image.new(mode, (16, 16), value)))


def test_a_backbone_of_one_channel_gets_grey():
    inputs = Images(size=16, channels=1, mean=0.0, std=1.0)
    out = fit_image(Image.new("RGB", (16, 16), (255, 0, 0)), inputs)
    assert out.shape == (1, 16, 16)
    assert out.unique().tolist() == [76]  # 0.299 · 255, ITU-R 601


@pytest.mark.parametrize(
    ("orientation", "upright"),
    [
        (1, lambda a: a),
        (2, lambda a: a[:, ::-1]),
        (3, lambda a: a[::-1, ::-1]),
        (4, lambda a: a[::-1]),
        (5, lambda a: a.transpose(1, 0, 2)),
        (6, lambda a: np.rot90(a, -1)),
        (7, lambda a: a[::-1, ::-1].transpose(1, 0, 2)),
        (8, lambda a: np.rot90(a, 1)),
    ],
)
def test_exif_orientation_is_undone(tmp_path, orientation, upright):
    array, exif = noise(10, 14), Image.Exif()
    exif[0x0112] = orientation
    image = open_image(save(tmp_path / "a.png", array, exif=exif))
    assert np.array_equal(np.array(image), upright(array))


@pytest.mark.parametrize("ending", ["png", "jpg", "webp", "gif", "bmp", "tif"])
@pytest.mark.parametrize("share", [0.0, 0.5])
def test_cut_pictures_are_refused(tmp_path, ending, share):
    path = save(tmp_path / f"a.{ending}", noise(60, 60))
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(DataError, match="truncated|decoder" if share else "^empty file$"):
        open_image(path)


def test_what_is_no_picture_is_refused(tmp_path):
    (tmp_path / "a.png").write_text("not a picture at all")
    with pytest.raises(DataError, match=r"^not an image$"):
        open_image(tmp_path / "a.png")
    with pytest.raises(DataError, match="a folder"):
        open_image(tmp_path)
    with pytest.raises(DataError, match="no such file"):
        open_image(tmp_path / "none.png")


def test_decompression_bombs_are_refused(tmp_path, monkeypatch):
    path = save(tmp_path / "a.png", noise(16, 16))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(DataError, match="more pixels than 134 million"):
        open_image(path)


# --- sound ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ending", "subtype", "tolerance"),
    [
        ("wav", "FLOAT", 0),
        ("wav", "PCM_16", 2e-4),
        ("wav", "PCM_U8", 1e-2),
        ("flac", "PCM_16", 2e-4),
        ("ogg", "VORBIS", 0.1),
    ],
)
def test_sound_is_read_as_it_was_written(tmp_path, ending, subtype, tolerance):
    clip = tone(0.5, RATE)
    soundfile.write(tmp_path / f"a.{ending}", clip, RATE, subtype=subtype)
    waveform, length = read_sound(tmp_path / f"a.{ending}", RATE, len(clip))
    assert (waveform.dtype, waveform.shape, length) == (torch.float32, (len(clip),), len(clip))
    assert (waveform - torch.from_numpy(clip)).abs().max() <= tolerance


def test_16_bit_numbers_become_shares_of_full_scale(tmp_path):
    soundfile.write(
        tmp_path / "a.wav", np.array([16384, -32768, 1], dtype=np.int16), RATE, subtype="PCM_16"
    )
    assert read_sound(tmp_path / "a.wav", RATE, 3)[0].tolist() == [0.5, -1.0, 1 / 32768]


def test_longer_clips_are_cut_and_shorter_ones_padded(tmp_path):
    clip = tone(0.1, RATE) + 0.01
    soundfile.write(tmp_path / "a.wav", clip, RATE, subtype="FLOAT")
    waveform, length = read_sound(tmp_path / "a.wav", RATE, 1000)
    assert length == 1000
    assert torch.equal(waveform, torch.from_numpy(clip[:1000]))
    waveform, length = read_sound(tmp_path / "a.wav", RATE, 2000)
    assert length == len(clip) == 1600
    assert torch.equal(waveform[:1600], torch.from_numpy(clip))
    assert waveform.shape == (2000,)
    assert not waveform[1600:].any()


def test_stereo_becomes_the_mean_of_its_channels(tmp_path):
    left, right = tone(0.1, RATE, 440), tone(0.1, RATE, 700)
    soundfile.write(tmp_path / "a.wav", np.stack([left, right], 1), RATE, subtype="FLOAT")
    torch.testing.assert_close(
        read_sound(tmp_path / "a.wav", RATE, 1600)[0], torch.from_numpy((left + right) / 2)
    )


@pytest.mark.parametrize("rate", [8000, 22050, 44100, 48000])
def test_other_sample_rates_are_resampled(tmp_path, rate):
    soundfile.write(tmp_path / "a.wav", tone(0.5, rate), rate, subtype="FLOAT")
    waveform, length = read_sound(tmp_path / "a.wav", RATE, RATE)
    assert length == RATE // 2
    inner = slice(500, 7500)  # resampling filters ring at the ends
    assert (waveform[inner] - torch.from_numpy(tone(0.5, RATE))[inner]).abs().max() < 0.01


def test_values_beyond_full_scale_are_clipped(tmp_path):
    soundfile.write(
        tmp_path / "a.wav", np.array([1.5, -3, 0.25], dtype="float32"), RATE, subtype="FLOAT"
    )
    assert read_sound(tmp_path / "a.wav", RATE, 3)[0].tolist() == [1.0, -1.0, 0.25]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros(0), "^no samples$"),
        (np.zeros(100), "^silent$"),
        (np.full(100, 1e-8), "^silent$"),
        (np.stack([tone(0.01, RATE), -tone(0.01, RATE)], 1), "^silent$"),
        (np.array([0.1, np.nan, 0.1]), "NaN or infinite"),
        (np.array([0.1, np.inf, 0.1]), "NaN or infinite"),
    ],
)
def test_useless_sound_is_refused(tmp_path, values, message):
    soundfile.write(tmp_path / "a.wav", values.astype("float32"), RATE, subtype="FLOAT")
    with pytest.raises(DataError, match=message):
        read_sound(tmp_path / "a.wav", RATE, 100)


@pytest.mark.parametrize("ending", ["wav", "flac", "ogg"])
def test_broken_sound_files_are_refused(tmp_path, ending):
    path = tmp_path / f"a.{ending}"
    path.write_bytes(b"")
    with pytest.raises(DataError, match=r"^empty file$"):
        read_sound(path, RATE, 100)
    path.write_bytes(b"this is no sound " * 20)
    with pytest.raises(DataError, match="not readable sound"):
        read_sound(path, RATE, 100)
    soundfile.write(path, tone(0.5, RATE), RATE)
    path.write_bytes(path.read_bytes()[:30])
    with pytest.raises(DataError, match="not readable sound"):
        read_sound(path, RATE, 100)


def test_flac_cut_in_the_middle_is_refused(tmp_path):
    path = tmp_path / "a.flac"
    soundfile.write(path, np.random.default_rng(0).uniform(-0.5, 0.5, 20000), RATE)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DataError, match="not readable sound"):
        read_sound(path, RATE, 20000)


def test_missing_sound_file_is_refused(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        read_sound(tmp_path / "none.wav", RATE, 100)


def test_a_clip_that_is_silent_where_it_is_kept_is_refused(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.concatenate([np.zeros(1000), tone(0.1, RATE)]), RATE)
    with pytest.raises(DataError, match="silent"):
        read_sound(tmp_path / "a.wav", RATE, 1000)


def test_reader_of_sound_uses_the_backbones_rate_and_length(tmp_path):
    soundfile.write(tmp_path / "a.wav", tone(0.5, 8000), 8000)
    waveform, length = reader(Sound(sample_rate=RATE, samples=9000, frames=10, bins=8))(
        tmp_path / "a.wav"
    )
    assert (len(waveform), length) == (9000, 8000)


def test_mp3_is_read(tmp_path):
    wave = 0.5 * np.sin(np.arange(16000) * 0.1)
    soundfile.write(tmp_path / "a.mp3", wave, 16000)
    waveform, length = read_sound(tmp_path / "a.mp3", 16000, 16000)
    assert length == 16000
    assert abs(float(waveform.square().mean().sqrt()) - 0.5 / 2**0.5) < 0.02


def test_channels_that_cancel_are_silent(tmp_path):
    wave = 0.5 * np.sin(np.arange(1600) * 0.1)
    soundfile.write(tmp_path / "a.wav", np.stack([wave, -wave], axis=1), 16000)
    with pytest.raises(DataError, match="silent"):
        read_sound(tmp_path / "a.wav", 16000, 1600)


def test_a_folder_is_no_sound(tmp_path):
    with pytest.raises(DataError, match="a folder"):
        read_sound(tmp_path, 16000, 1600)


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (
            b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 32 32\n%%EndComments\nshowpage\n%%EOF\n",
            "eps.png",
        ),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "svg.png"),
    ],
)
def test_only_the_listed_formats_are_read_whatever_a_file_is_called(
    tmp_path, content, name, monkeypatch
):
    """EPS called Ghostscript."""
    monkeypatch.setattr(
        "subprocess.check_call", lambda *a, **k: pytest.fail("a program was called")
    )
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match="not an image"):
        open_image(tmp_path / name)


def test_formats_that_are_not_listed_are_not_decoded(tmp_path):
    for form in ("PPM", "TGA", "ICO", "AVIF", "JPEG2000"):
        try:
            Image.new("RGB", (32, 32)).save(tmp_path / "a.png", form)
        except (KeyError, OSError):  # not built in
            continue
        with pytest.raises(DataError, match="not an image"):
            open_image(tmp_path / "a.png")


def test_photographs_of_phones_with_several_pictures_are_jpegs(tmp_path):
    picture = Image.new("RGB", (8, 8), (255, 0, 0))
    picture.save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=[Image.new("RGB", (8, 8))])
    assert open_image(tmp_path / "a.jpg").convert("RGB").getpixel((4, 4))[0] > 200


def test_whatever_a_decoder_throws_is_a_reason(tmp_path, monkeypatch):
    """A corrupt AVIF gave a RuntimeError, and ended the run."""
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    for trouble in (RuntimeError("codec"), MemoryError(), ZeroDivisionError("x")):
        monkeypatch.setattr(
            Image.Image, "load", lambda self, trouble=trouble: (_ for _ in ()).throw(trouble)
        )
        monkeypatch.setattr(
            "PIL.ImageFile.ImageFile.load",
            lambda self, trouble=trouble: (_ for _ in ()).throw(trouble),
        )
        with pytest.raises(DataError, match=r"codec|MemoryError|x"):
            open_image(tmp_path / "a.png")


def test_a_picture_of_milliards_of_pixels_is_refused_before_it_is_decoded(tmp_path, monkeypatch):
    monkeypatch.setattr("vpt.data.readers.MOST_PIXELS", 100)
    Image.new("RGB", (20, 20)).save(tmp_path / "a.png")
    with pytest.raises(DataError, match="20 × 20 pixels; read are at most"):
        open_image(tmp_path / "a.png")


def test_a_picture_of_one_line(tmp_path):
    """Its long side was scaled to 13 million pixels."""
    Image.new("RGB", (1, 60_000), (9, 9, 9)).save(tmp_path / "a.png")
    found = reader(Images(224))(tmp_path / "a.png")
    assert found.shape == (3, 224, 224)
    assert found.unique().tolist() == [9]


def test_pipes_and_devices_are_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    os.mkfifo(tmp_path / "a.wav")
    for place in (tmp_path / "a.png", "/dev/zero"):
        with pytest.raises(DataError, match="no plain file"):
            open_image(Path(place))
    with pytest.raises(DataError, match="no plain file"):
        read_sound(tmp_path / "a.wav", RATE, 100)
