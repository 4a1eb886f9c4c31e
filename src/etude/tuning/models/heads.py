"""Model heads: output layers on a transformer's hidden states, and their construction.

A causal language model has its head in the checkpoint. A classifier's head is new: it is
initialised from the run's seed, trained in full beside the adapter and saved with it (PEFT's
`modules_to_save`). Everything outside a model's trunk (`base_model_prefix`) belongs to its head.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import nn

from etude.core.errors import ModelError


@dataclass(frozen=True)
class Head:
    """The head that a model is built with."""

    kind: str = "causal-lm"
    """`causal-lm`, `sequence-classification`, `token-classification`, `image-classification`, or
    `none` for the trunk alone."""

    labels: tuple[str, ...] = ()
    """Class names, in the order of the outputs."""

    seed: int = 0
    """Seed of the initial values of a new head."""

    problem: str = "single_label_classification"
    """Kind of labels of a sequence classifier, as transformers names it: also
    `multi_label_classification` and `regression`."""

    options: Mapping[str, Any] = field(default_factory=dict[str, Any], hash=False)
    """Further facts by which outputs are read, saved with the head: mean and deviation of numbers,
    thresholds of labels, how a tagger splits words."""

    @property
    def is_new(self) -> bool:
        """Whether the head is not part of the checkpoint."""
        return self.kind.endswith("classification")

    @property
    def sees_images(self) -> bool:
        """Whether the model's input is images, not tokens."""
        return self.kind == "image-classification"

    @property
    def packs_rows(self) -> bool:
        """Whether several samples may share a row, if the model packs (`fusion.packed_heads`)."""
        return not self.sees_images

    @property
    def auto_class(self) -> Any:
        """The transformers class that builds models with this head."""
        import transformers

        names = {
            "causal-lm": "AutoModelForCausalLM",
            "sequence-classification": "AutoModelForSequenceClassification",
            "token-classification": "AutoModelForTokenClassification",
            "image-classification": "AutoModelForImageClassification",
            "none": "AutoModel",
        }
        return getattr(transformers, names[self.kind])

    def configure(self, config: Any, pad_id: int | None = None) -> Any:
        """Return a copy of a model's configuration with this head."""
        configured = copy.deepcopy(config)
        if self.is_new:
            least = 1 if self.problem != "single_label_classification" and self.labels else 2
            outputs = max(least, len(self.labels))
            configured.num_labels = 1 if self.problem == "regression" else outputs
            if self.kind in ("sequence-classification", "image-classification"):
                configured.problem_type = self.problem
            if self.labels:
                configured.id2label = dict(enumerate(self.labels))
                configured.label2id = {label: index for index, label in enumerate(self.labels)}
        # A decoder classifies by the last token that is not padding, so it needs the padding id.
        if self.is_new and pad_id is not None and getattr(configured, "pad_token_id", None) is None:
            configured.pad_token_id = pad_id
        return configured

    def require_supported(self, config: Any, origin: str) -> None:
        """Refuse a model that does not support this head.

        Raises:
            ModelError: the model does not support it.
        """
        from transformers.models.auto import modeling_auto as auto

        causal: Mapping[str, Any] = auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
        classes: list[str] = config.architectures or [
            causal.get(config.model_type, config.model_type)
        ]
        if self.kind == "causal-lm":
            if not set(classes) & set(causal.values()):
                raise ModelError(
                    f"{origin} is a {classes[0]}: only causal language models can be loaded for "
                    "this task"
                )
            return
        mappings: dict[str, tuple[Mapping[str, Any], str]] = {
            "sequence-classification": (
                auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
                "sequence classifier",
            ),
            "token-classification": (
                auto.MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES,
                "token classifier",
            ),
            "image-classification": (
                cast("Any", auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES),
                "image classifier",
            ),
            "none": (auto.MODEL_MAPPING_NAMES, "model"),
        }
        known, name = mappings[self.kind]
        # Ours is none of transformers'.
        own = self.sees_images and config.model_type == "efficientnet-lite"
        if config.model_type not in known and not own:
            raise ModelError(f"{origin} is a {classes[0]}: transformers has no {name} for it")


CAUSAL_LM = Head()


def head_modules(model: Any) -> list[str]:
    """Return the names of the modules outside the trunk: `classifier`, `score`, `lm_head`."""
    trunk = str(getattr(model, "base_model_prefix", ""))
    if not trunk or not hasattr(model, trunk):
        return []
    return [
        name
        for name, module in cast("nn.Module", model).named_children()
        if name != trunk and any(True for _ in module.parameters())
    ]


def new_head_value(model: Any, name: str, shape: tuple[int, ...], seed: int) -> torch.Tensor:
    """Return the initial values of a parameter of a new head, float32.

    Norms are initialised to one, biases to zero, matrices normal with the model's
    `initializer_range`, as in transformers; values depend on the seed and the name only.
    """
    owner, _, leaf = name.rpartition(".")
    module = model.get_submodule(owner)
    if leaf == "bias":
        return torch.zeros(shape)
    if "norm" in type(module).__name__.lower():
        return torch.ones(shape)
    spread = float(getattr(model.config, "initializer_range", 0.02))
    generator = torch.Generator().manual_seed(seed * 1_000_003 + sum(name.encode()))
    return torch.normal(0.0, spread, shape, generator=generator)
