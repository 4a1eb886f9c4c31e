"""Image files of every mode become RGB; what is broken, too large or no image is refused."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from etude.tuning.images import decode as decoding
from etude.tuning.images.decode import UnreadableImageError, decode


def pixels(path):
    return np.asarray(decode(path).image)


def test_a_rotation_in_exif_data_is_applied(tmp_path):
    image = Image.new("RGB", (4, 2), (10, 20, 30))
    image.putpixel((0, 0), (250, 0, 0))
    exif = Image.Exif()
    exif[0x0112] = 6  # the top is on the right
    image.save(tmp_path / "turned.png", exif=exif)
    found = pixels(tmp_path / "turned.png")
    assert found.shape == (4, 2, 3)
    assert tuple(found[0, 1]) == (250, 0, 0)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "CMYK", "YCbCr"])
def test_every_mode_becomes_rgb(tmp_path, mode):
    colour = (255, 255, 255)
    suffix = "jpg" if mode in ("CMYK", "YCbCr") else "png"
    Image.new("RGB", (8, 8), colour).convert(mode).save(tmp_path / f"one.{suffix}")
    found = pixels(tmp_path / f"one.{suffix}")
    assert found.shape == (8, 8, 3)
    assert found.min() >= 254


def test_transparency_is_laid_over_white(tmp_path):
    Image.new("RGBA", (2, 2), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    assert pixels(tmp_path / "clear.png").tolist() == [[[255] * 3] * 2] * 2
    Image.new("RGBA", (1, 1), (0, 0, 0, 128)).save(tmp_path / "half.png")
    assert pixels(tmp_path / "half.png")[0, 0].tolist() == [127] * 3


def test_sixteen_bits_are_scaled_to_eight_and_not_clipped(tmp_path):
    values = np.array([[0, 257, 32_896, 65_535]], dtype=np.uint16)
    Image.fromarray(values).save(tmp_path / "wide.png")
    assert pixels(tmp_path / "wide.png")[0, :, 0].tolist() == [0, 1, 128, 255]


def test_the_first_frame_of_an_animation_is_used_and_frames_are_counted(tmp_path):
    frames = [Image.new("RGB", (4, 4), colour) for colour in ((255, 0, 0), (0, 0, 255))]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    found = decode(tmp_path / "moving.gif")
    assert found.frames == 2
    assert np.asarray(found.image)[0, 0].tolist() == [255, 0, 0]


def test_a_truncated_file_is_damaged_and_a_text_is_no_image(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "whole.jpg")
    whole = (tmp_path / "whole.jpg").read_bytes()
    (tmp_path / "half.jpg").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UnreadableImageError, match=r"half\.jpg is damaged") as damaged:
        decode(tmp_path / "half.jpg")
    assert damaged.value.damaged
    for name, called_one in (("notes.txt", False), ("notes.jpg", True)):
        (tmp_path / name).write_text("no image")
        with pytest.raises(UnreadableImageError, match="not an image") as other:
            decode(tmp_path / name)
        assert other.value.damaged == called_one
    with pytest.raises(UnreadableImageError, match="no image file at"):
        decode(tmp_path / "missing.jpg")


@pytest.mark.parametrize("side", [9_000, 100_000])
def test_a_small_file_that_says_it_has_billions_of_pixels_is_refused(tmp_path, side):
    def chunk(name, content):
        body = name + content
        return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    data = zlib.compress(b"\0" * 1000)
    content = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data)
    (tmp_path / "bomb.png").write_bytes(content + chunk(b"IEND", b""))
    with pytest.raises(UnreadableImageError, match="too large"):
        decode(tmp_path / "bomb.png")


def test_postscript_which_starts_another_program_is_no_image_here():
    assert "EPS" not in decoding.FORMATS
