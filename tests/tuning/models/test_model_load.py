from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from etude.core.errors import ModelError
from etude.tuning.config.sections.model import ModelSpec
from etude.tuning.config.sections.quant import QuantSpec
from etude.tuning.models import checkpoint
from etude.tuning.models.load import LoadedModel, load_model
from etude.tuning.quant import build
from etude.tuning.quant.linear import QuantLinear

DENSE = QuantSpec(kind="none")
NF4 = QuantSpec(kind="nf4", block=64, double=True)

TinyLlama = Callable[..., Path]


def load_folder(folder: Path, quant: QuantSpec = DENSE, dtype: Any = "float32") -> LoadedModel:
    return load_model(ModelSpec(id=str(folder), dtype=dtype), quant)


def from_transformers(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def some_ids(model: Any) -> torch.Tensor:
    return torch.randint(0, model.config.vocab_size, (2, 20))


def assert_same_logits(folder: Path, mine: Any) -> None:
    theirs = from_transformers(folder)
    ids = some_ids(theirs)
    assert torch.equal(mine(ids).logits, theirs(ids).logits)


def edit_weights(folder: Path, edit: Callable[[dict[str, torch.Tensor]], None]) -> None:
    file = folder / "model.safetensors"
    tensors = load_file(file)
    edit(tensors)
    save_file(tensors, file, metadata={"format": "pt"})


def edit_config(folder: Path, **fields: Any) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))


# Right weights in the right places


@pytest.mark.parametrize("tied", [True, False])
def test_dense_logits_equal_transformers(tiny_llama: TinyLlama, tied: bool) -> None:
    folder = tiny_llama(tied=tied)
    model = load_folder(folder).model

    assert_same_logits(folder, model)
    shared = model.lm_head.weight.data_ptr() == model.model.embed_tokens.weight.data_ptr()
    assert shared is tied


def test_a_sharded_folder_loads_as_a_whole_one(tiny_llama: TinyLlama, tmp_path: Path) -> None:
    folder = tiny_llama()
    from_transformers(folder).save_pretrained(tmp_path, max_shard_size="100KB")
    shutil.copy(folder / "tokenizer.json", tmp_path)
    shutil.copy(folder / "tokenizer_config.json", tmp_path)
    assert len(list(tmp_path.glob("*.safetensors"))) > 2

    assert_same_logits(folder, load_folder(tmp_path).model)


def test_half_precision_files_load_into_float32(tiny_llama: TinyLlama) -> None:
    folder = tiny_llama()

    def halve(tensors: dict[str, torch.Tensor]) -> None:
        for index, (name, tensor) in enumerate(tensors.items()):
            tensors[name] = tensor.to(torch.bfloat16 if index % 2 else torch.float16)

    edit_weights(folder, halve)
    assert_same_logits(folder, load_folder(folder).model)


def save_model(model: Any, folder: Path, tokenizer: Any) -> Path:
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_a_checkpoint_of_the_trunk_alone_finds_its_places(
    tmp_path: Path, tiny_tokenizer: Any
) -> None:
    # GPT-2's published weights are named `h.0...` where the model says `transformer.h.0...`.
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=512, n_embd=32, n_layer=2, n_head=2)).eval()
    save_model(model, tmp_path, tiny_tokenizer)
    save_file(
        {k.removeprefix("transformer."): v for k, v in model.transformer.state_dict().items()},
        tmp_path / "model.safetensors",
        metadata={"format": "pt"},
    )
    ids = some_ids(model)

    assert torch.equal(load_folder(tmp_path).model(ids).logits, model(ids).logits)
    quantised = load_folder(tmp_path, NF4).model(ids).logits
    assert 0 < (quantised - model(ids).logits).norm() < 0.5 * model(ids).logits.norm()


@pytest.mark.parametrize("slice_numbers", [1, 7 * 160, 1 << 20])
@pytest.mark.parametrize(
    "quant",
    [
        NF4,
        QuantSpec(kind="nf4", block=128, double=False),
        QuantSpec(kind="fp4", double=True),
        QuantSpec(kind="int4", block=32, double=False),
        QuantSpec(kind="int8"),
    ],
)
def test_quantised_weights_are_those_of_quantising_each_dense_weight(
    tiny_llama: TinyLlama,
    monkeypatch: pytest.MonkeyPatch,
    quant: QuantSpec,
    slice_numbers: int,
) -> None:
    # Rows of 160 are no multiple of a block: slices of 7 rows end inside blocks.
    monkeypatch.setattr(checkpoint, "SLICE_NUMBERS", slice_numbers)
    folder = tiny_llama(tied=False)
    dense = load_folder(folder).model
    model = load_folder(folder, quant).model
    quantized = {n: m for n, m in model.named_modules() if isinstance(m, QuantLinear)}
    linears = {n for n, m in dense.named_modules() if isinstance(m, torch.nn.Linear)}

    assert set(quantized) == linears - {"lm_head"}
    for name, layer in quantized.items():
        weight = dense.get_submodule(name).weight
        expected = build.quantized(weight, quant, torch.float32)
        for key, buffer in expected.state_dict().items():
            assert torch.equal(layer.state_dict()[key], buffer), (name, key)
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, dense.get_parameter(name)), name


