from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from etude.core.errors import ModelError
from etude.tuning.models.sources import resolve


@pytest.fixture(autouse=True)
def empty_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ETUDE_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)


def test_an_alias_that_is_not_pulled_resolves_without_a_path() -> None:
    source = resolve("smollm2-135m")

    assert (source.kind, source.path, source.format) == ("alias", None, None)


def test_a_folder_resolves_by_what_it_holds(tiny_llama: Callable[..., Path]) -> None:
    folder = tiny_llama()
    source = resolve(str(folder))

    assert (source.kind, source.path, source.format) == ("folder", folder, "safetensors")


def test_a_folder_wins_over_a_hub_id_and_an_alias_over_a_folder(
    tiny_llama: Callable[..., Path], tmp_path: Path
) -> None:
    shutil.copytree(tiny_llama(), tmp_path / "owner" / "name")
    shutil.copytree(tiny_llama(), tmp_path / "minilm")

    assert resolve("owner/name").kind == "folder"
    assert resolve("minilm").kind == "alias"
    assert resolve("./minilm").kind == "folder"


def test_a_hub_id_that_is_not_cached_resolves_without_a_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = resolve("nobody-at-all/no-such-model")

    assert (source.kind, source.path) == ("hub", None)


def test_a_folder_with_one_gguf_file_is_that_file(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "a.gguf").touch()
    source = resolve("model")
    assert (source.path, source.format) == (Path("model/a.gguf"), "gguf")

    (tmp_path / "model" / "b.gguf").touch()
    with pytest.raises(ModelError, match=r"contains 2 GGUF files; name one: a\.gguf, b\.gguf"):
        resolve("model")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("smollm2", r"did you mean 'smollm2-135m'"),
        ("whisper", r"did you mean 'whisper-tiny\.en'"),
        ("mini-lm", r"did you mean 'minilm'"),
        ("llama-3.1-8b", r"\(on the hub it is 'meta-llama/Llama-3\.1-8B-Instruct'\)"),
        ("qwen2.5-0.5", r"did you mean 'Qwen/Qwen2\.5-0\.5B-Instruct'"),
        ("xyzzy", r"unknown model 'xyzzy'; known models: smollm2-135m, minilm, "),
        ("models/llama.gguf", r"no model at models/llama\.gguf"),
        ("/nowhere/at/all", r"no model at /nowhere/at/all"),
        ("../up", r"no model at \.\./up"),
        ("a--b/c", r"unknown model 'a--b/c'"),
    ],
)
def test_an_unknown_name_gets_one_line_with_what_is_near(name: str, message: str) -> None:
    with pytest.raises(ModelError, match=message) as error:
        resolve(name)
    assert "\n" not in str(error.value)


def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "weights.pt").touch()
    with pytest.raises(ModelError, match=r"weights\.pt is not a model: expected a folder or"):
        resolve("weights.pt")


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match=r"contains neither config\.json nor a \.gguf file"):
        resolve("empty")


def test_models_in_the_current_folder_are_among_the_names_that_can_be_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my-tuned").mkdir()
    (tmp_path / "my-tuned" / "config.json").write_text("{}")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match=r"'my-tund' \(did you mean 'my-tuned'\?\)") as error:
        resolve("my-tund")
    assert str(error.value).count("known models") == 1
    assert "my-tuned;" in str(error.value)
    assert "empty" not in str(error.value)
