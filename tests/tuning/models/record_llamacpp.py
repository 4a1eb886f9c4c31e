"""Record what llama.cpp makes of texts, as `llamacpp.json`, the oracle of the GGUF tests.

Run by hand when texts or rules change, with the model package pulled:

    pip install xllamacpp sentencepiece requests
    python tests/tuning/models/record_llamacpp.py

For each splitting rule a small GGUF file is written and handed to llama.cpp's server, which
tokenises `TEXTS`. The byte-level merges and the SentencePiece pieces are learnt from the same
texts, stored with the ids, so that the tests need neither package. For SmolLM2's own file, the
most likely next tokens after each of `PROMPTS` are recorded too.
"""

from __future__ import annotations

import io
import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gguf_writing import Vocabulary, write_gguf

RECORD = Path(__file__).with_name("llamacpp.json")
RULES = ["gpt-2", "smollm", "llama-bpe", "qwen2"]
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]

TEXTS = [
    "The quick brown fox jumps over the lazy dog.",
    "  two leading spaces, a tab\tinside, trailing spaces   ",
    'def add(a: int, b: int = 42) -> int:\n    """Sum."""\n    return a + b  # 1234567\n',
    "for i in range(10_000):\n\tif i % 3 == 0 and i != 0x1F:\n\t\tprint(f'{i:>8}')\n\n\n",
    "In 2024 the price rose 12.5% to $1,234,567.89 (up from 999).",
    "I'm sure they'll say we've seen IT'S, DON'T and 'twas; O'Brien'd know.",
    "naïve café, Zürich, Ærøskøbing, œuvre, straße, ǅungla, İstanbul",
    "Привет, мир! Как дела? Ёлка",
    "你好，世界。日本語のテキスト、カタカナ。한국어도 있습니다",
    "مرحبا بالعالم ١٢٣ שלום हिन्दी में १२३",
    "👩‍👩‍👧‍👦 🇫🇷 👍🏽 ☕️ 🤖🤖",
    "x² + y³ = ½·π, Ⅷ, ①②③, 10⁻⁹",
    "cafe\u0301 vs caf\u00e9, a\u200bb, non\u00a0breaking, thin\u2009space",
    "line one\r\nline two\r\n\r\n  indented\r\nlast",
    "\n\n\n\n",
    "        eight spaces",
    "https://example.org/a/b?c=d&e=%20f#g user@host.tld C:\\path\\to",
    "!!! ??? ... --- === <<< >>> ((([[[{{{ }}}]]])))",
    "<|im_start|>user\nWhat is 7*8?<|im_end|>\n<|im_start|>assistant\n56<|im_end|>\n",
    "almost <|im_start and |im_end|> and <|im_end |> and<|endoftext|>joined",
    "ALL CAPS AND camelCaseWords and snake_case_words42 v1.2.3-rc4",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa bbbbbbbbbbbbbbbbb 0000000000000",
    "SELECT * FROM t WHERE a='b''c' AND d>=10;-- comment",
    "\u0000\u0001 control \u007f and \ufffd replacement \U0001f9ff",
    "a",
    " ",
    "Ünïcödé 'S 'T 'RE 'll 'M 'D 'VE",
]

PROMPTS = [
    "The capital of France is",
    "def factorial(n):\n    if n == 0:\n        return",
    "<|im_start|>user\nName a colour.<|im_end|>\n<|im_start|>assistant\n",
    "1, 2, 3, 4,",
]


def byte_level(rule: str, merges: list[str], extra: dict[str, Any] | None = None) -> Vocabulary:
    """Return the vocabulary that `merges` imply: specials, bytes, then one token a merge."""
    from tokenizers.pre_tokenizers import ByteLevel

    joined = ["".join(merge.split(" ")) for merge in merges]
    tokens = list(dict.fromkeys([*SPECIAL, *sorted(ByteLevel.alphabet()), *joined]))
    roles = {"bos": 1, "eos": 2, "padding": 2}
    return Vocabulary(
        kind="gpt2",
        tokens=tokens,
        types=[3] * len(SPECIAL) + [1] * (len(tokens) - len(SPECIAL)),
        pre=rule,
        merges=merges,
        extra={
            **{f"tokenizer.ggml.{role}_token_id": index for role, index in roles.items()},
            "tokenizer.ggml.add_bos_token": False,
            **(extra or {}),
        },
    )