@pytest.mark.weights
def test_smollm2_in_nf4_is_its_dense_weights_quantised(smollm2: Path) -> None:
    dense = load_folder(smollm2).model
    model = load_folder(smollm2, NF4, "bfloat16").model

    assert sum(isinstance(module, QuantLinear) for module in model.modules()) == 7 * 30
    for name in (
        "layers.0.self_attn.q_proj",
        "layers.17.mlp.down_proj",
        "layers.29.self_attn.k_proj",
    ):
        layer = model.model.get_submodule(name)
        weight = dense.model.get_submodule(name).weight
        expected = build.quantized(weight, NF4, torch.bfloat16)
        assert torch.equal(layer.codes, expected.codes)
        assert torch.equal(layer.scales, expected.scales)
    embedding = model.model.embed_tokens.weight
    assert torch.equal(embedding, dense.model.embed_tokens.weight.bfloat16())
    assert model.lm_head.weight.data_ptr() == embedding.data_ptr()


def test_biases_of_quantised_layers_are_loaded(tmp_path: Path, tiny_tokenizer: Any) -> None:
    from transformers import Qwen2Config, Qwen2ForCausalLM

    model = Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=512,
            hidden_size=64,
            intermediate_size=96,
            num_hidden_layers=1,
            num_attention_heads=4,
            num_key_value_heads=2,
        )
    )
    torch.nn.init.normal_(model.model.layers[0].self_attn.q_proj.bias)
    loaded = load_folder(save_model(model, tmp_path, tiny_tokenizer), NF4).model
    bias = loaded.model.layers[0].self_attn.q_proj.bias

    assert torch.equal(bias, model.model.layers[0].self_attn.q_proj.bias)
    assert loaded.model.layers[0].mlp.up_proj.bias is None


@pytest.mark.parametrize("quant", [DENSE, NF4])
def test_a_loaded_model_is_frozen_complete_and_in_evaluation_mode(
    tiny_llama: TinyLlama, quant: QuantSpec
) -> None:
    folder = tiny_llama()
    loaded = load_folder(folder, quant, "bfloat16")
    model = loaded.model

    assert not any(p.requires_grad for p in model.parameters())
    assert not model.training
    assert not any(t.is_meta for t in [*model.parameters(), *model.buffers()])
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert loaded.dtype == torch.bfloat16
    assert model.config._attn_implementation == "sdpa"
    # No checkpoint holds the rotary frequencies; in bfloat16 far positions would blur.
    frequencies = model.model.rotary_emb.inv_freq
    assert frequencies.dtype == torch.float32
    assert torch.equal(frequencies, from_transformers(folder).model.rotary_emb.inv_freq)
    assert model.generation_config.eos_token_id == loaded.tokenizer.eos_token_id


# Which model this is


def test_the_fingerprint_belongs_to_the_files_not_to_how_they_are_loaded(
    tiny_llama: TinyLlama, tmp_path: Path
) -> None:
    folder = tiny_llama()
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    dense, quantized = load_folder(folder), load_folder(copy, NF4, "bfloat16")

    assert dense.origin.fingerprint == quantized.origin.fingerprint
    assert dense.origin.path == str(folder)
    assert quantized.origin.path == str(copy)


@pytest.mark.parametrize("change", ["one tensor trained", "another seed", "another config"])
def test_the_fingerprint_tells_models_apart(tiny_llama: TinyLlama, change: str) -> None:
    folder = tiny_llama()
    before = load_folder(folder).origin.fingerprint
    if change == "one tensor trained":
        edit_weights(folder, lambda t: t["model.layers.1.mlp.up_proj.weight"].mul_(1.001))
    elif change == "another seed":
        folder = tiny_llama(seed=1)
    else:
        edit_config(folder, rms_norm_eps=1e-3)

    assert load_folder(folder).origin.fingerprint != before


# What is wrong with a folder, in one line


def remove_tensor(folder: Path) -> None:
    edit_weights(folder, lambda tensors: tensors.pop("model.layers.1.mlp.up_proj.weight"))


def remove_many_tensors(folder: Path) -> None:
    edit_weights(folder, lambda t: [t.pop(name) for name in list(t) if "layers.1." in name])


def add_tensor(folder: Path) -> None:
    edit_weights(folder, lambda tensors: tensors.update({"model.extra.weight": torch.ones(2)}))


