"""A small random BERT, and labelled texts that it can learn in a second."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

WORDS = (
    *("good", "bad", "late", "damaged", "rude", "fine", "film", "parcel", "room", "clean"),
    *("red", "green", "blue", "one", "two", "three", "four", "five", "is", "it", "not", "very"),
    *("cat", "dog", "bird", "runs", "sleeps", "sings", ",", "."),
)


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory) -> Path:
    """The folder of a random BERT: two layers of 32, 64 positions, a vocabulary of whole words."""
    import torch
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS]
    vocabulary = {name: index for index, name in enumerate(names)}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    words.normalizer = normalizers.Lowercase()
    words.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    words.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0",
        pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words,
        unk_token="[UNK]",
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )
    config = BertConfig(
        vocab_size=len(names),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=64,
        # Large enough that words visibly differ.
        initializer_range=0.3,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    folder = tmp_path_factory.mktemp("tiny-bert")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = BertModel(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def write_jsonl(tmp_path) -> Callable[..., Path]:
    """Write rows as JSONL: `write_jsonl(rows, name="rows.jsonl")`."""

    def write(rows: Iterable[dict[str, Any]], name: str = "rows.jsonl") -> Path:
        file = tmp_path / name
        file.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
        return file

    return write


@pytest.fixture
def classifier_fields(tiny_bert) -> Callable[..., dict[str, Any]]:
    """Recipe fields of a run that takes about a second; sections are merged."""

    def fields(data: Path, /, **sections: Any) -> dict[str, Any]:
        found: dict[str, Any] = {
            "name": "tiny",
            "task": "text-classification",
            "model": {"id": str(tiny_bert), "dtype": "float32"},
            "adapter": {"rank": 4, "alpha": 8},
            "quant": {"kind": "none"},
            "data": {"train": str(data), "eval_fraction": 0.25, "max_length": 32},
            "train": {
                "epochs": 6,
                "batch_samples": 8,
                "micro_tokens": 256,
                "lr": 2e-2,
                "threads": 1,
            },
        }
        for name, section in sections.items():
            merged = {**found.get(name, {}), **section} if isinstance(section, dict) else section
            found[name] = merged
        return found

    return fields
