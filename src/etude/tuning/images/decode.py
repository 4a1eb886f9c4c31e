"""Image files to RGB pixels: rotated as their EXIF data say, any mode, whatever is broken refused.

A file is a stranger's. Only formats that Pillow decodes itself are tried (EPS would start another
program), its size is limited before a pixel is decoded, and a truncated file is an error.

    1, L, P, CMYK, YCbCr   to RGB, as Pillow converts them
    16 bits                a grey value v of 65,535 becomes v / 257
    transparency           over white
    animated               the first frame
"""

from __future__ import annotations

import hashlib
import io
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from etude.core.errors import DataError, EtudeError

if TYPE_CHECKING:
    from PIL.Image import Image

MOST_PIXELS = 64_000_000
"""Pixels of an image at most: 192 MB as RGB. A small file can say that it has billions."""
MOST_BYTES = 256_000_000
FORMATS = ("PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF", "PPM")
SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".gif", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pnm"),
)
"""What names of image files end in, to recognise a folder of images; what they are, their content
says."""

_TRANSPARENT = ("RGBA", "LA", "PA", "RGBa", "La")
_WIDE = ("I;16", "I;16L", "I;16B", "I;16N", "I")


class UnreadableImageError(DataError):
    """A file that is no image that can be used; the row is left out and counted.

    Args:
        message: one line that names the file.
        damaged: whether it is an image, or called one, but damaged or too large; False: it is none.
    """

    def __init__(self, message: str, *, damaged: bool) -> None:
        super().__init__(message)
        self.damaged = damaged


@dataclass(frozen=True)
class Decoded:
    """An image of a file."""

    image: Image
    """RGB, 8 bits."""
    digest: str
    """SHA-256 of the file, in hexadecimal."""
    frames: int
    """Of an animation, of which `image` is the first; else 1."""


def pillow() -> Any:
    """Return Pillow's `Image` module.

    Raises:
        EtudeError: Pillow is not installed.
    """
    try:
        from PIL import Image
    except ImportError:
        raise EtudeError("images need Pillow: pip install 'etude[images]'") from None
    return Image


def decode(path: Path, name: str | None = None) -> Decoded:
    """Read and decode an image file.

    Args:
        path: of the file.
        name: what to call it in messages; None: its path.

    Raises:
        UnreadableImageError: it is no image, damaged, truncated, too large or not there.
    """
    Image = pillow()
    name = name or str(path)
    content = _content(path, name)
    try:
        # Pillow only warns of images between its limit and twice that; ours is lower.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = Image.open(io.BytesIO(content), formats=FORMATS)
            width, height = image.size
            if width * height > MOST_PIXELS:
                raise _too_large(name, f"{width:,} × {height:,} pixels")
            frames = int(getattr(image, "n_frames", 1)) if image.format in ("GIF", "WEBP") else 1
            if getattr(image, "is_animated", False):
                image.seek(0)
            image.load()
            rgb = _as_rgb(image)
    except UnreadableImageError:
        raise
    except Image.DecompressionBombError:
        raise _too_large(name, "too many pixels to decode") from None
    except Image.UnidentifiedImageError:
        called_one = path.suffix.lower() in SUFFIXES
        raise UnreadableImageError(f"{name} is not an image", damaged=called_one) from None
    except Exception as error:
        # Decoders of damaged files raise OSError, SyntaxError, ValueError, struct.error, ...
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UnreadableImageError(f"{name} is damaged: {reason}", damaged=True) from None
    return Decoded(rgb, hashlib.sha256(content).hexdigest(), frames)


def _too_large(name: str, size: str) -> UnreadableImageError:
    return UnreadableImageError(
        f"{name} is too large: {size}; at most {MOST_PIXELS:,} are decoded", damaged=True
    )


def _content(path: Path, name: str) -> bytes:
    try:
        if not path.is_file():
            raise UnreadableImageError(f"no image file at {name}", damaged=True)
        if path.stat().st_size > MOST_BYTES:
            raise _too_large(name, f"{path.stat().st_size:,} bytes")
        return path.read_bytes()
    except OSError as error:
        reason = error.strerror or str(error)
        raise UnreadableImageError(f"cannot read {name}: {reason}", damaged=True) from None


def _as_rgb(image: Any) -> Any:
    from PIL import Image, ImageOps

    image = ImageOps.exif_transpose(image)
    if image.mode in _WIDE:
        image = _from_wide(image)
    if image.mode in _TRANSPARENT or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image)
    if image.mode == "F":
        raise ValueError("pixels are fractions, whose range nothing states")
    return image.convert("RGB")


def _from_wide(image: Any) -> Any:
    """Return a grey image of 16 bits in 8."""
    import numpy as np
    from PIL import Image

    values = np.asarray(image).astype(np.int64)
    if values.size and (values.min() < 0 or values.max() > 0xFFFF):
        raise ValueError("pixels have more than 16 bits")
    return Image.fromarray(((values + 128) // 257).astype(np.uint8))