def transpose_tensor(folder: Path) -> None:
    name = "model.layers.0.mlp.up_proj.weight"
    edit_weights(folder, lambda tensors: tensors.update({name: tensors[name].T.contiguous()}))


def poison_tensor(folder: Path) -> None:
    name = "model.layers.0.mlp.up_proj.weight"
    edit_weights(folder, lambda tensors: tensors[name][5].fill_(float("nan")))


def untie_weights(folder: Path) -> None:
    edit_weights(folder, lambda tensors: tensors.update({"lm_head.weight": torch.ones(512, 64)}))


def cut_weights(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])


def cut_header(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:200])


def empty_weights(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"")


def garble_header(folder: Path) -> None:
    file = folder / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[8:12] = b"oops"
    file.write_bytes(content)


def lose_shard(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    index = {"weight_map": {"model.norm.weight": "model-00001-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def pickle_weights(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def quantize_weights(folder: Path) -> None:
    edit_config(folder, quantization_config={"quant_method": "gptq", "bits": 4})


def break_config(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "llama",')


def unknown_type(folder: Path) -> None:
    edit_config(folder, model_type="florp")


def another_head(folder: Path) -> None:
    edit_config(folder, architectures=["LlamaForSequenceClassification"])


def grow_vocabulary(folder: Path) -> None:
    edit_weights(folder, lambda t: t.update({k: v[:500] for k, v in t.items() if len(v) == 512}))
    edit_config(folder, vocab_size=500)


def lose_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()


def make_adapter(folder: Path) -> None:
    (folder / "config.json").rename(folder / "adapter_config.json")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (remove_tensor, r"lacks tensor model\.layers\.1\.mlp\.up_proj\.weight$"),
        (remove_many_tensors, r"lacks tensors model\.layers\.1\..* and 6 more$"),
        (add_tensor, r"has tensor model\.extra\.weight, which LlamaForCausalLM has no place for"),
        (transpose_tensor, r"up_proj\.weight has shape \(64, 160\), .* says \(160, 64\)"),
        (poison_tensor, r"model\.layers\.0\.mlp\.up_proj\.weight: .*5"),
        (untie_weights, r"differs from .*: set tie_word_embeddings"),
        (cut_weights, r"model\.safetensors is truncated: tensor .* fetch it again"),
        (cut_header, r"model\.safetensors has a damaged or truncated header"),
        (empty_weights, r"model\.safetensors"),
        (garble_header, r"has an invalid header"),
        (lose_shard, r"cannot read .*model-00001-of-00002\.safetensors: No such file"),
        (pickle_weights, r"pickled weights, .*convert it to safetensors"),
        (quantize_weights, r"quantised weights \(gptq\); use the unquantised model"),
        (break_config, r"config\.json is not JSON"),
        (unknown_type, r"config\.json is invalid: .*florp"),
        (another_head, r"is a LlamaForSequenceClassification: only causal language models"),
        (grow_vocabulary, r"has embeddings for 500 tokens, its tokenizer knows 512"),
        (lose_tokenizer, r"has no readable tokenizer"),
        (make_adapter, r"is an adapter, not a model"),
    ],
)
def test_a_damaged_folder_is_refused_in_one_line(
    tiny_llama: TinyLlama, damage: Callable[[Path], None], message: str
) -> None:
    folder = tiny_llama()
    damage(folder)

    with pytest.raises(ModelError, match=message) as error:
        load_folder(folder, NF4)
    assert "\n" not in str(error.value)
    assert str(folder) in str(error.value)


def test_progress_reaches_the_size_of_the_weights(tiny_llama: TinyLlama) -> None:
    class Recorder:
        total: int | None = None
        done = 0
        finished = False

        def start(self, label: str, total: int | None, unit: str = "") -> None:
            self.what = label, unit
            self.total = total

        def advance(self, n: int = 1) -> None:
            self.done += n

        def finish(self) -> None:
            self.finished = True

    folder = tiny_llama(tied=True)
    recorder = Recorder()
    load_model(ModelSpec(id=str(folder), dtype="float32"), NF4, recorder)

    numbers = sum(tensor.numel() for tensor in load_file(folder / "model.safetensors").values())
    assert recorder.done == recorder.total == 4 * numbers
    assert recorder.what == (f"Reading the weights of {folder}", "B")
    assert recorder.finished


def test_a_load_leaves_the_number_of_threads_as_it_was(tiny_llama: TinyLlama) -> None:
    folder = tiny_llama()
    torch.set_num_threads(2)
    load_folder(folder)
    with ThreadPoolExecutor(1) as pool:
        in_a_new_thread = pool.submit(torch.get_num_threads).result()

    assert torch.get_num_threads() == in_a_new_thread == 2
