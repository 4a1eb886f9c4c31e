"""EfficientNet-Lite: a convolutional network without gates, of pointwise and depthwise products.

    stem      3 × 3 convolution, stride 2 ─ norm ─ ReLU6
    block     expand (1 × 1) ─ norm ─ ReLU6 ─ depthwise (k × k) ─ norm ─ ReLU6 ─ project (1 × 1)
              ─ norm, plus its input where the sizes are equal
    top       1 × 1, 1,280 channels ─ norm ─ ReLU6 ─ mean over the pixels ─ classifier

A 1 × 1 convolution is a product per pixel, y = W x, so it is a Linear on the channels here: it can
be quantised and adapted like any. In memory the channels of a pixel lie side by side, so that
nothing is moved for it. Padding is TensorFlow's: all pixels are seen, an odd one is added on the
right and below. Tan and Le 2019, "EfficientNet"; the Lite variants have neither gates nor swish.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForImageClassification,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers.modeling_outputs import ImageClassifierOutput

from etude.core.errors import ModelError, innermost_reason
from etude.tuning.models.checkpoint import TensorInfo
from etude.tuning.models.sources import EFFICIENTNET_LITE

MODEL_TYPE = "efficientnet-lite"
STAGES = (
    # repeats, kernel, stride, expansion, channels
    *((1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80)),
    *((3, 5, 1, 6, 112), (4, 5, 2, 6, 192), (1, 3, 1, 6, 320)),
)
"""Blocks of Lite0."""
STEM, TOP = 32, 1280
CLASSES = 1000
EPSILON = 1e-3
PREPARATION = {
    "size": {"shortest_edge": 256},
    "do_center_crop": True,
    "crop_size": {"height": 224, "width": 224},
    "resample": 3,
    "image_mean": [127 / 255] * 3,
    "image_std": [128 / 255] * 3,
}
"""Of the images that the Lite models were trained on, with the keys of transformers' processors:
(v - 127) / 128 of a value v of 255."""


class EfficientNetLiteConfig(PretrainedConfig):
    """Configuration of EfficientNet-Lite.

    Args:
        image_size: height and width that it was trained at, in pixels; it takes others.
        stages: repeats, kernel, stride, expansion and channels of each stage.
        stem: channels of the first convolution.
        top: channels of the last product.
        image_preparation: of its images, with the keys of transformers' processors.
        options: of any configuration.
    """

    model_type = MODEL_TYPE

    def __init__(
        self,
        image_size: int = 224,
        stages: Any = STAGES,
        stem: int = STEM,
        top: int = TOP,
        image_preparation: dict[str, Any] | None = None,
        **options: Any,
    ) -> None:
        self.image_size = image_size
        self.stages = [list(stage) for stage in stages]
        self.stem = stem
        self.top = top
        self.image_preparation = image_preparation or PREPARATION
        self.num_channels = 3
        self.initializer_range = 0.02
        super().__init__(**options)


class SamePadded(nn.Conv2d):
    """Convolution without a bias whose output has a pixel for each `stride` of its input's."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int, groups: int = 1
    ) -> None:
        super().__init__(  # pyright: ignore[reportUnknownMemberType]
            inputs, outputs, kernel, stride, groups=groups, bias=False
        )

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - as in torch
        """Return the convolution of (images, channels, height, width)."""
        kernel, stride = self.kernel_size[0], self.stride[0]
        across, down = (_padding(size, kernel, stride) for size in (input.shape[3], input.shape[2]))
        return super().forward(F.pad(input, (*across, *down)))


def _padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Return the zeros before and behind a line of pixels."""
    whole = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return whole // 2, whole - whole // 2


def _per_pixel(product: nn.Module, x: Tensor) -> Tensor:
    """Return a product with the channels of each pixel."""
    return product(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Block(nn.Module):
    """Inverted residual: wider inside than outside."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = inputs * expansion
        self.adds = stride == 1 and inputs == outputs
        if expansion > 1:
            self.expand = nn.Linear(inputs, inner, bias=False)
            self.expand_norm = nn.BatchNorm2d(inner, EPSILON)
        self.depthwise = SamePadded(inner, inner, kernel, stride, groups=inner)
        self.depthwise_norm = nn.BatchNorm2d(inner, EPSILON)
        self.project = nn.Linear(inner, outputs, bias=False)
        self.project_norm = nn.BatchNorm2d(outputs, EPSILON)
        self.widens = expansion > 1

    def forward(self, x: Tensor) -> Tensor:
        """Return (images, outputs, height / stride, width / stride)."""
        inner = F.relu6(self.expand_norm(_per_pixel(self.expand, x))) if self.widens else x
        inner = F.relu6(self.depthwise_norm(self.depthwise(inner)))
        out = self.project_norm(_per_pixel(self.project, inner))
        return out + x if self.adds else out


