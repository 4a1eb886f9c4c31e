"""Preparation of images for a model: size, crop, resampling, mean and standard deviation.

A model is as good as the preparation of its images: another resampling alone costs points of
accuracy (https://github.com/huggingface/transformers/issues/28264). So what is stated in the
model's `preprocessor_config.json` is done as transformers' processors do it with Pillow, stored
with the run together with its hash, and used for every prediction.

    RGB ─ resize ─ crop the centre ─▶ uint8 (H, W, 3) ─ · scale, − mean, / deviation ─▶ (3, H, W)
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Self, cast

import numpy as np
import torch
from numpy.typing import NDArray

from etude.core.atomic_files import replace_file, to_json
from etude.core.errors import AdapterError, ModelError

FILE = "preprocessor_config.json"
PATCH = 16
"""Side of the square of pixels that counts as a token of a micro-batch."""
_SHORTEST = ("ConvNext", "MobileNet", "EfficientNet", "ResNet", "LeViT", "PoolFormer")
"""Processors whose size, given as one number, is that of the shorter side."""
_CONVNEXT_WARPED = 384
"""ConvNeXT's images of this size and above are resized whole, not cropped."""

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Preparation:
    """How an RGB image becomes the input of a model."""

    size: tuple[int, int]
    """Height and width that the model gets, in pixels."""
    shortest: int | None = None
    """Length of the shorter side after resizing, in pixels, before the centre of `size` is cropped.
    None: the image is resized to `resized`, whatever its proportions."""
    resized: tuple[int, int] | None = None
    """Height and width after resizing, before cropping; None: `size`."""
    resample: int = 2
    """Pillow's number of the filter: 0 nearest, 1 Lanczos, 2 bilinear, 3 bicubic."""
    scale: float = 1 / 255
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    deviation: tuple[float, ...] = (0.5, 0.5, 0.5)
    """Mean and standard deviation of each channel, after scaling."""

    @classmethod
    def read(cls, folder: Path, config: Any) -> Self:
        """Read a model's preparation; without a file, what its configuration says.

        That is `image_preparation`, with the keys of the file, else a square of `image_size`.

        Args:
            folder: of the model.
            config: its configuration.

        Raises:
            ModelError: the file is damaged, or states what is not implemented.
        """
        file = folder / FILE
        try:
            stated: Any = json.loads(file.read_text("utf-8")) if file.is_file() else None
        except (OSError, ValueError):
            raise ModelError(f"{file} is not JSON, or cannot be read") from None
        if stated is not None and not isinstance(stated, dict):
            raise ModelError(f"{file} does not contain a JSON object")
        stated_or_own: Any = cast("Any", stated) or getattr(config, "image_preparation", None)
        if stated_or_own is None:
            side: Any = getattr(config, "image_size", None) or 224
            return cls(_pair(side, file))
        return cls._stated(cast("dict[str, Any]", stated_or_own), file)

    @classmethod
    def _stated(cls, stated: dict[str, Any], file: Path) -> Self:
        kind = str(stated.get("image_processor_type") or stated.get("feature_extractor_type") or "")
        size: Any = stated.get("size", 224)
        crop = stated.get("crop_size") if stated.get("do_center_crop") else None
        shortest, resized = None, None
        if not stated.get("do_resize", True):
            raise ModelError(f"{file}: do_resize is false, but images of a batch need one size")
        if isinstance(size, int) and kind.startswith(_SHORTEST):
            size = {"shortest_edge": size}
        if isinstance(size, Mapping) and "shortest_edge" in size:
            shortest = int(cast("Mapping[str, Any]", size)["shortest_edge"])
            if (share := stated.get("crop_pct")) and kind.startswith("ConvNext"):
                if shortest >= _CONVNEXT_WARPED:
                    shortest, resized, crop = None, (shortest, shortest), None
                else:
                    crop, shortest = shortest, int(shortest / share)
            if shortest is not None and crop is None:
                raise ModelError(
                    f"{file}: images keep their proportions and are not cropped, but those of a "
                    "batch need one size; set do_center_crop and crop_size there"
                )
        else:
            resized = _pair(size, file)
        final = resized if crop is None else _pair(crop, file)
        assert final is not None
        at_hand = (shortest, shortest) if shortest is not None else resized
        assert at_hand is not None
        if final[0] > at_hand[0] or final[1] > at_hand[1]:
            raise ModelError(f"{file}: crop_size is larger than the resized image")
        normalised = stated.get("do_normalize", True)
        found = cls(
            final,
            shortest,
            None if resized == final else resized,
            int(stated.get("resample", 2)),
            float(stated.get("rescale_factor", 1 / 255)) if stated.get("do_rescale", True) else 1.0,
            _channels(stated.get("image_mean", 0.5) if normalised else 0.0),
            _channels(stated.get("image_std", 0.5) if normalised else 1.0),
        )
        if found.resample not in range(6):
            raise ModelError(f"{file}: resample {found.resample} is no filter of Pillow")
        return found

    def of_side(self, side: int) -> Preparation:
        """Return the same preparation for squares of another side, resized before cropping alike.

        Args:
            side: in pixels.
        """
        ratio = side / min(self.size)
        return replace(
            self,
            size=(side, side),
            shortest=None if self.shortest is None else round(self.shortest * ratio),
            resized=None
            if self.resized is None
            else (round(self.resized[0] * ratio), round(self.resized[1] * ratio)),
        )

    @property
    def tokens(self) -> int:
        """Tokens that an image counts as: its squares of `PATCH` pixels a side."""
        return math.ceil(self.size[0] / PATCH) * math.ceil(self.size[1] / PATCH)

    @property
    def digest(self) -> str:
        """SHA-256 of what is stated, in hexadecimal."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()

    def apply(self, image: Any) -> Pixels:
        """Return the pixels of an RGB image, resized and cropped: (height, width, 3)."""
        width, height = image.size
        if self.shortest is not None:
            short, long = min(width, height), max(width, height)
            longer = int(self.shortest * long / short)
            target = (self.shortest, longer) if width <= height else (longer, self.shortest)
        else:
            rows, columns = self.resized or self.size
            target = (columns, rows)
        if image.size != target:
            image = image.resize(target, resample=self.resample)
        rows, columns = self.size
        left, top = (image.size[0] - columns) // 2, (image.size[1] - rows) // 2
        if image.size != (columns, rows):
            image = image.crop((left, top, left + columns, top + rows))
        return np.asarray(image, dtype=np.uint8)

    def tensor(self, pixels: Sequence[Pixels]) -> torch.Tensor:
        """Return prepared images as a model's input: (images, 3, height, width), float32."""
        stacked = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2)  # pyright: ignore[reportUnknownMemberType]
        mean = torch.tensor(self.mean).view(1, 3, 1, 1)
        deviation = torch.tensor(self.deviation).view(1, 3, 1, 1)
        return ((stacked.float() * self.scale) - mean) / deviation

    def as_json(self) -> dict[str, Any]:
        """Return plain data, with its hash."""
        return {**asdict(self), "sha256": self.digest}

    @classmethod
    def from_json(cls, content: Any) -> Self:
        """Return what `as_json` returned.

        Raises:
            AdapterError: it is damaged, or not what was hashed.
        """
        try:
            values: dict[str, Any] = {
                field.name: _tuples(content[field.name]) for field in fields(cls)
            }
            found, stated = cls(**values), content["sha256"]
            whole = found.digest == stated
        except (KeyError, TypeError):
            whole = False
            found = None
        if not whole or found is None:
            raise AdapterError(
                "the preparation of images in task.json is missing or was changed, so predictions "
                "would be of other pixels than those trained on; restore the file"
            )
        return found

    def save_pretrained(self, folder: str | Path) -> None:
        """Write `preprocessor_config.json`, which transformers' image processors read."""
        stated: dict[str, Any] = {
            "image_processor_type": "ViTImageProcessor",
            "do_resize": True,
            "size": _sides(self.resized or self.size),
            "resample": self.resample,
            "do_rescale": self.scale != 1.0,
            "rescale_factor": self.scale,
            "do_normalize": True,
            "image_mean": list(self.mean),
            "image_std": list(self.deviation),
        }
        if self.shortest is not None or self.resized is not None:
            # ViT's own processor does not crop.
            stated["image_processor_type"] = "CLIPImageProcessor"
            stated |= {"do_center_crop": True, "crop_size": _sides(self.size)}
            if self.shortest is not None:
                stated["size"] = {"shortest_edge": self.shortest}
        text = to_json(stated, indent=2)
        replace_file(Path(folder) / FILE, lambda file: file.write_text(text, "utf-8"))


def _sides(size: tuple[int, int]) -> dict[str, int]:
    return {"height": size[0], "width": size[1]}


def _tuples(value: Any) -> Any:
    return tuple(cast("list[Any]", value)) if isinstance(value, list) else value


def _pair(size: Any, file: Path) -> tuple[int, int]:
    """Return height and width of a size as transformers states it."""
    if isinstance(size, int):
        return size, size
    try:
        if isinstance(size, Mapping):
            sides = cast("Mapping[str, Any]", size)
            return int(sides["height"]), int(sides["width"])
        height, width = size
        return int(height), int(width)
    except (KeyError, TypeError, ValueError):
        raise ModelError(f"{file}: size {size!r} is not supported") from None


def _channels(values: Any) -> tuple[float, ...]:
    """Return a value for each of the three channels."""
    listed = [values] * 3 if isinstance(values, int | float) else list(values)
    return tuple(float(value) for value in listed)
