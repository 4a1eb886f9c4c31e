"""`model`: the base model."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from etude.tuning.config.sections.base import Section


class ModelSpec(Section):
    """The base model."""

    id: str = "smollm2-135m"
    """An alias (`etude models list`), a hub id, a folder, or a `.gguf` file."""

    dtype: Literal["auto", "bfloat16", "float32"] = "auto"
    """Dtype of the forward pass. `auto`: bfloat16 if the device supports it natively."""

    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d+)?|mps)$")] = "auto"
    """`cpu`, `cuda`, `cuda:1`, ... `auto`: a working CUDA GPU for which the Triton kernels can be
    compiled, else `cpu`. `mps` is not supported by quantised bases and fused kernels."""

    keep_layers: Annotated[int, Field(ge=1)] | list[Annotated[int, Field(ge=0)]] | None = None
    """Layers of the base that stay, all others are left out: a number keeps the first so many,
    `[0, 2, 4]` those with these numbers, from 0. Such a model is worse at first and wants training:
    docs/distillation.md."""

    add_tokens: list[str] | str = []
    """Tokens added to the vocabulary, `["<tool>", "</tool>"]`, or a text file with one on each
    line. Their rows of the embedding and of the output matrix are trained and saved with the
    adapter, all other rows stay as they are. A token that the vocabulary has is not added."""

    add_special_tokens: list[str] | str = []
    """Likewise, of control tokens, which decoded text leaves out: `["<|im_start|>",
    "<|im_end|>"]`."""

    @property
    def adds_tokens(self) -> bool:
        """Whether tokens are to be added."""
        return bool(self.add_tokens or self.add_special_tokens)

    @model_validator(mode="after")
    def _layers(self) -> Self:
        kept = self.keep_layers
        if isinstance(kept, list) and (not kept or kept != sorted(set(kept))):
            raise ValueError(
                f"model.keep_layers: {kept} must name layers once each, in rising order"
            )
        return self

    @model_validator(mode="after")
    def _tokens(self) -> Self:
        named: set[str] = set()
        for key in ("add_tokens", "add_special_tokens"):
            value: list[str] | str = getattr(self, key)
            for token in value if isinstance(value, list) else ():
                if not token.strip():
                    raise ValueError(f"model.{key}: {token!r} is no token; name some letters")
                if token in named:
                    raise ValueError(f"model.{key}: {token!r} is named twice")
                named.add(token)
        return self
