"""Sentence embeddings by all-MiniLM-L6-v2: 384 numbers of norm 1 per paper.

Loaded from the pulled model's files and computed with PyTorch: BERT (Devlin et al. 2019) of six
layers, each `x = norm(x + attention(x)); x = norm(x + mlp(x))` with the exact GELU, then mean
pooling over tokens, scaled to norm 1. A text is truncated to 256 tokens, as by its authors. Needs
about 140 MB of memory.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from etude.core.errors import PapersError
from etude.core.paths import models_folder

if TYPE_CHECKING:
    import numpy as np
    import torch

ALIAS = "minilm"
WIDTH = 384
MOST_TOKENS = 256
_FILES = ("model.safetensors", "tokenizer.json", "config.json")


def pulled() -> Path | None:
    """Return the model's folder, or None if it was not pulled (`etude models pull minilm`)."""
    folder = models_folder() / ALIAS
    # Pulling renames a whole folder into place, so the files are complete or absent.
    return folder if all((folder / name).is_file() for name in _FILES) else None


def fingerprint(folder: Path) -> str:
    """Return eight digits that identify the weights."""
    with (folder / "model.safetensors").open("rb") as file:
        head = file.read(1 << 20)
    return f"{zlib.crc32(head):08x}"


class Embedder:
    """The loaded embedding model."""

    def __init__(self, folder: Path) -> None:
        """Load the files of `folder`; raises `PapersError` if they are not this model's."""
        import safetensors.torch
        from tokenizers import Tokenizer

        try:
            config: dict[str, Any] = json.loads((folder / "config.json").read_text("utf-8"))
            # The type annotation of the library's function is incomplete.
            library: Any = safetensors.torch
            weights: dict[str, torch.Tensor] = library.load_file(folder / "model.safetensors")
            self.tokenizer: Any = Tokenizer.from_file(str(folder / "tokenizer.json"))
            self.layers = int(config["num_hidden_layers"])
            self.heads = int(config["num_attention_heads"])
            self.epsilon = float(config["layer_norm_eps"])
            self.weights = {name.removeprefix("bert."): w.float() for name, w in weights.items()}
            width = self.weights["embeddings.word_embeddings.weight"].shape[1]
        # The tokenizers library raises bare Exceptions for damaged files.
        except Exception as error:
            raise PapersError(
                f"the model in {folder} cannot be read ({error}): delete the folder, then "
                f"etude models pull {ALIAS}"
            ) from error
        if width != WIDTH:
            raise PapersError(f"the model in {folder} gives {width} numbers, not {WIDTH}")
        self.tokenizer.enable_truncation(MOST_TOKENS)
        self.tokenizer.enable_padding()

    def embed(self, texts: Sequence[str], batch: int = 16) -> np.ndarray[Any, Any]:
        """Return one row per text, in order: (texts, 384), float32, each of norm 1."""
        import numpy as np
        import torch

        found = np.zeros((len(texts), WIDTH), np.float32)
        # Batch texts of similar length, since padding tokens cost time, too.
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        with torch.inference_mode():
            for start in range(0, len(order), batch):
                chosen = order[start : start + batch]
                encoded = self.tokenizer.encode_batch([texts[i] for i in chosen])
                ids = torch.tensor([one.ids for one in encoded])
                mask = torch.tensor([one.attention_mask for one in encoded], dtype=torch.bool)
                found[chosen] = self._forward(ids, mask).numpy()
        return found

    def _forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """ids, mask: (texts, tokens); returns (texts, 384)."""
        import torch
        from torch.nn import functional as F

        w = self.weights
        tokens = ids.shape[1]
        x = (
            w["embeddings.word_embeddings.weight"][ids]
            + w["embeddings.position_embeddings.weight"][:tokens]
            + w["embeddings.token_type_embeddings.weight"][0]
        )
        x = self._norm("embeddings.LayerNorm", x)
        size = WIDTH // self.heads
        allowed = mask[:, None, None, :]
        for layer in range(self.layers):
            at = f"encoder.layer.{layer}"

            def split(name: str, x: torch.Tensor = x, at: str = at) -> torch.Tensor:
                y = self._linear(f"{at}.attention.self.{name}", x)
                return y.view(*y.shape[:2], self.heads, size).transpose(1, 2)

            y = F.scaled_dot_product_attention(
                split("query"), split("key"), split("value"), allowed, scale=1 / math.sqrt(size)
            )
            y = y.transpose(1, 2).reshape(x.shape)
            y = self._linear(f"{at}.attention.output.dense", y)
            x = self._norm(f"{at}.attention.output.LayerNorm", x + y)
            y = F.gelu(self._linear(f"{at}.intermediate.dense", x))
            x = self._norm(f"{at}.output.LayerNorm", x + self._linear(f"{at}.output.dense", y))
        kept = mask[..., None].to(x.dtype)
        mean = (x * kept).sum(1) / kept.sum(1)
        return torch.nn.functional.normalize(mean, dim=1)

    def _linear(self, name: str, x: torch.Tensor) -> torch.Tensor:
        from torch.nn import functional as F

        return F.linear(x, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"])

    def _norm(self, name: str, x: torch.Tensor) -> torch.Tensor:
        from torch.nn import functional as F

        weight, bias = self.weights[f"{name}.weight"], self.weights[f"{name}.bias"]
        return F.layer_norm(x, (WIDTH,), weight, bias, self.epsilon)
