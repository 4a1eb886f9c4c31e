"""Model heads: output layers on a transformer's hidden states, and their construction.

A causal language model has its head in the checkpoint. A classifier's head is new: it is
initialised from the run's seed, trained in full beside the adapter and saved with it (PEFT's
`modules_to_save`). Everything outside a model's trunk (`base_model_prefix`) belongs to its head.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import nn

from etude.core.errors import ModelError


@dataclass(frozen=True)
class Head:
    """The head that a model is built with."""

    kind: str = "causal-lm"
    """`causal-lm` or `sequence-classification`."""

    labels: tuple[str, ...] = ()
    """Class names, in the order of the outputs."""

    seed: int = 0
    """Seed of the initial values of a new head."""

    @property
    def is_new(self) -> bool:
        """Whether the head is not part of the checkpoint."""
        return self.kind != "causal-lm"

    @property
    def packs_rows(self) -> bool:
        """Whether several samples may share a row, if the model packs (`fusion.packed_heads`)."""
        return self.kind in ("causal-lm", "sequence-classification")

    @property
    def auto_class(self) -> Any:
        """The transformers class that builds models with this head."""
        import transformers

        names = {
            "causal-lm": "AutoModelForCausalLM",
            "sequence-classification": "AutoModelForSequenceClassification",
        }
        return getattr(transformers, names[self.kind])

    def configure(self, config: Any, pad_id: int | None = None) -> Any:
        """Return a copy of a model's configuration with this head."""
        configured = copy.deepcopy(config)
        if self.kind == "sequence-classification":
            configured.num_labels = max(2, len(self.labels))
            configured.problem_type = "single_label_classification"
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
        classifiers: Mapping[str, Any] = auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES
        if config.model_type not in classifiers:
            raise ModelError(
                f"{origin} is a {classes[0]}: transformers has no sequence classifier for it"
            )


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
