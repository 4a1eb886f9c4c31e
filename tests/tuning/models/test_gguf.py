from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Kind
from gguf_writing import Vocabulary, byte_level_vocabulary, write_gguf
from hypothesis import given
from hypothesis import strategies as st
from record_llamacpp import PROMPTS, RECORD, TEXTS, byte_level, sentencepiece, tiny_model

from etude.core.errors import ModelError
from etude.tuning.config.sections.model import ModelSpec
from etude.tuning.config.sections.quant import QuantSpec
from etude.tuning.models.gguf_file import GGUFFile, decode
from etude.tuning.models.gguf_model import GGUFCheckpoint
from etude.tuning.models.load import load_model

DENSE = QuantSpec(kind="none")
LLAMA_CPP: dict[str, Any] = json.loads(RECORD.read_text("utf-8"))


def random_model(model_type: str, tokens: int, **options: Any) -> Any:
    """A small model whose norms and biases are not what they are initialised to."""
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    config = AutoConfig.for_model(
        model_type,
        **{
            "vocab_size": tokens,
            "hidden_size": 64,
            "intermediate_size": 96,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 512,
            "initializer_range": 0.08,
            **options,
        },
    )
    model = AutoModelForCausalLM.from_config(config).eval()
    for name, parameter in model.named_parameters():
        if "norm" in name or "bias" in name:
            parameter.data = torch.randn_like(parameter) * 0.3 + ("norm" in name)
    return model


@pytest.fixture(scope="module")
def vocabulary(tiny_tokenizer: Any) -> Vocabulary:
    return byte_level_vocabulary(tiny_tokenizer, "smollm")


@pytest.fixture(scope="module")
def tiny_gguf(tmp_path_factory: pytest.TempPathFactory, vocabulary: Vocabulary) -> Path:
    model = random_model("llama", len(vocabulary.tokens), num_hidden_layers=1)
    return write_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf", model, vocabulary)


def logits_of(path: Path, ids: torch.Tensor) -> torch.Tensor:
    loaded = load_model(ModelSpec(id=str(path), dtype="float32"), DENSE)
    return loaded.model(ids).logits


# The container


@pytest.mark.weights
def test_metadata_and_records_equal_the_gguf_packages_own_reading(smollm2: Path) -> None:
    reader = gguf.GGUFReader(smollm2)
    with GGUFFile(smollm2) as file:
        fields = {key: value for key, value in reader.fields.items() if "." in key}
        fields = {key: value for key, value in fields.items() if not key.startswith("GGUF.")}
        assert file.metadata == {key: field.contents() for key, field in fields.items()}
        assert list(file.tensors) == [tensor.name for tensor in reader.tensors]
        for tensor in reader.tensors[::40]:
            mine = file.tensors[tensor.name]
            assert mine.type == tensor.tensor_type
            assert mine.shape == tuple(int(size) for size in tensor.shape[::-1])
            whole = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
            assert np.array_equal(file.read_rows(mine, 0, mine.shape[0]).numpy(), whole)
            middle = file.read_rows(mine, 7, 20).numpy()
            assert np.array_equal(middle, whole[7:20])


@pytest.mark.parametrize(
    "kind",
    [
        Kind.F32, Kind.F16, Kind.BF16, Kind.Q8_0, Kind.Q4_0, Kind.Q4_1,
        Kind.Q5_0, Kind.Q5_1, Kind.Q4_K, Kind.Q5_K, Kind.Q6_K,
    ],
)  # fmt: skip
def test_every_format_decodes_as_the_gguf_package_does(kind: Kind) -> None:
    _, size = gguf.GGML_QUANT_SIZES[kind]
    # Any bytes are a valid block; some scales are NaN, infinite or subnormal among them.
    raw = np.random.default_rng(0).integers(0, 256, (37, 24 * size), dtype=np.uint8)
    with np.errstate(all="ignore"):
        expected = gguf.quants.dequantize(raw, kind)
        decoded = decode(torch.from_numpy(raw), kind).numpy()

    assert decoded.shape == expected.shape
    assert np.array_equal(decoded, expected, equal_nan=True)


def test_a_format_without_a_decoder_is_named() -> None:
    with pytest.raises(ModelError, match="GGUF format Q8_1 cannot be decoded"):
        decode(torch.zeros(1, 36, dtype=torch.uint8), Kind.Q8_1)


def test_a_file_cut_anywhere_is_refused(tiny_gguf: Path, tmp_path: Path) -> None:
    whole = tiny_gguf.read_bytes()
    cut = tmp_path / "cut.gguf"
    for length in [*range(64), *random.Random(0).sample(range(64, len(whole)), 100)]:
        cut.write_bytes(whole[:length])
        with pytest.raises(ModelError, match=r"cut\.gguf") as error:
            GGUFFile(cut)
        assert "\n" not in str(error.value)


