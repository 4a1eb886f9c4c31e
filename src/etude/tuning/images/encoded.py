"""Images of samples: prepared pixels, kept while there is room, else decoded again."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from etude.core.errors import DataError
from etude.tuning.images.decode import decode
from etude.tuning.images.preparation import Pixels, Preparation

HELD_BYTES = 256_000_000
"""Bytes of prepared pixels that a set of samples keeps in memory."""
THUMBNAIL = 96
"""Longer side of a picture in a report, in pixels."""


@dataclass
class Room:
    """Memory that is left for prepared pixels."""

    left: int = HELD_BYTES


@dataclass(eq=False)
class EncodedImage:
    """The image of one sample."""

    path: Path
    digest: str
    """SHA-256 of the file when it was read."""
    preparation: Preparation
    room: Room = field(repr=False)
    _held: Pixels | None = field(default=None, init=False, repr=False)

    def pixels(self) -> Pixels:
        """Return the prepared pixels: (height, width, 3).

        Raises:
            DataError: the file is not the one that was read at first.
        """
        if self._held is not None:
            return self._held
        decoded = decode(self.path)
        if decoded.digest != self.digest:
            raise DataError(f"{self.path} has changed since the data were read")
        pixels = self.preparation.apply(decoded.image)
        if pixels.nbytes <= self.room.left:
            self.room.left -= pixels.nbytes
            self._held = np.array(pixels)
        return pixels

    def fingerprint(self) -> NDArray[np.int32]:
        """Return numbers that depend on the file and its preparation, one for each token."""
        import hashlib

        mixed = hashlib.shake_256(f"{self.digest} {self.preparation.digest}".encode())
        return np.frombuffer(mixed.digest(4 * self.preparation.tokens), dtype=np.int32)


def thumbnail(path: Path) -> str:
    """Return a small picture of an image file as a data URI.

    Raises:
        UnreadableImageError: the file is no image any more.
    """
    image = decode(path).image
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    written = io.BytesIO()
    image.save(written, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(written.getvalue()).decode()}"
