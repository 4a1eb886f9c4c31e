"""A GGUF file's own blocks, kept in memory: the same bits as its weights decoded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
from gguf import GGMLQuantizationType as Kind
from gguf_writing import Vocabulary, byte_level_vocabulary, random_blocks, write_gguf
from torch import nn

from etude.core.errors import AdapterError, ModelError
from etude.core.machine import this_machine
from etude.tuning.adapters.inject import add_adapter
from etude.tuning.adapters.multi_adapter import adapter_parameters
from etude.tuning.config.recipe import Recipe
from etude.tuning.config.sections.adapter import AdapterSpec
from etude.tuning.config.sections.data import DataSpec
from etude.tuning.config.sections.model import ModelSpec
from etude.tuning.config.sections.quant import QuantSpec
from etude.tuning.data.encode import Encoder
from etude.tuning.data.samples import load_samples
from etude.tuning.evaluation import evaluate_run
from etude.tuning.kernels.gguf import FORMATS
from etude.tuning.models.describe import describe
from etude.tuning.models.load import LoadedModel, load_model
from etude.tuning.models.sources import resolve
from etude.tuning.pipeline import tune
from etude.tuning.predictor import load as load_tuned
from etude.tuning.quant.gguf import GGUFLinear
from etude.tuning.runs.folder import RunFolder
from etude.tuning.training.evaluate import evaluation_loss


def load(model: Path | str, kind: str, dtype: str = "float32") -> LoadedModel:
    spec = ModelSpec.model_validate({"id": str(model), "dtype": dtype})
    return load_model(spec, QuantSpec.model_validate({"kind": kind}))


def llama(vocabulary: Vocabulary, **options: Any) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    fields = {
        "vocab_size": len(vocabulary.tokens),
        "hidden_size": 256,
        "intermediate_size": 512,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "initializer_range": 0.05,
        **options,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return LlamaForCausalLM(LlamaConfig(**fields)).eval()


@pytest.fixture(scope="module")
def vocabulary(tiny_tokenizer: Any) -> Vocabulary:
    return byte_level_vocabulary(tiny_tokenizer, "smollm")


@pytest.fixture(scope="module")
def q4_1(tmp_path_factory: pytest.TempPathFactory, vocabulary: Vocabulary) -> Path:
    path = tmp_path_factory.mktemp("native") / "q4_1.gguf"
    return write_gguf(path, llama(vocabulary), vocabulary, Kind.Q4_1)


def token_rows(loaded: LoadedModel, rows: int = 2, length: int = 24) -> torch.Tensor:
    draw = torch.Generator().manual_seed(0)
    return torch.randint(0, len(loaded.tokenizer), (rows, length), generator=draw)


# The same bits as decoded weights


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", FORMATS)
def test_logits_and_gradients_are_those_of_the_decoded_model_bit_for_bit(
    vocabulary: Vocabulary, tmp_path: Path, kind: str, dtype: str
) -> None:
    path = write_gguf(tmp_path / "model.gguf", llama(vocabulary), vocabulary, Kind[kind])
    native, decoded = load(path, "native", dtype), load(path, "none", dtype)
    layers = [m for m in native.model.modules() if isinstance(m, GGUFLinear)]
    assert {layer.format for layer in layers} == {kind}
    assert len(layers) == 14

    ids = token_rows(native)
    gradients: list[dict[str, torch.Tensor]] = []
    logits: list[torch.Tensor] = []
    for loaded in (native, decoded):
        logits.append(loaded.model(ids).logits)
        add_adapter(loaded.model, AdapterSpec(rank=4), seed=0)
        parameters = adapter_parameters(loaded.model)
        loaded.model(ids, labels=ids).loss.backward()
        gradients.append({name: p.grad for name, p in parameters.items() if p.grad is not None})
    assert torch.equal(*logits)
    assert logits[0].std() > 0.3
    assert len(gradients[0]) == 28
    for name, gradient in gradients[0].items():
        assert torch.equal(gradient, gradients[1][name]), name
    assert any(gradient.any() for gradient in gradients[0].values())


@pytest.mark.parametrize("kind", ["Q4_K", "Q6_K"])
def test_k_formats_give_the_logits_of_transformers_own_gguf_loader(
    vocabulary: Vocabulary, tmp_path: Path, kind: str
) -> None:
    from transformers import AutoModelForCausalLM

    path = write_gguf(tmp_path / "model.gguf", llama(vocabulary), vocabulary, Kind[kind])
    theirs = AutoModelForCausalLM.from_pretrained(
        tmp_path, gguf_file="model.gguf", dtype=torch.float32
    )
    native = load(path, "native")
    ids = token_rows(native)

    assert torch.equal(native.model(ids).logits, theirs(ids).logits)


# Where a processor emulates bfloat16, twelve rows take eight minutes.
ROWS = {"float32": 4, "bfloat16": 12 if this_machine().native_bfloat16 else 2}


@pytest.mark.weights
@pytest.mark.parametrize(("dtype", "count"), ROWS.items())
def test_evaluation_loss_on_gsm8k_is_that_of_the_decoded_model_and_nf4_costs_more(
    smollm2: Path, shared_data: Path, dtype: str, count: int
) -> None:
    spec = DataSpec.model_validate(
        {
            "train": str(shared_data / "instruct/gsm8k/test.jsonl"),
            "prompt": "question",
            "completion": "answer",
            "eval_fraction": 0.5,
            "max_train": 1,
            "max_eval": count,
        }
    )
    samples = load_samples(spec, seed=0).eval
    losses: dict[str, float] = {}
    for kind in ("native", "none", "nf4"):
        loaded = load(smollm2, kind, dtype)
        rows = Encoder(loaded.tokenizer, spec).encode_all(samples).samples
        assert len(rows) == count
        losses[kind] = evaluation_loss(loaded.model, rows, 512)

    assert losses["native"] == losses["none"]
    # What a second quantisation, on top of the file's, does to the same model.
    assert losses["nf4"] > losses["native"] + 0.1


def test_tensors_that_are_plain_numbers_stay_plain(vocabulary: Vocabulary, tmp_path: Path) -> None:
    kinds = {"attn_q": Kind.F16, "attn_v": Kind.Q6_K, "ffn_up": Kind.BF16, "ffn_down": Kind.Q4_K}

    def kind(name: str) -> Kind:
        return kinds.get(name.split(".")[-2], Kind.Q8_0)

    model = llama(vocabulary, attention_bias=True)
    path = write_gguf(tmp_path / "model.gguf", model, vocabulary, kind)
    native, decoded = load(path, "native"), load(path, "none")
    layer = native.model.model.layers[0]

    assert type(layer.self_attn.q_proj) is type(layer.mlp.up_proj) is nn.Linear
    assert layer.self_attn.v_proj.format == "Q6_K"
    assert layer.mlp.down_proj.format == "Q4_K"
    assert layer.self_attn.k_proj.format == "Q8_0"
    assert layer.self_attn.k_proj.bias is not None
    assert type(native.model.lm_head) is nn.Linear
    ids = token_rows(native)
    assert torch.equal(native.model(ids).logits, decoded.model(ids).logits)


def test_what_a_load_takes_is_what_is_said_beforehand(q4_1: Path) -> None:
    loaded = load(q4_1, "native", "bfloat16")
    tensors = {t.data_ptr(): t for t in [*loaded.model.parameters(), *loaded.model.buffers()]}
    memory = describe(resolve(str(q4_1)), QuantSpec()).memory

    assert memory is not None
    assert memory.native == sum(t.nbytes for t in tensors.values())
    assert memory.native < memory.dense


# The layer


def layer_of(kind: str = "Q5_K", rows: int = 6, columns: int = 512) -> GGUFLinear:
    blocks = torch.from_numpy(random_blocks((rows, columns), Kind[kind], 1.0))
    bias = torch.linspace(-1, 1, rows)
    return GGUFLinear.from_blocks(blocks, kind, torch.float64, bias)


def test_the_products_gradient_is_exact_in_float64() -> None:
    layer = layer_of()
    x = torch.randn(3, 512, dtype=torch.float64, requires_grad=True)

    def squared(value: torch.Tensor) -> torch.Tensor:
        return layer(value).square()

    assert torch.autograd.gradcheck(squared, (x,))
    assert torch.equal(
        layer(x), nn.functional.linear(x, layer.dequantize(torch.float64), layer.bias)
    )


def test_moving_the_model_to_another_dtype_leaves_the_blocks_alone() -> None:
    layer = layer_of()
    blocks = layer.codes.clone()
    layer.to(torch.bfloat16)

    assert layer.compute_dtype == layer.bias.dtype == torch.bfloat16  # type: ignore[union-attr]
    assert torch.equal(layer.codes, blocks)
    assert layer.quantized_bytes == 6 * 512 // 256 * 176


def test_rows_that_come_late_twice_or_not_at_all_are_noticed() -> None:
    whole = layer_of()
    layer = GGUFLinear.unfilled(512, 6, "Q5_K", torch.float32)
    with pytest.raises(ModelError, match="0 of 6 rows"):
        layer.dequantize(torch.float32)
    layer.fill_rows(0, whole.codes[:2])
    for start, stop in [(0, 2), (3, 4), (2, 2)]:
        with pytest.raises(ValueError, match="do not follow row 1"):
            layer.fill_rows(start, whole.codes[start:stop])
    layer.fill_rows(2, whole.codes[2:])

    assert torch.equal(layer.dequantize(torch.float64), whole.dequantize(torch.float64))


def test_a_scale_that_is_not_finite_is_refused_with_its_place(
    vocabulary: Vocabulary, tmp_path: Path
) -> None:
    path = write_gguf(tmp_path / "model.gguf", llama(vocabulary), vocabulary, Kind.Q8_0)
    tensor = next(t for t in gguf.GGUFReader(path).tensors if t.name == "blk.1.ffn_up.weight")
    content = bytearray(path.read_bytes())
    row = tensor.data_offset + 3 * 256 // 32 * 34  # the scale of row 3's first block
    content[row : row + 2] = b"\x00\x7c"
    path.write_bytes(content)

    with pytest.raises(
        ModelError, match=r"layers\.1\.mlp\.up_proj\.weight: .*not finite.*\[3, 0\]"
    ):
        load(path, "native")


# What is refused


def test_a_model_that_is_not_quantised_has_no_blocks_to_keep(
    vocabulary: Vocabulary, tmp_path: Path, tiny_llama: Any
) -> None:
    dense = write_gguf(tmp_path / "f16.gguf", llama(vocabulary), vocabulary, Kind.F16)
    for model, stored in ((dense, "F16"), (tiny_llama(), "F32")):
        with pytest.raises(ModelError, match=f"are {stored}; set quant.kind: nf4 to quantise"):
            load(model, "native")


def test_a_format_that_is_only_decoded_is_named(vocabulary: Vocabulary, tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "q2.gguf", llama(vocabulary), vocabulary, Kind.Q2_K)

    with pytest.raises(ModelError, match=r"q_proj in Q2_K, .* set quant.kind: nf4 or none"):
        load(path, "native")
    assert load(path, "nf4").model is not None


@pytest.mark.parametrize("start", ["pissa", "olora", "loftq"])
def test_a_start_that_would_change_the_blocks_is_refused(q4_1: Path, start: str) -> None:
    loaded = load(q4_1, "native")
    spec = AdapterSpec.model_validate({"rank": 4, "init": start})

    with pytest.raises(AdapterError, match="native"):
        add_adapter(loaded.model, spec, seed=0)
    with pytest.raises(AdapterError, match="unchanged"):
        layer = loaded.model.model.layers[0].mlp.up_proj
        layer.overwrite(layer.dequantize(torch.float32))


# Whole runs


def recipe(model: Path, data: Path, kind: str, **train: Any) -> Recipe:
    return Recipe.parse(
        {
            "name": kind,
            "model": {"id": str(model), "dtype": "float32"},
            "adapter": {"rank": 4, "alpha": 8},
            "quant": {"kind": kind},
            "data": {"train": str(data), "eval_fraction": 0.2, "max_length": 256},
            "train": {
                "epochs": 3,
                "batch_samples": 4,
                "micro_tokens": 128,
                "lr": 1e-2,
                "save_every": 2,
                "threads": 1,
                **train,
            },
            "eval": {"generate": 2, "max_new_tokens": 4},
        }
    )


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    pairs = [{"prompt": f"def f{i}():", "completion": f"Return {i * 7 % 11}."} for i in range(24)]
    path.write_text("".join(json.dumps(pair) + "\n" for pair in pairs), "utf-8")
    return path


def curve(folder: Path) -> list[float]:
    return [r["loss"] for r in RunFolder.open(folder).read_metrics() if "loss" in r]


def test_a_native_run_is_the_run_on_decoded_weights_and_goes_on_where_it_stopped(
    q4_1: Path, rows: Path, tmp_path: Path
) -> None:
    whole = tune(recipe(q4_1, rows, "native"), base=tmp_path / "native")
    decoded = tune(recipe(q4_1, rows, "none"), base=tmp_path / "none")

    assert whole.summary["method"] == "qlora"
    assert whole.summary["eval_loss"] < 0.9 * whole.summary["eval_loss_before"]
    for figure in ("eval_loss_before", "eval_loss"):
        assert whole.summary[figure] == decoded.summary[figure]
    assert curve(whole.folder) == curve(decoded.folder)
    assert whole.summary["weight_bytes"] < 0.5 * decoded.summary["weight_bytes"]

    # As if it had been killed before its last checkpoint: it goes on from the one before.
    folder = RunFolder.open(whole.folder)
    *_, before, last = sorted(folder.checkpoints.glob("step-*.pt"))
    assert before.exists()
    last.unlink()
    again = tune(recipe(q4_1, rows, "native"), base=tmp_path / "native", resume=folder)
    assert last.exists()
    assert curve(again.folder) == curve(decoded.folder)
    assert again.summary["eval_loss"] == whole.summary["eval_loss"]

    # It answers and is evaluated from its folder.
    tuned = load_tuned(whole.folder)
    assert any(isinstance(m, GGUFLinear) for m in tuned.loaded.model.modules())
    assert tuned.reply("def f1():") == load_tuned(decoded.folder).reply("def f1():")
    measured = evaluate_run(RunFolder.open(whole.folder))
    assert measured["tuned"]["loss"] == whole.summary["eval_loss"]
    written = json.loads((whole.folder / "adapter" / "etude.json").read_text("utf-8"))
    assert written["quant"]["kind"] == "native"
