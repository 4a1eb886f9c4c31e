"""Small random encoders with a head of classes; classifiers of other shapes beside them."""

from __future__ import annotations

import torch
from transformers import (
    AlbertConfig,
    AlbertForSequenceClassification,
    BertConfig,
    BertForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    ElectraConfig,
    ElectraForSequenceClassification,
    FNetConfig,
    FNetForSequenceClassification,
    LlamaConfig,
    LlamaForSequenceClassification,
    RobertaConfig,
    RobertaForSequenceClassification,
    XLMRobertaConfig,
    XLMRobertaForSequenceClassification,
)

from etude.tuning.adapters.inject import add_adapter
from etude.tuning.adapters.multi_adapter import adapter_parameters
from etude.tuning.config.sections.adapter import AdapterSpec
from etude.tuning.config.sections.quant import QuantSpec
from etude.tuning.models.meta_model import quantizable_linears
from etude.tuning.quant.build import quantized

SIZES = {
    "vocab_size": 97,
    "hidden_size": 48,
    "intermediate_size": 100,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "max_position_embeddings": 80,
    "initializer_range": 0.15,
    "num_labels": 3,
}
DISTIL = {
    "vocab_size": 97,
    "dim": 48,
    "hidden_dim": 100,
    "n_layers": 3,
    "n_heads": 2,
    "max_position_embeddings": 80,
    "initializer_range": 0.15,
    "num_labels": 3,
}
ENCODERS = {
    "bert": lambda **more: BertForSequenceClassification(BertConfig(**SIZES, **more)),
    "roberta": lambda **more: RobertaForSequenceClassification(
        RobertaConfig(**SIZES, pad_token_id=1, type_vocab_size=1, **more)
    ),
    "xlm-roberta": lambda **more: XLMRobertaForSequenceClassification(
        XLMRobertaConfig(**SIZES, pad_token_id=1, **more)
    ),
    "electra": lambda **more: ElectraForSequenceClassification(
        ElectraConfig(**SIZES, embedding_size=16, **more)
    ),
    "distilbert": lambda **more: DistilBertForSequenceClassification(
        DistilBertConfig(**DISTIL, **more)
    ),
}
LLAMA = lambda: LlamaForSequenceClassification(  # noqa: E731 - beside its like
    LlamaConfig(**SIZES, num_key_value_heads=1, pad_token_id=0)
)
FNET = lambda: FNetForSequenceClassification(  # noqa: E731 - mixes tokens without attention
    FNetConfig(**{k: v for k, v in SIZES.items() if k != "num_attention_heads"})
)
ALBERT = lambda: AlbertForSequenceClassification(  # noqa: E731 - its pooler takes a token, not rows
    AlbertConfig(**SIZES, embedding_size=16)
)


def classifier(make, seed: int = 0, **more):
    """Return a model in evaluation mode whose norms and biases are not those of a new one."""
    torch.manual_seed(seed)
    model = make(**more).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name.lower() or name.endswith("bias"):
                parameter.add_(0.3 * torch.randn_like(parameter))
    return model


def adapted(
    make,
    spec: AdapterSpec | None = None,
    quant: QuantSpec | None = None,
    seed: int = 0,
    **more,
):
    """Return such a model with an adapter that is not zero."""
    model = classifier(make, seed, **more)
    if quant is not None:
        for name, linear in quantizable_linears(model).items():
            parent, _, last = name.rpartition(".")
            held = quantized(linear.weight.detach(), quant, linear.weight.dtype, linear.bias)
            setattr(model.get_submodule(parent), last, held)
    add_adapter(model, spec or AdapterSpec(rank=4, alpha=8), seed=0)
    with torch.no_grad():
        for parameter in adapter_parameters(model).values():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model
