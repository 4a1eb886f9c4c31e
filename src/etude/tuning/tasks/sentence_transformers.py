"""Files beside an adapter or model by which sentence-transformers opens it."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from etude.core.atomic_files import replace_file, to_json
from etude.tuning.models.load import LoadedModel

_PREFIX = "sentence_transformers.models"
_TRANSFORMER = {"idx": 0, "name": "0", "path": "", "type": f"{_PREFIX}.Transformer"}


def write_embedder(folder: Path, loaded: LoadedModel, max_length: int) -> None:
    """Write the files by which `SentenceTransformer(folder)` knows pooling and normalisation."""
    modules = [
        _TRANSFORMER,
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": f"{_PREFIX}.Pooling"},
        {"idx": 2, "name": "2", "path": "2_Normalize", "type": f"{_PREFIX}.Normalize"},
    ]
    width = int(loaded.model.config.hidden_size)
    contents: dict[str, Any] = {
        "modules.json": modules,
        "sentence_bert_config.json": {"max_seq_length": max_length, "do_lower_case": False},
        "1_Pooling/config.json": {
            "word_embedding_dimension": width,
            "pooling_mode_mean_tokens": True,
        },
        "2_Normalize/config.json": {},
    }
    _write(folder, contents)
    loaded.tokenizer.save_pretrained(folder)


def write_cross_encoder(folder: Path, loaded: LoadedModel, max_length: int) -> None:
    """Write the files by which `CrossEncoder(folder)` knows head, activation and length."""
    contents: dict[str, Any] = {
        "modules.json": [_TRANSFORMER],
        "sentence_bert_config.json": {"transformer_task": "sequence-classification"},
        "config_sentence_transformers.json": {
            "model_type": "CrossEncoder",
            "activation_fn": "torch.nn.modules.activation.Sigmoid",
        },
    }
    _write(folder, contents)
    tokenizer = copy.deepcopy(loaded.tokenizer)
    # A cross-encoder takes its length from here.
    tokenizer.model_max_length = max_length
    tokenizer.save_pretrained(folder)


def _write(folder: Path, contents: Mapping[str, Any]) -> None:
    for name, content in contents.items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        text = to_json(content, indent=2)
        replace_file(target, lambda file, text=text: file.write_text(text, "utf-8"))
