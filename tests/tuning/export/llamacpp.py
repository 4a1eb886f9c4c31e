"""llama.cpp in this process: the probabilities that it gives every token after a prompt."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch


@contextmanager
def llama_cpp(
    base: Path, adapter: Path | None = None, scale: float = 1.0, *, plain: int
) -> Iterator[Callable[[Sequence[int]], torch.Tensor]]:
    """Load a GGUF file, and a LoRA file beside it.

    Args:
        base: the model's file.
        adapter: the LoRA file.
        scale: what llama.cpp multiplies the adapter by.
        plain: any token that is plain text.

    Yields a function from token ids to the log-probabilities of the token after the last of
    them, float64 (vocabulary,). Keys and values are kept in float32 and attention is the plain
    one, so that the weights' formats are all that is rounded.
    """
    xllamacpp = pytest.importorskip("xllamacpp")
    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(base)
    if adapter is not None:
        parameters.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(str(adapter), scale)]
    parameters.n_ctx = 512
    parameters.n_parallel = 1
    parameters.cpuparams.n_threads = 1
    parameters.cpuparams_batch.n_threads = 1
    parameters.warmup = False
    parameters.verbosity = -1
    parameters.cache_type_k = xllamacpp.ggml_type.GGML_TYPE_F32
    parameters.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    parameters.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    server: Any = xllamacpp.Server(parameters)

    def next_token(ids: Sequence[int]) -> torch.Tensor:
        answer = server.handle_completions(
            {
                "prompt": list(ids),
                "n_predict": 1,
                "n_probs": 1 << 20,  # the whole vocabulary
                "temperature": -1,  # the likeliest; probabilities are those of the logits
                "cache_prompt": False,
                # Choose a token that is text: of end tokens and halves of characters the server
                # reports nothing. The probabilities are those before this choice.
                "logit_bias": [[plain, 1e4]],
            }
        )
        (chosen,) = answer["choices"][0]["logprobs"]["content"]
        pairs = {entry["id"]: entry["logprob"] for entry in chosen["top_logprobs"]}
        assert set(pairs) == set(range(len(pairs)))
        return torch.tensor([pairs[index] for index in range(len(pairs))], dtype=torch.float64)

    try:
        yield next_token
    finally:
        server = None  # which ends it