def sentencepiece(pieces: list[tuple[str, float, int]]) -> Vocabulary:
    """Return Llama 2's kind of vocabulary: `<unk>`, `<s>`, `</s>`, bytes, pieces with scores."""
    return Vocabulary(
        kind="llama",
        tokens=[piece for piece, _, _ in pieces],
        types=[type_ for _, _, type_ in pieces],
        scores=[score for _, score, _ in pieces],
        extra={
            "tokenizer.ggml.unknown_token_id": 0,
            "tokenizer.ggml.bos_token_id": 1,
            "tokenizer.ggml.eos_token_id": 2,
        },
    )


def tiny_model(vocabulary_size: int) -> Any:
    """Return the smallest Llama that llama.cpp accepts."""
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocabulary_size,
            hidden_size=64,
            intermediate_size=64,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=2,
            max_position_embeddings=512,
        )
    )


def learn_merges() -> list[str]:
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=700,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(TEXTS, trainer)
    return [" ".join(merge) for merge in json.loads(bpe.to_str())["model"]["merges"]]


def learn_pieces() -> list[tuple[str, float, int]]:
    import sentencepiece as spm

    out = io.BytesIO()
    spm.SentencePieceTrainer.train(
        sentence_iterator=iter([line for text in TEXTS for line in text.splitlines() if line]),
        model_writer=out,
        model_type="bpe",
        vocab_size=620,
        byte_fallback=True,
        split_digits=True,
        hard_vocab_limit=False,
        character_coverage=0.98,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        minloglevel=2,
    )
    model: Any = spm.SentencePieceProcessor(model_proto=out.getvalue())
    types = {0: 2, 1: 3, 2: 3}
    return [
        (
            model.id_to_piece(index),
            model.get_score(index),
            6 if model.is_byte(index) else types.get(index, 1),
        )
        for index in range(model.get_piece_size())
    ]


@contextmanager
def llama_cpp(file: Path) -> Iterator[str]:
    """Serve one GGUF file; yields the server's address."""
    import xllamacpp

    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(file)
    parameters.n_ctx = 512
    parameters.cpuparams.n_threads = 2
    parameters.warmup = False
    server = xllamacpp.Server(parameters)
    yield server.listening_address
    del server


def ask(address: str, path: str, **body: Any) -> Any:
    import requests

    answer = requests.post(f"{address}/{path}", json=body, timeout=60)
    answer.raise_for_status()
    return answer.json()


def tokenize(address: str) -> list[list[int]]:
    return [
        ask(address, "tokenize", content=text, add_special=True, parse_special=True)["tokens"]
        for text in TEXTS
    ]


def main() -> None:
    import xllamacpp

    from etude.tuning.models.pull import pull

    merges = learn_merges()
    pieces = learn_pieces()
    (smollm2,) = pull("smollm2-135m").glob("*.gguf")
    vocabularies = {rule: byte_level(rule, merges) for rule in RULES}
    vocabularies["llama"] = sentencepiece(pieces)
    ids: dict[str, list[list[int]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, vocabulary in vocabularies.items():
            model = tiny_model(len(vocabulary.tokens))
            file = write_gguf(Path(folder) / f"{name}.gguf", model, vocabulary)
            with llama_cpp(file) as address:
                ids[name] = tokenize(address)
    with llama_cpp(smollm2) as address:
        ids["smollm2-135m"] = tokenize(address)
        next_tokens = [
            [
                [entry["id"], round(entry["logprob"], 4)]
                for entry in ask(
                    address, "completion", prompt=prompt, n_predict=1, n_probs=10, temperature=-1
                )["completion_probabilities"][0]["top_logprobs"]
            ]
            for prompt in PROMPTS
        ]
    record = {
        "made_with": f"xllamacpp {xllamacpp.__version__}, by record_llamacpp.py",
        "merges": merges,
        "pieces": pieces,
        "ids": ids,
        "next_tokens": next_tokens,
    }
    RECORD.write_text(json.dumps(record, ensure_ascii=True, separators=(",", ":")) + "\n", "utf-8")


if __name__ == "__main__":
    main()
