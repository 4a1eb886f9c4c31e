"""Adapters in llama.cpp's format, judged by llama.cpp itself."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Kind
from gguf_writing import Vocabulary, write_gguf
from llamacpp import llama_cpp
from record_llamacpp import PROMPTS, RECORD, byte_level

from etude.core.errors import AdapterError, ModelError, RunError
from etude.tuning.adapters.inject import add_adapter
from etude.tuning.adapters.multi_adapter import adapter_disabled, adapter_parameters
from etude.tuning.adapters.save import load_adapter, save_adapter
from etude.tuning.config.sections.adapter import AdapterSpec
from etude.tuning.config.sections.model import ModelSpec
from etude.tuning.config.sections.quant import QuantSpec
from etude.tuning.export.gguf_lora import export_gguf_lora
from etude.tuning.kernels.gguf import FORMATS
from etude.tuning.models.load import LoadedModel, ModelOrigin, load_model
from etude.tuning.quant.gguf import GGUFLinear

pytestmark = pytest.mark.integration

SHAPE = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "initializer_range": 0.08,
}


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    return byte_level("smollm", json.loads(RECORD.read_text("utf-8"))["merges"])


def small_model(model_type: str, vocabulary: Vocabulary, **options: Any) -> Any:
    from transformers import AutoConfig, AutoModelForCausalLM

    fields = {**SHAPE, "vocab_size": len(vocabulary.tokens), **options}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **fields)).eval()


def load(model: Path | str, quant: str = "none") -> LoadedModel:
    return load_model(
        ModelSpec(id=str(model), dtype="float32"), QuantSpec.model_validate({"kind": quant})
    )


def adapted(
    model: Path | str, folder: Path, strength: float, quant: str = "none", **spec: Any
) -> LoadedModel:
    """Load a model with an adapter, saved in `folder`; the factor that starts as 0 is random."""
    loaded = load(model, quant)
    adapter = AdapterSpec.model_validate({"rank": 4, "alpha": 8, **spec})
    add_adapter(loaded.model, adapter, seed=0)
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for factor in adapter_parameters(loaded.model).values():
            if not factor.any():
                factor.normal_(0, strength, generator=draw)
    save_adapter(loaded.model, folder, adapter, loaded.origin)
    return loaded


def log_probabilities(model: Any, ids: Sequence[int]) -> torch.Tensor:
    with torch.no_grad():
        return model(torch.tensor([list(ids)])).logits[0, -1].double().log_softmax(-1)


def root_mean_square(x: torch.Tensor) -> float:
    return float(x.pow(2).mean().sqrt())


def token_rows(vocabulary: Vocabulary, count: int = 3, length: int = 24) -> list[list[int]]:
    draw = torch.Generator().manual_seed(2)
    return torch.randint(3, len(vocabulary.tokens), (count, length), generator=draw).tolist()


def plain_token(loaded: LoadedModel) -> int:
    return loaded.tokenizer.convert_tokens_to_ids("e")


def compare(
    loaded: LoadedModel, base: Path, lora: Path, rows: list[list[int]], scale: float = 1.0
) -> dict[str, float]:
    """Compare llama.cpp and this library: root mean squares over all rows and tokens.

    `base`: difference of the two without the adapter. `adapter`: with it. `effect`: what the
    adapter changes, by this library. `spread`: of the log-probabilities of one row.
    """
    plain = plain_token(loaded)
    ours = torch.stack([log_probabilities(loaded.model, ids) for ids in rows])
    with adapter_disabled(loaded.model):
        ours_base = torch.stack([log_probabilities(loaded.model, ids) for ids in rows])
    with llama_cpp(base, plain=plain) as next_token:
        theirs_base = torch.stack([next_token(ids) for ids in rows])
    with llama_cpp(base, lora, scale, plain=plain) as next_token:
        theirs = torch.stack([next_token(ids) for ids in rows])
    return {
        "base": root_mean_square(theirs_base - ours_base),
        "adapter": root_mean_square(theirs - ours),
        "effect": root_mean_square(ours - ours_base),
        "spread": float(ours.std(1).mean()),
    }


def write_decoded(path: Path, decoded: Path) -> Path:
    """Write a GGUF file again with every tensor in float32, decoded by the gguf package."""
    reader = gguf.GGUFReader(path)
    fields = {key: field for key, field in reader.fields.items() if "." in key}
    architecture = fields.pop("general.architecture").contents()
    writer = gguf.GGUFWriter(decoded, architecture)
    for key, field in fields.items():
        if not key.startswith(("GGUF.", "general.quantization", "general.file_type")):
            inner = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(key, field.contents(), field.types[0], inner)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, gguf.quants.dequantize(tensor.data, tensor.tensor_type))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return decoded


@pytest.mark.parametrize(
    ("model_type", "options"),
    [
        ("llama", {}),
        ("llama", {"head_dim": 32, "num_key_value_heads": 4, "tie_word_embeddings": True}),
        ("qwen2", {}),
        ("qwen3", {"head_dim": 32}),
    ],
)
def test_llama_cpp_computes_what_was_trained(
    vocabulary: Vocabulary, tmp_path: Path, model_type: str, options: dict[str, Any]
) -> None:
    model = small_model(model_type, vocabulary, **options)
    base = write_gguf(tmp_path / "base.gguf", model, vocabulary)
    loaded = adapted(base, tmp_path / "adapter", strength=0.3)
    report = export_gguf_lora(tmp_path / "adapter", tmp_path / "lora.gguf")
    found = compare(loaded, base, report.file, token_rows(vocabulary))

    assert (report.modules, report.alpha, report.rescaled) == (14, 8.0, 0)
    assert report.trained_on_base
    # Everything is float32 on both sides: what differs is the order of the sums.
    assert found["base"] < 1e-5
    assert found["adapter"] < 1e-5 * max(1.0, found["effect"])
    assert found["effect"] > 0.3
    # The comparison does see a scale that is one hundredth off.
    off = compare(loaded, base, report.file, token_rows(vocabulary, 1), scale=1.01)
    assert off["adapter"] > 100 * found["adapter"]


def test_a_head_of_its_own_is_adapted_too(vocabulary: Vocabulary, tmp_path: Path) -> None:
    model = small_model("llama", vocabulary, tie_word_embeddings=False)
    base = write_gguf(tmp_path / "base.gguf", model, vocabulary)
    loaded = adapted(base, tmp_path / "adapter", strength=0.3, target_modules=["lm_head", "k_proj"])
    export_gguf_lora(tmp_path / "adapter", tmp_path / "lora.gguf")
    found = compare(loaded, base, tmp_path / "lora.gguf", token_rows(vocabulary))

    assert found["adapter"] < 1e-5 < 0.3 < found["effect"]


def test_an_embedding_is_adapted_where_the_head_is_not_the_same_tensor(
    vocabulary: Vocabulary, tmp_path: Path
) -> None:
    model = small_model("llama", vocabulary, tie_word_embeddings=False)
    base = write_gguf(tmp_path / "base.gguf", model, vocabulary)
    loaded = adapted(base, tmp_path / "adapter", strength=0.3, target_modules=["embed_tokens"])
    export_gguf_lora(tmp_path / "adapter", tmp_path / "lora.gguf")
    found = compare(loaded, base, tmp_path / "lora.gguf", token_rows(vocabulary))
    assert found["adapter"] < 1e-5 < 0.3 < found["effect"]

    model = small_model("llama", vocabulary, tie_word_embeddings=True)
    base = write_gguf(tmp_path / "tied.gguf", model, vocabulary)
    for target in ("embed_tokens", "lm_head"):
        adapted(base, tmp_path / target, strength=0.3, target_modules=[target])
        with pytest.raises(AdapterError, match=f"adapts .*{target}, which llama.cpp has no weight"):
            export_gguf_lora(tmp_path / target, tmp_path / "tied-lora.gguf")


@pytest.mark.parametrize("kind", FORMATS)
def test_every_block_format_is_decoded_and_adapted_as_llama_cpp_does(
    vocabulary: Vocabulary, tmp_path: Path, kind: str
) -> None:
    wide = {"hidden_size": 256, "intermediate_size": 512, "initializer_range": 0.05}
    model = small_model("llama", vocabulary, **wide)
    base = write_gguf(tmp_path / "base.gguf", model, vocabulary, Kind[kind])
    loaded = adapted(base, tmp_path / "adapter", strength=0.3, quant="native")
    assert any(isinstance(m, GGUFLinear) and m.format == kind for m in loaded.model.modules())
    export_gguf_lora(tmp_path / "adapter", tmp_path / "lora.gguf")
    found = compare(loaded, base, tmp_path / "lora.gguf", token_rows(vocabulary))

    # llama.cpp multiplies blocks with activations rounded to 8 bits, 32 or 256 of them sharing a
    # scale: an error of (largest / 127) / √12, and of normal numbers the largest is 2.2 or 2.8
    # times the typical one. So each product is off by 0.5 or 0.64 %, and a token that went
    # through 15 of them by √15 times that, 2 or 2.5 %. Twice as much is allowed for.
    assert found["base"] < 0.05 * found["spread"]
    assert found["adapter"] < 0.05 * found["spread"]
    assert found["effect"] > 10 * found["adapter"]

    # The same weights, decoded by the gguf package, are multiplied in float32: no such error.
    decoded = write_decoded(base, tmp_path / "decoded.gguf")
    exact = compare(loaded, decoded, tmp_path / "lora.gguf", token_rows(vocabulary))
    assert max(exact["base"], exact["adapter"]) < 1e-5


def test_float16_factors_cost_their_rounding_only(vocabulary: Vocabulary, tmp_path: Path) -> None:
    base = write_gguf(tmp_path / "base.gguf", small_model("llama", vocabulary), vocabulary)
    loaded = adapted(base, tmp_path / "adapter", strength=0.3)
    export_gguf_lora(tmp_path / "adapter", tmp_path / "lora.gguf", number="f16")
    found = compare(loaded, base, tmp_path / "lora.gguf", token_rows(vocabulary))

    tensors = gguf.GGUFReader(tmp_path / "lora.gguf").tensors
    assert {tensor.tensor_type for tensor in tensors} == {Kind.F16}
    # 11 bits: each factor is off by up to 2⁻¹¹ of itself, and so are llama.cpp's activations.
    assert 1e-5 < found["adapter"] < 2**-9 * found["effect"]


def test_an_adapter_trained_on_a_folder_goes_beside_the_gguf_file_made_of_it(
    vocabulary: Vocabulary, tmp_path: Path, tiny_tokenizer: Any
) -> None:
    model = small_model("llama", vocabulary)
    model.save_pretrained(tmp_path / "folder")
    tiny_tokenizer.save_pretrained(tmp_path / "folder")
    base = write_gguf(tmp_path / "base.gguf", model, vocabulary)
    loaded = adapted(tmp_path / "folder", tmp_path / "adapter", strength=0.3)
    by_folder = export_gguf_lora(tmp_path / "adapter", tmp_path / "a.gguf")
    by_file = export_gguf_lora(tmp_path / "adapter", tmp_path / "b.gguf", model=str(base))

    assert (by_folder.trained_on_base, by_file.trained_on_base) == (True, False)
    found = compare(loaded, base, by_folder.file, token_rows(vocabulary))
    assert found["adapter"] < 1e-5 < 0.3 < found["effect"]
    for one, other in zip(
        gguf.GGUFReader(by_folder.file).tensors, gguf.GGUFReader(by_file.file).tensors, strict=True
    ):
        assert one.name == other.name
        assert np.array_equal(one.data, other.data)


def test_what_peft_saved_with_a_scale_for_each_module_is_kept(
    vocabulary: Vocabulary, tmp_path: Path
) -> None:
    from peft import LoraConfig, get_peft_model

    model = small_model("llama", vocabulary)
    base = write_gguf(tmp_path / "base.gguf", model, vocabulary)
    config = LoraConfig(
        r=4,
        lora_alpha=6,
        use_rslora=True,
        target_modules=["q_proj", "o_proj", "v_proj", "down_proj"],
        rank_pattern={"v_proj": 2},
        alpha_pattern={"down_proj": 9},
        init_lora_weights=False,
    )
    wrapped = get_peft_model(model, config).eval()
    for name, parameter in wrapped.named_parameters():
        if "lora_B" in name:
            parameter.data.mul_(20)
    wrapped.save_pretrained(tmp_path / "adapter")
    report = export_gguf_lora(tmp_path / "adapter", tmp_path / "lora.gguf", model=str(base))

    rows = token_rows(vocabulary)
    peft = torch.stack([log_probabilities(wrapped, ids) for ids in rows])
    with wrapped.disable_adapter():
        plain = torch.stack([log_probabilities(wrapped, ids) for ids in rows])
    with llama_cpp(base, report.file, plain=plain_token(load(base))) as next_token:
        theirs = torch.stack([next_token(ids) for ids in rows])
    # s·r is 6√4 in q_proj and o_proj, 6√2 in v_proj, 9√4 in down_proj; llama.cpp has one α.
    assert report.rescaled == 4
    assert math.isclose(report.alpha, 12.0)
    assert root_mean_square(peft - plain) > 0.3
    assert root_mean_square(theirs - peft) < 1e-5


@pytest.mark.weights
def test_smollm2s_own_file_and_an_adapter_agree_in_llama_cpp(smollm2: Path, tmp_path: Path) -> None:
    adapter = tmp_path / "adapter"
    loaded = adapted("smollm2-135m", adapter, 0.15, quant="native", rank=8, alpha=16)
    report = export_gguf_lora(tmp_path / "adapter", tmp_path / "lora.gguf")
    rows = [loaded.tokenizer(prompt)["input_ids"] for prompt in PROMPTS]
    found = compare(loaded, smollm2, report.file, rows)
    # llama.cpp rounds activations to 8 bits before it multiplies them with 4-bit blocks, which
    # over 30 layers moves log-probabilities by `base`, adapter or not. The adapter's own products
    # are float32, but it changes the activations that are rounded: the two disagreements are of
    # one size, not equal. What the adapter does is many times as large.
    assert found["effect"] > 10 * found["base"]
    assert found["adapter"] < 1.5 * found["base"]

    # The same weights as float32 numbers are multiplied as such, and the disagreement is gone:
    # 30 layers of sums in another order.
    decoded = write_decoded(smollm2, tmp_path / "decoded.gguf")
    try:
        exact = compare(loaded, decoded, report.file, rows)
    finally:
        decoded.unlink()  # half a gigabyte
    assert exact["base"] < found["base"] / 100
    assert exact["adapter"] < 3 * exact["base"]
    assert exact["effect"] > 1000 * exact["adapter"]


def test_the_files_metadata_is_what_llama_cpp_asks_for(
    vocabulary: Vocabulary, tmp_path: Path
) -> None:
    base = write_gguf(tmp_path / "base.gguf", small_model("llama", vocabulary), vocabulary)
    adapted(base, tmp_path / "adapter", strength=0.3, target_modules=["q_proj"], rank=3, alpha=5)
    export_gguf_lora(tmp_path / "adapter", tmp_path / "lora.gguf")
    reader = gguf.GGUFReader(tmp_path / "lora.gguf")

    fields = {key: field.contents() for key, field in reader.fields.items()}
    assert fields["general.type"] == "adapter"
    assert fields["general.architecture"] == "llama"
    assert fields["adapter.type"] == "lora"
    assert fields["adapter.lora.alpha"] == 5.0
    shapes = {tensor.name: tensor.data.shape for tensor in reader.tensors}
    names = [f"blk.{layer}.attn_q.weight" for layer in (0, 1)]
    assert shapes == {
        **{f"{name}.lora_a": (3, 64) for name in names},
        **{f"{name}.lora_b": (64, 3) for name in names},
    }
    assert str(tmp_path) not in str(fields)


# What is refused


def test_an_adapter_of_another_model_is_refused(vocabulary: Vocabulary, tmp_path: Path) -> None:
    base = write_gguf(tmp_path / "base.gguf", small_model("llama", vocabulary), vocabulary)
    wide = small_model("llama", vocabulary, intermediate_size=128)
    other = write_gguf(tmp_path / "other.gguf", wide, vocabulary)
    adapted(base, tmp_path / "adapter", strength=0.3)

    with pytest.raises(AdapterError, match=r"down_proj is 64 × 96, that of .*other\.gguf 64 × 128"):
        export_gguf_lora(tmp_path / "adapter", tmp_path / "lora.gguf", model=str(other))
    other.replace(base)
    with pytest.raises(AdapterError, match="was trained on other weights"):
        export_gguf_lora(tmp_path / "adapter", tmp_path / "lora.gguf")
    assert not (tmp_path / "lora.gguf").exists()


@pytest.mark.parametrize(
    ("spec", "what"),
    [
        ({"kind": "dora"}, "DoRA's magnitudes"),
        ({"kind": "vera"}, "VeRA's vectors"),
        ({"kind": "ia3"}, "IA³'s vectors"),
        ({"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]}, "modules trained whole"),
    ],
)
def test_what_the_file_cannot_hold_is_refused(
    vocabulary: Vocabulary, tmp_path: Path, spec: dict[str, Any], what: str
) -> None:
    base = write_gguf(tmp_path / "base.gguf", small_model("llama", vocabulary), vocabulary)
    adapted(base, tmp_path / "adapter", strength=0.3, **spec)

    with pytest.raises(AdapterError, match=f"has {what}, which a GGUF LoRA file cannot contain"):
        export_gguf_lora(tmp_path / "adapter", tmp_path / "lora.gguf")


@pytest.mark.parametrize(
    "spec",
    [
        {"rslora": True},
        {"rank_pattern": {"*.mlp.*": 2}, "alpha_pattern": {"v_proj": 3}},
        {"kind": "adalora"},
        {"factors": {"bits": 4}},
    ],
)
def test_every_kind_that_ends_as_two_factors_is_written(
    vocabulary: Vocabulary, tmp_path: Path, spec: dict[str, Any]
) -> None:
    base = write_gguf(tmp_path / "base.gguf", small_model("llama", vocabulary), vocabulary)
    # AdaLoRA's P, Λ and Q are three small numbers to multiply, not two.
    strength = 10 if spec.get("kind") == "adalora" else 0.3
    adapted(base, tmp_path / "adapter", strength, **spec)
    export_gguf_lora(tmp_path / "adapter", tmp_path / "lora.gguf")
    # What was saved, as it comes back from the disk: quantised factors are rounded there.
    loaded = load(base)
    load_adapter(loaded.model, tmp_path / "adapter", origin=loaded.origin)
    found = compare(loaded, base, tmp_path / "lora.gguf", token_rows(vocabulary))

    assert found["adapter"] < 1e-5 * max(1.0, found["effect"])
    assert found["effect"] > 0.1


@pytest.mark.parametrize("start", ["orthogonal", "pissa", "olora"])
def test_a_start_that_changes_the_base_is_written_relative_to_the_base_as_it_was(
    vocabulary: Vocabulary, tmp_path: Path, start: str
) -> None:
    base = write_gguf(tmp_path / "base.gguf", small_model("llama", vocabulary), vocabulary)
    loaded = load(base)
    adapter = AdapterSpec.model_validate(
        {"rank": 4, "alpha": 8, "init": start, "svd_iterations": None}
    )
    add_adapter(loaded.model, adapter, seed=0)
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for factor in adapter_parameters(loaded.model).values():
            factor.add_(0.05 * torch.randn(factor.shape, generator=draw))
    save_adapter(loaded.model, tmp_path / "adapter", adapter, loaded.origin)
    export_gguf_lora(tmp_path / "adapter", tmp_path / "lora.gguf")

    rows = token_rows(vocabulary)
    ours = torch.stack([log_probabilities(loaded.model, ids) for ids in rows])
    untouched = torch.stack([log_probabilities(load(base).model, ids) for ids in rows])
    with llama_cpp(base, tmp_path / "lora.gguf", plain=plain_token(loaded)) as next_token:
        theirs = torch.stack([next_token(ids) for ids in rows])
    # W - T + ΔW + T is summed in two orders, in float32.
    assert root_mean_square(theirs - ours) < 1e-4 < 0.05 < root_mean_square(ours - untouched)


def test_a_model_that_llama_cpp_names_in_a_way_not_known_is_refused(
    tmp_path: Path, tiny_tokenizer: Any
) -> None:
    from transformers import OPTConfig, OPTForCausalLM

    config = OPTConfig(
        vocab_size=len(tiny_tokenizer),
        hidden_size=32,
        ffn_dim=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        word_embed_proj_dim=32,
        max_position_embeddings=64,
    )
    OPTForCausalLM(config).save_pretrained(tmp_path / "opt")
    tiny_tokenizer.save_pretrained(tmp_path / "opt")
    adapted(tmp_path / "opt", tmp_path / "adapter", strength=0.3)

    with pytest.raises(ModelError, match=r"is a opt model; adapters of gemma, .*qwen2, qwen3"):
        export_gguf_lora(tmp_path / "adapter", tmp_path / "lora.gguf")


def test_factors_beyond_float16_are_refused_by_name(vocabulary: Vocabulary, tmp_path: Path) -> None:
    base = write_gguf(tmp_path / "base.gguf", small_model("llama", vocabulary), vocabulary)
    adapted(base, tmp_path / "adapter", strength=1e6, target_modules=["v_proj"])

    with pytest.raises(AdapterError, match=r"blk\.0\.attn_v\.weight\.lora_b .* beyond f16's range"):
        export_gguf_lora(tmp_path / "adapter", tmp_path / "lora.gguf", number="f16")
    assert export_gguf_lora(tmp_path / "adapter", tmp_path / "lora.gguf").modules == 2


def test_a_file_that_is_there_is_kept_unless_it_may_be_replaced(
    vocabulary: Vocabulary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = write_gguf(tmp_path / "base.gguf", small_model("llama", vocabulary), vocabulary)
    adapted(base, tmp_path / "adapter", strength=0.3)
    lora = tmp_path / "lora.gguf"
    lora.write_text("mine")

    with pytest.raises(RunError, match="already exists"):
        export_gguf_lora(tmp_path / "adapter", lora)
    with monkeypatch.context() as full:

        def no_space(*_: object, **__: object) -> None:
            raise OSError(28, "No space left on device")

        full.setattr(gguf.GGUFWriter, "write_tensors_to_file", no_space)
        with pytest.raises(RunError, match="No space left on device; no partial file was left"):
            export_gguf_lora(tmp_path / "adapter", lora, overwrite=True)
    assert lora.read_text() == "mine"
    assert not list(tmp_path.glob(".lora*"))

    export_gguf_lora(tmp_path / "adapter", lora, overwrite=True)
    assert lora.read_bytes()[:4] == b"GGUF"


def test_an_adapter_read_back_and_exported_again_is_the_same_file(
    vocabulary: Vocabulary, tmp_path: Path
) -> None:
    base = write_gguf(tmp_path / "base.gguf", small_model("llama", vocabulary), vocabulary)
    adapted(base, tmp_path / "adapter", strength=0.3)
    export_gguf_lora(tmp_path / "adapter", tmp_path / "one.gguf")
    again = load(base)
    load_adapter(again.model, tmp_path / "adapter", origin=again.origin)
    spec = AdapterSpec(rank=4, alpha=8)
    save_adapter(again.model, tmp_path / "again", spec, again.origin)
    export_gguf_lora(tmp_path / "again", tmp_path / "two.gguf")

    assert (tmp_path / "one.gguf").read_bytes() == (tmp_path / "two.gguf").read_bytes()


FURTHER = {
    "gemma": ("gemma", {"head_dim": 16}),
    "gemma2": ("gemma2", {"head_dim": 16}),
    "gemma3_text": ("gemma3", {"head_dim": 16}),
    "granite": ("granite", {}),
    "lfm2": ("lfm2", {"layer_types": ["conv", "full_attention"]}),
    "olmo2": ("olmo2", {}),
    "phi3": ("phi3", {"pad_token_id": 0}),
    "smollm3": ("smollm3", {"pad_token_id": 0}),
    "stablelm": ("stablelm", {}),
    "starcoder2": ("starcoder2", {}),
}


@pytest.mark.parametrize("model_type", FURTHER)
def test_every_module_of_a_further_architecture_has_llamacpps_name(
    model_type, vocabulary, tmp_path
):
    architecture, options = FURTHER[model_type]
    model = small_model(model_type, vocabulary, **options)
    model.save_pretrained(tmp_path / "base")
    spec = AdapterSpec(rank=4, alpha=8)
    add_adapter(model, spec, seed=0)
    with torch.no_grad():
        for factor in adapter_parameters(model).values():
            factor.normal_()
    # Not every one of them can be trained here; PEFT trains them.
    origin = ModelOrigin(str(tmp_path / "base"), str(tmp_path / "base"), "ab" * 32)
    save_adapter(model, tmp_path / "adapter", spec, origin)
    written = export_gguf_lora(
        tmp_path / "adapter", tmp_path / "out.gguf", model=str(tmp_path / "base")
    )
    assert written.architecture == architecture
    reader = gguf.GGUFReader(tmp_path / "out.gguf")
    found = {tensor.name: tensor.data for tensor in reader.tensors}
    (arch,) = (key for key, value in gguf.MODEL_ARCH_NAMES.items() if value == architecture)
    stems = {
        gguf.TENSOR_NAMES[kind].format(bid=bid)
        for kind in gguf.MODEL_TENSORS[arch]
        for bid in range(2)
    }
    assert {name.rsplit(".weight.", 1)[0] for name in found} <= stems
    modules = {
        path: adapter
        for path, adapter in adapter_parameters(model).items()
        if path.endswith("lora_B")
    }
    assert len(found) == 2 * len(modules) == 2 * written.modules
    # The same numbers, in another order of rows where llama.cpp turns pairs of neighbours.
    for path, B in modules.items():
        same = [v for n, v in found.items() if n.endswith("lora_b") and v.shape == tuple(B.shape)]
        wanted = B.detach().numpy()
        paired = architecture in ("granite", "smollm3") and ("q_proj" in path or "k_proj" in path)
        if paired:
            halves = wanted.reshape(-1, 2, 8, wanted.shape[1])
            wanted = halves.swapaxes(1, 2).reshape(wanted.shape)
        assert any(np.array_equal(one, wanted) for one in same), path