class Trunk(nn.Module):
    """All but the classifier."""

    def __init__(self, config: EfficientNetLiteConfig) -> None:
        super().__init__()
        self.stem = SamePadded(config.num_channels, config.stem, 3, 2)
        self.stem_norm = nn.BatchNorm2d(config.stem, EPSILON)
        blocks: list[Block] = []
        inputs = config.stem
        for repeats, kernel, stride, expansion, outputs in config.stages:
            for number in range(repeats):
                blocks.append(Block(inputs, outputs, kernel, 1 if number else stride, expansion))
                inputs = outputs
        self.blocks = nn.ModuleList(blocks)
        self.top = nn.Linear(inputs, config.top, bias=False)
        self.top_norm = nn.BatchNorm2d(config.top, EPSILON)

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Return the mean features of each image, (images, top)."""
        x = pixel_values.contiguous(memory_format=torch.channels_last)
        x = F.relu6(self.stem_norm(self.stem(x)))
        for block in self.blocks:
            x = block(x)
        return F.relu6(self.top_norm(_per_pixel(self.top, x))).mean((2, 3))


class EfficientNetLiteForImageClassification(PreTrainedModel):
    """EfficientNet-Lite with a classifier, as transformers' models are called and saved."""

    config_class = EfficientNetLiteConfig
    base_model_prefix = "efficientnet"
    main_input_name = "pixel_values"

    def __init__(self, config: EfficientNetLiteConfig) -> None:
        super().__init__(config)  # pyright: ignore[reportUnknownMemberType]
        self.efficientnet = Trunk(config)
        self.classifier = nn.Linear(config.top, cast("int", config.num_labels))
        self.post_init()

    def forward(self, pixel_values: Tensor, labels: Tensor | None = None) -> ImageClassifierOutput:
        """Return the logits of images.

        Args:
            pixel_values: (images, 3, height, width).
            labels: (images,) class of each, for the mean cross-entropy.
        """
        logits = self.classifier(self.efficientnet(pixel_values))
        loss = None if labels is None else F.cross_entropy(logits, labels)
        return ImageClassifierOutput(loss=cast("Any", loss), logits=logits)


cast("Any", AutoConfig).register(MODEL_TYPE, EfficientNetLiteConfig)
cast("Any", AutoModelForImageClassification).register(
    EfficientNetLiteConfig, EfficientNetLiteForImageClassification
)


class EfficientNetLiteCheckpoint:
    """Lite0 as its package has it: a `Checkpoint` of a file that PyTorch pickled.

    Of the pickle only tensors are read (`weights_only`), so that opening it runs no code.

    Raises:
        ModelError: the file is damaged.
    """

    license = "Apache-2.0"
    chat_template = None

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            stored: Mapping[str, Tensor] = torch.load(
                path / EFFICIENTNET_LITE, map_location="cpu", weights_only=True
            )
            self._values = {
                _name(name): value.flatten(1)
                if value.shape[2:] == (1, 1) and _is_product(name)
                else value
                for name, value in stored.items()
                if not name.endswith("num_batches_tracked")
            }
        except Exception as error:
            # What a damaged pickle raises is of any type.
            raise ModelError(
                f"{path / EFFICIENTNET_LITE} is damaged: {innermost_reason(error)}; fetch it again"
            ) from None
        self.tensors: Mapping[str, TensorInfo] = {
            name: TensorInfo(tuple(value.shape), "F32", value.nbytes)
            for name, value in self._values.items()
        }

    @property
    def config(self) -> EfficientNetLiteConfig:
        """The configuration of Lite0."""
        return EfficientNetLiteConfig(num_labels=CLASSES)

    @property
    def identity(self) -> Mapping[str, Any]:
        """The architecture."""
        return {"model_type": MODEL_TYPE, "stages": [list(stage) for stage in STAGES]}

    def generation_config(self) -> None:
        """Return nothing."""

    def tokenizer(self) -> Any:
        """Refuse to be used for text.

        Raises:
            ModelError: always.
        """
        raise ModelError(f"{self.path} is a model of images: use it by task: image-classification")

    def read_rows(self, name: str, start: int, stop: int) -> Tensor:
        """Return rows of a tensor along its first dimension, float32."""
        return self._values[name][start:stop].float()

    def read_bytes(self, name: str, start: int, count: int) -> bytes:
        """Return bytes of a tensor as stored."""
        flat = self._values[name].contiguous().flatten().view(torch.uint8)
        return flat[start : start + count].numpy().tobytes()

    def close(self) -> None:
        """Let go of the tensors."""
        self._values = {}


_BLOCK = {
    "_expand_conv": "expand",
    "_bn0": "expand_norm",
    "_depthwise_conv": "depthwise",
    "_bn1": "depthwise_norm",
    "_project_conv": "project",
    "_bn2": "project_norm",
}
_OUTSIDE = {
    "_conv_stem": "efficientnet.stem",
    "_bn0": "efficientnet.stem_norm",
    "_conv_head": "efficientnet.top",
    "_bn1": "efficientnet.top_norm",
    "_fc": "classifier",
}


def _is_product(name: str) -> bool:
    return any(part in name for part in ("_expand_conv", "_project_conv", "_conv_head"))


def _name(stored: str) -> str:
    """Return the name here of a tensor of the package."""
    parts = stored.split(".")
    if parts[0] == "_blocks":
        return f"efficientnet.blocks.{parts[1]}.{_BLOCK[parts[2]]}.{parts[3]}"
    return f"{_OUTSIDE[parts[0]]}.{parts[1]}"