@given(st.data())
def test_a_damaged_header_is_refused_or_read_but_never_crashes(
    tiny_gguf: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    content = bytearray(tiny_gguf.read_bytes())
    with GGUFFile(tiny_gguf) as file:
        end = min(tensor.offset for tensor in file.tensors.values())
    for _ in range(data.draw(st.integers(1, 4))):
        # What matters lies at both ends of the header; the vocabulary fills the middle.
        from_end = data.draw(st.booleans())
        place = data.draw(st.integers(0, 900))
        content[end - 1 - place if from_end else place] = data.draw(st.integers(0, 255))
    damaged = tmp_path_factory.getbasetemp() / "damaged.gguf"
    damaged.write_bytes(content)
    try:
        checkpoint = GGUFCheckpoint(damaged)
        _ = checkpoint.config
        checkpoint.tokenizer()
    except ModelError as error:
        assert "damaged.gguf" in str(error)


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(b"PK\x03\x04" + bytes(1000))
    with pytest.raises(ModelError, match="is not a GGUF file"):
        GGUFFile(path)


# Configuration, names, order of rows


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("kind", [Kind.F32, Kind.F16, Kind.BF16, Kind.Q8_0, Kind.Q4_1])
@pytest.mark.parametrize("model_type", ["llama", "qwen2"])
def test_logits_equal_those_of_transformers_own_gguf_loader(
    vocabulary: Vocabulary, tmp_path: Path, model_type: str, kind: Kind, tied: bool
) -> None:
    from transformers import AutoModelForCausalLM

    model = random_model(model_type, len(vocabulary.tokens), tie_word_embeddings=tied)
    path = write_gguf(tmp_path / "model.gguf", model, vocabulary, kind)
    theirs = AutoModelForCausalLM.from_pretrained(
        tmp_path, gguf_file="model.gguf", dtype=torch.float32
    )
    ids = torch.randint(0, len(vocabulary.tokens), (2, 24))

    # The same weights through the same operations: bit for bit.
    assert torch.equal(logits_of(path, ids), theirs(ids).logits)


@pytest.mark.parametrize(
    ("model_type", "options"),
    [
        ("llama", {"head_dim": 32, "attention_bias": True, "tie_word_embeddings": True}),
        ("llama", {"num_key_value_heads": 4, "mlp_bias": True}),
        ("qwen2", {"num_key_value_heads": 1}),
        ("qwen3", {"head_dim": 32}),
        ("qwen3", {"head_dim": 16, "tie_word_embeddings": True}),
    ],
)
def test_a_float32_file_gives_back_the_model_it_was_written_from(
    vocabulary: Vocabulary, tmp_path: Path, model_type: str, options: dict[str, Any]
) -> None:
    model = random_model(model_type, len(vocabulary.tokens), **options)
    path = write_gguf(tmp_path / "model.gguf", model, vocabulary)
    ids = torch.randint(0, len(vocabulary.tokens), (2, 24))

    assert torch.equal(logits_of(path, ids), model(ids).logits)


FURTHER = {
    "gemma3_text": {
        "head_dim": 32,
        "num_hidden_layers": 7,
        "sliding_window": 8,
        "query_pre_attn_scalar": 32,
        "tie_word_embeddings": True,
    },
    "phi3": {"pad_token_id": 0, "sliding_window": 12},
    "lfm2": {
        "layer_types": ["conv", "full_attention"],
        "block_ff_dim": 96,
        "block_auto_adjust_ff_dim": False,
        "tie_word_embeddings": True,
    },
}


@pytest.mark.parametrize("model_type", FURTHER)
def test_further_families_give_back_the_model_they_were_written_from(
    vocabulary: Vocabulary, tmp_path: Path, model_type: str
) -> None:
    from transformers import AutoModelForCausalLM

    model = random_model(model_type, len(vocabulary.tokens), **FURTHER[model_type])
    path = write_gguf(tmp_path / "model.gguf", model, vocabulary)
    ours = load_model(ModelSpec(id=str(path), dtype="float32"), DENSE).model
    theirs = AutoModelForCausalLM.from_pretrained(
        tmp_path, gguf_file="model.gguf", dtype=torch.float32
    )
    loaded = dict(theirs.named_parameters())
    for name, value in ours.named_parameters():
        assert torch.equal(value, loaded[name]), name
    ids = torch.randint(0, len(vocabulary.tokens), (2, 24))
    # Gemma's norms are stored with 1 added, which float32 rounds.
    torch.testing.assert_close(ours(ids).logits, model(ids).logits, rtol=1e-5, atol=1e-5)


def test_a_further_family_stays_in_its_blocks(vocabulary: Vocabulary, tmp_path: Path) -> None:
    model = random_model("lfm2", len(vocabulary.tokens), **FURTHER["lfm2"])
    path = write_gguf(tmp_path / "model.gguf", model, vocabulary, Kind.Q8_0)
    native = load_model(ModelSpec(id=str(path), dtype="float32"), QuantSpec(kind="native")).model
    assert type(native.model.layers[0].conv.in_proj).__name__ == "GGUFLinear"
    ids = torch.randint(0, len(vocabulary.tokens), (2, 24))
    # The same decoded weights; sums in another order.
    torch.testing.assert_close(native(ids).logits, logits_of(path, ids), rtol=1e-5, atol=1e-5)


def test_llama_3s_rope_scaling_is_recovered_from_its_factors(
    vocabulary: Vocabulary, tmp_path: Path
) -> None:
    scaling = {
        "rope_type": "llama3",
        "rope_theta": 500000.0,
        "factor": 32.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    options = {"head_dim": 64, "num_hidden_layers": 1}
    model = random_model("llama", len(vocabulary.tokens), rope_parameters=scaling, **options)
    plain = 500000.0 ** -(np.arange(0, 64, 2) / 64)
    factors = plain / model.model.rotary_emb.inv_freq.double().numpy()
    path = write_gguf(tmp_path / "a.gguf", model, vocabulary, rope_factors=factors)

    assert GGUFCheckpoint(path).config.rope_parameters == scaling

    path = write_gguf(tmp_path / "b.gguf", model, vocabulary, rope_factors=factors[::-1].copy())
    with pytest.raises(ModelError, match="factors other than Llama 3's"):
        _ = GGUFCheckpoint(path).config


def rewrite(path: Path, old: bytes, new: bytes) -> Path:
    """Replace a metadata string by one of the same length."""
    assert len(old) == len(new)
    content = path.read_bytes()
    assert old in content
    changed = path.with_name("changed.gguf")
    changed.write_bytes(content.replace(old, new, 1))
    return changed


def test_an_unsupported_architecture_is_named_with_the_supported_ones(tiny_gguf: Path) -> None:
    changed = rewrite(tiny_gguf, b"\x05\0\0\0\0\0\0\0llama", b"\x05\0\0\0\0\0\0\0gemma")
    with pytest.raises(ModelError, match="'gemma' model; GGUF files of llama, qwen2, qwen3, "):
        GGUFCheckpoint(changed)


def test_a_tensor_that_no_such_model_has_is_named(tiny_gguf: Path) -> None:
    changed = rewrite(tiny_gguf, b"blk.0.ffn_up.weight", b"blk.0.ffn_xx.weight")
    with pytest.raises(ModelError, match=r"has a tensor 'blk\.0\.ffn_xx\.weight'"):
        GGUFCheckpoint(changed)


def test_a_missing_tensor_is_named(tiny_gguf: Path) -> None:
    changed = rewrite(tiny_gguf, b"blk.0.ffn_up.weight", b"blk.7.ffn_up.weight")
    with pytest.raises(ModelError, match=r"lacks tensor model\.layers\.0\.mlp\.up_proj\.weight"):
        load_model(ModelSpec(id=str(changed)), DENSE)


def test_missing_metadata_is_named(tiny_gguf: Path) -> None:
    changed = rewrite(tiny_gguf, b"llama.block_count", b"llama.clock_bount")
    with pytest.raises(ModelError, match=r"no llama\.block_count"):
        _ = GGUFCheckpoint(changed).config


# Tokenizers


@pytest.mark.parametrize("rule", ["gpt-2", "smollm", "llama-bpe", "qwen2", "llama"])
def test_token_ids_equal_llama_cpps(tmp_path: Path, rule: str) -> None:
    if rule == "llama":
        words = sentencepiece([tuple(piece) for piece in LLAMA_CPP["pieces"]])
    else:
        words = byte_level(rule, LLAMA_CPP["merges"])
    path = write_gguf(tmp_path / "model.gguf", tiny_model(len(words.tokens)), words)
    tokenizer = GGUFCheckpoint(path).tokenizer()
    ids = [tokenizer(text)["input_ids"] for text in TEXTS]

    assert ids == LLAMA_CPP["ids"][rule]
    # The rules do differ on these texts, so a mix-up would have been seen.
    assert all(ids != other for name, other in LLAMA_CPP["ids"].items() if name != rule)
    if rule != "llama":
        assert [tokenizer.decode(row) for row in ids] == TEXTS


@pytest.mark.weights
def test_smollm2s_token_ids_equal_llama_cpps(smollm2: Path) -> None:
    tokenizer = GGUFCheckpoint(smollm2).tokenizer()

    assert [tokenizer(text)["input_ids"] for text in TEXTS] == LLAMA_CPP["ids"]["smollm2-135m"]


@pytest.mark.weights
def test_smollm2_expects_the_next_tokens_that_llama_cpp_expects(smollm2: Path) -> None:
    loaded = load_model(ModelSpec(id=str(smollm2), dtype="float32"), DENSE)
    for prompt, expected in zip(PROMPTS, LLAMA_CPP["next_tokens"], strict=True):
        ids = loaded.tokenizer(prompt, return_tensors="pt")["input_ids"]
        log_probabilities = loaded.model(ids).logits[0, -1].log_softmax(-1)
        for token, log_probability in expected[:5]:
            # llama.cpp rounds activations to 8 bits, which over 30 layers moves a log-probability
            # by some hundredths up to 0.15; swapping any two tensors moves it by units.
            assert abs(float(log_probabilities[token]) - log_probability) < 0.25


@pytest.mark.weights
def test_smollm2_begins_and_ends_as_its_file_says(smollm2: Path) -> None:
    checkpoint = GGUFCheckpoint(smollm2)
    tokenizer = checkpoint.tokenizer()
    conversation = [{"role": "user", "content": "Hi"}]

    # No start token: add_bos_token is false.
    assert tokenizer.convert_ids_to_tokens(tokenizer("Hi")["input_ids"]) == ["Hi"]
    assert tokenizer.eos_token == tokenizer.pad_token == "<|im_end|>"
    assert tokenizer.bos_token == "<|im_start|>"
    assert tokenizer.model_max_length == checkpoint.config.max_position_embeddings == 8192
    assert checkpoint.generation_config().eos_token_id == tokenizer.eos_token_id == 2
    text = tokenizer.apply_chat_template(conversation, tokenize=False, add_generation_prompt=True)
    assert text.endswith("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n")
    assert text.startswith("<|im_start|>system\nYou are a helpful AI assistant named SmolLM")


@pytest.mark.parametrize("rule", ["smollm", "llama-bpe", "llama"])
def test_a_tokenizer_written_to_a_folder_reads_back_the_same(tmp_path: Path, rule: str) -> None:
    from transformers import AutoTokenizer

    if rule == "llama":
        words = sentencepiece([tuple(piece) for piece in LLAMA_CPP["pieces"]])
    else:
        words = byte_level(rule, LLAMA_CPP["merges"], {"tokenizer.ggml.add_bos_token": True})
    path = write_gguf(tmp_path / "model.gguf", tiny_model(len(words.tokens)), words)
    checkpoint = GGUFCheckpoint(path)
    tokenizer = checkpoint.tokenizer()
    checkpoint.config.save_pretrained(tmp_path / "folder")
    tokenizer.save_pretrained(tmp_path / "folder")
    again = AutoTokenizer.from_pretrained(tmp_path / "folder")

    ids = [tokenizer(text)["input_ids"] for text in TEXTS]
    assert all(row[0] == tokenizer.bos_token_id for row in ids)
    assert [again(text)["input_ids"] for text in TEXTS] == ids


def test_an_unknown_splitting_rule_is_refused(tiny_gguf: Path) -> None:
    changed = rewrite(tiny_gguf, b"\x06\0\0\0\0\0\0\0smollm", b"\x06\0\0\0\0\0\0\0falcon")
    with pytest.raises(ModelError, match="unknown pre-tokenizer 'falcon'"):
        GGUFCheckpoint(changed).tokenizer()


@pytest.fixture
def written(tmp_path: Path, vocabulary: Vocabulary) -> Callable[..., Path]:
    def write(**extra: Any) -> Path:
        model = random_model("llama", len(vocabulary.tokens), num_hidden_layers=1)
        words = Vocabulary(**{**vars(vocabulary), "extra": {**vocabulary.extra, **extra}})
        return write_gguf(tmp_path / "model.gguf", model, words)

    return write


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("split.count", 3, "one of 3 parts"),
        ("llama.expert_count", 8, "mixture of experts"),
        ("llama.rope.scaling.type", "yarn", "scales RoPE by 'yarn'"),
        ("llama.rope.dimension_count", 8, "llama.rope.dimension_count 8"),
    ],
)
def test_what_is_not_understood_is_refused_not_guessed(
    written: Callable[..., Path], key: str, value: Any, message: str
) -> None:
    path = written(**{key: value})
    with pytest.raises(ModelError, match=message):
        _ = GGUFCheckpoint(path).config
