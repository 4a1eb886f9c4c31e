"""GGUF tokenizers: construction of a transformers tokenizer from a GGUF vocabulary.

Two families cover the supported models. Byte-level BPE (`gpt2` in GGUF) first splits text by rules
that GGUF only names (`tokenizer.ggml.pre`). A wrong rule yields valid ids in unusual combinations,
for example `2024` as one token instead of four: nothing fails, but the model performs worse. So an
unknown name is refused. SentencePiece BPE (`llama` in GGUF) has no such rules, and scores instead
of merges.

The ids are tested against llama.cpp's (tests/tuning/models).
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import Any, cast

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from etude.core.errors import ModelError, innermost_reason


class TokenType(IntEnum):
    """`tokenizer.ggml.token_type`."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


# Contractions in any case, words with one leading sign, numbers, signs, line ends, spaces. The two
# families differ in the digits that stay together.
_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_LLAMA3 = _WORDS + r"\p{N}{1,3}" + _REST
_QWEN2 = _WORDS + r"\p{N}" + _REST


def _split_by(pattern: str) -> Any:
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


def _gpt2() -> Any:
    # The rules of GPT-2 are the byte-level pre-tokenizer's own.
    return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)


def _single_digits() -> Any:
    return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), _gpt2()])


_PRE_TOKENIZERS = {
    "gpt-2": _gpt2,
    "smollm": _single_digits,
    "starcoder": _single_digits,
    "llama-bpe": lambda: _split_by(_LLAMA3),
    "llama3": lambda: _split_by(_LLAMA3),
    "llama-v3": lambda: _split_by(_LLAMA3),
    "qwen2": lambda: _split_by(_QWEN2),
    "deepseek-r1-qwen": lambda: _split_by(_QWEN2),
}

# Llama 3 encodes a word in the vocabulary as one token, even if no merges produce it.
_WHOLE_WORDS_FIRST = frozenset({"llama-bpe", "llama3", "llama-v3"})


def build_tokenizer(metadata: Mapping[str, Any], context: int, origin: str) -> Any:
    """Build the transformers tokenizer that `metadata` describes.

    Args:
        metadata: a GGUF file's key-value metadata.
        context: maximum sequence length in tokens.
        origin: the file, for messages.

    Raises:
        ModelError: the vocabulary is missing or of an unsupported kind.
    """
    from transformers import PreTrainedTokenizerFast

    kind = metadata.get("tokenizer.ggml.model")
    tokens = cast("list[str] | None", metadata.get("tokenizer.ggml.tokens"))
    if not tokens:
        raise ModelError(f"{origin} has no vocabulary")
    types = cast("list[int]", metadata.get("tokenizer.ggml.token_type", []))
    types = types or [int(TokenType.NORMAL)] * len(tokens)
    vocabulary = {token: index for index, token in enumerate(tokens)}
    if len(vocabulary) != len(tokens) or len(types) != len(tokens):
        raise ModelError(f"{origin} is damaged: its vocabulary has repeated or untyped tokens")
    try:
        if kind == "gpt2":
            backend = _byte_level(metadata, vocabulary, origin)
        elif kind == "llama":
            backend = _sentencepiece(metadata, vocabulary, types, origin)
        else:
            raise ModelError(
                f"{origin} has a tokenizer of kind {kind!r}; gpt2 (byte-level BPE) and llama "
                "(SentencePiece BPE) are supported"
            )
    except ModelError:
        raise
    except Exception as error:
        # The tokenizers package raises bare exceptions for merges that do not fit the vocabulary.
        raise ModelError(f"{origin} is damaged: no tokenizer: {innermost_reason(error)}") from error
    whole = (TokenType.CONTROL, TokenType.USER_DEFINED)
    backend.add_tokens(
        [
            AddedToken(token, special=type_ == TokenType.CONTROL, normalized=False)
            for token, type_ in zip(tokens, types, strict=True)
            if type_ in whole
        ]
    )

    def role(name: str) -> str | None:
        index: Any = metadata.get(f"tokenizer.ggml.{name}_token_id")
        if index is None:
            return None
        if not isinstance(index, int) or not 0 <= index < len(tokens):
            raise ModelError(f"{origin} is damaged: its {name} token is number {index!r}")
        return tokens[index]

    # SentencePiece tokenizers prepend <s> unless the file says otherwise.
    begins = metadata.get("tokenizer.ggml.add_bos_token", kind == "llama")
    return cast("Any", PreTrainedTokenizerFast)(
        tokenizer_object=backend,
        bos_token=role("bos"),
        eos_token=role("eos"),
        unk_token=role("unknown"),
        pad_token=role("padding"),
        add_bos_token=begins,
        add_eos_token=metadata.get("tokenizer.ggml.add_eos_token", False),
        chat_template=metadata.get("tokenizer.chat_template"),
        model_max_length=context,
        clean_up_tokenization_spaces=False,
    )


def _byte_level(metadata: Mapping[str, Any], vocabulary: dict[str, int], origin: str) -> Any:
    """GPT-2's BPE over bytes (Radford et al. 2019, section 2.2)."""
    rule = metadata.get("tokenizer.ggml.pre")
    if rule not in _PRE_TOKENIZERS:
        raise ModelError(
            f"{origin} has an unknown pre-tokenizer {rule!r} (tokenizer.ggml.pre); "
            f"known: {', '.join(_PRE_TOKENIZERS)}"
        )
    merges = cast("list[str]", metadata.get("tokenizer.ggml.merges", []))
    pairs = [cast("tuple[str, str]", tuple(merge.split(" "))) for merge in merges]
    backend: Any = Tokenizer(
        models.BPE(vocab=vocabulary, merges=pairs, ignore_merges=rule in _WHOLE_WORDS_FIRST)
    )
    backend.pre_tokenizer = _PRE_TOKENIZERS[rule]()
    backend.decoder = decoders.ByteLevel()
    return backend


def _sentencepiece(
    metadata: Mapping[str, Any], vocabulary: dict[str, int], types: list[int], origin: str
) -> Any:
    """SentencePiece's BPE (Kudo and Richardson 2018): join the pair whose piece scores highest."""
    scores = cast("list[float] | None", metadata.get("tokenizer.ggml.scores"))
    unknown = cast("int | None", metadata.get("tokenizer.ggml.unknown_token_id"))
    if scores is None or len(scores) != len(vocabulary) or unknown is None:
        raise ModelError(f"{origin} is damaged: its SentencePiece vocabulary has no scores")
    backend: Any = Tokenizer(
        models.BPE(
            vocab=vocabulary,
            merges=_merges_by_score(vocabulary, scores, types),
            unk_token=list(vocabulary)[unknown],
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    prefix = metadata.get("tokenizer.ggml.add_space_prefix", True)
    normal: list[Any] = [normalizers.Prepend("▁")] if prefix else []
    backend.normalizer = normalizers.Sequence([*normal, normalizers.Replace(" ", "▁")])
    steps: list[Any] = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    if prefix:
        steps.append(decoders.Strip(content=" ", left=1))
    backend.decoder = decoders.Sequence(steps)
    return backend


def _merges_by_score(
    vocabulary: Mapping[str, int], scores: list[float], types: list[int]
) -> list[tuple[str, str]]:
    """Return every pair of pieces whose concatenation is a piece, highest score first."""
    pieces = {
        piece: scores[index]
        for piece, index in vocabulary.items()
        if types[index] in (TokenType.NORMAL, TokenType.USER_DEFINED, TokenType.UNUSED)
    }
    pairs = [
        (-score, piece[:cut], piece[cut:])
        for piece, score in pieces.items()
        for cut in range(1, len(piece))
        if piece[:cut] in pieces and piece[cut:] in pieces
    ]
    pairs.sort(key=lambda pair: (pair[0], vocabulary[pair[1]], vocabulary[pair[2]]))
    return [(left, right) for _, left, right in pairs]
