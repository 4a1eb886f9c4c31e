"""Fixtures shared by all tests: real weights, real data, and a small model made in a second."""

from __future__ import annotations

import atexit
import contextlib
import inspect
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

# A slow machine is no failure: no test here asserts a time, hypothesis' deadlines included.
# `--hypothesis-profile=nightly` (`make test-all`) looks longer for counterexamples. Tests set no
# `max_examples` of their own, which would override both; a costly one derives it from the profile.
for profile, examples in (("etude", 25), ("nightly", 300)):
    settings.register_profile(
        profile,
        max_examples=examples,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
        print_blob=True,
    )
settings.load_profile("etude")

REPOSITORY = Path(__file__).resolve().parent.parent


def pytest_configure() -> None:
    """Give the tests a data folder of their own, in which only pulled models are the user's.

    What an earlier version, or a run that was killed, has left in the user's folder is no test's
    business, and tests leave nothing in it.
    """
    from etude.core.paths import home

    kept = home().absolute()
    own = tempfile.TemporaryDirectory(prefix="etude-tests-")
    atexit.register(own.cleanup)
    for name in ("models", "native"):
        (kept / name).mkdir(parents=True, exist_ok=True)
        (Path(own.name) / name).symlink_to(kept / name, target_is_directory=True)
    os.environ["ETUDE_HOME"] = own.name


MARKED_BY_FIXTURE = {"smollm2": "weights", "browser": "browser"}
"""The marker that a test has which uses such a fixture."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests by their folders and fixtures, and say which may not be divided among processes.

    With `-n`, those of one file stay together: what they share is made once there. All that judge
    are one: runs of two judges on one machine would be run by the same users, and some attacks go
    for all that their user runs.
    """
    for item in items:
        folder = item.path.relative_to(REPOSITORY / "tests").parts[0]
        judges = folder in ("attacks", "practice") or item.get_closest_marker("judge") is not None
        item.add_marker(pytest.mark.xdist_group("judge" if judges else str(item.path)))
        if judges:
            item.add_marker(pytest.mark.judge)
        for fixture in getattr(item, "fixturenames", ()):
            if fixture in MARKED_BY_FIXTURE:
                item.add_marker(MARKED_BY_FIXTURE[fixture])


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print how long the tests of each folder took, their fixtures included.

    Reports of other processes (`-n`) arrive here too: the sums are those of all processes, and so
    larger than the time that has passed.
    """
    seconds: Counter[str] = Counter()
    tests: Counter[str] = Counter()
    for reports in terminalreporter.stats.values():
        for report in reports:
            if isinstance(report, pytest.TestReport):
                folder = _folder(report.nodeid)
                seconds[folder] += report.duration
                tests[folder] += report.when == "setup"
    if not seconds:
        return
    terminalreporter.section("time by folder")
    for folder, spent in sorted(seconds.items(), key=lambda one: -one[1]):
        terminalreporter.line(f"{spent / 60:6.1f} min  {tests[folder]:5} tests  {folder}")
    terminalreporter.line(f"{seconds.total() / 60:6.1f} min  {tests.total():5} tests  in all")


def _folder(nodeid: str) -> str:
    """`cli` of `tests/cli/test_x.py::test_y`; of the engine, the folder within: `tuning/data`."""
    parts = nodeid.partition("::")[0].removeprefix("tests/").split("/")[:-1]
    return "/".join(parts[: 2 if parts[:1] == ["tuning"] else 1]) or "."


SPECIAL_TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]

# ChatML with a default system message, as SmolLM2's: the template that trips tools which forget
# that a conversation may begin with tokens nobody wrote.
CHAT_TEMPLATE = (
    "{% if messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou answer in one line.<|im_end|>\n' }}{% endif %}"
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """The GGUF file of SmolLM2-135M-Instruct, pulled once into Etude's data folder."""
    from etude.tuning.models.pull import pull

    (file,) = pull("smollm2-135m").glob("*.gguf")
    return file


@pytest.fixture(scope="session")
def etude_command() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the command line in this process, which has imported PyTorch already.

    `etude_command("tune", "r.yaml", stdin="", cwd=None, **environment)` returns what a process
    would: exit code, standard output and error. Standard input is no terminal. Tests whose claim is
    about a process (imports, signals, memory) start one.
    """
    from etude.cli import main

    def run(
        *arguments: object, stdin: str = "", cwd: Path | None = None, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        words = ["etude", *map(str, arguments)]
        out, err = io.StringIO(), io.StringIO()
        with pytest.MonkeyPatch.context() as patch:
            patch.delenv("FORCE_COLOR", raising=False)
            for name, value in {"NO_COLOR": "1", "COLUMNS": "100", **environment}.items():
                patch.setenv(name, value)
            if cwd is not None:
                patch.chdir(cwd)
            patch.setattr(sys, "argv", words)
            patch.setattr(sys, "stdin", io.StringIO(stdin))
            code: int | str | None = 0
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                try:
                    main()
                except SystemExit as ended:
                    code = ended.code
        assert code is None or isinstance(code, int)
        return subprocess.CompletedProcess(words, code or 0, out.getvalue(), err.getvalue())

    return run


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data sets: `$ETUDE_DATA`, or `shared/data` beside the repository."""
    chosen = os.environ.get("ETUDE_DATA")
    folder = Path(chosen) if chosen else REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no data at {folder}; set ETUDE_DATA")
    return folder


@pytest.fixture(scope="session")
def tiny_tokenizer() -> Any:
    """A byte-level BPE tokenizer with ChatML's special tokens, trained on Python source."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    bpe.decoder = decoders.ByteLevel()
    text = [inspect.getsource(module) for module in (textwrap, json.decoder, inspect)]
    bpe.train_from_iterator(
        text,
        trainers.BpeTrainer(
            vocab_size=512,
            special_tokens=SPECIAL_TOKENS,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        unk_token="<|endoftext|>",
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|im_end|>",
        chat_template=CHAT_TEMPLATE,
        model_max_length=512,
    )


@pytest.fixture(scope="session")
def tiny_llama(
    tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: Any
) -> Callable[..., Path]:
    """A factory of small random Llama folders (config, safetensors, tokenizer).

    `tiny_llama(tied=True, layers=2, seed=0, **config)` writes a new folder at each call, so a test
    may damage it. Hidden size 64, 4 heads sharing 2 key and value heads, 512 tokens, float32;
    further keywords go to `LlamaConfig`.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    def make(*, tied: bool = True, layers: int = 2, seed: int = 0, **config: Any) -> Path:
        options: dict[str, Any] = {
            "vocab_size": len(tiny_tokenizer),
            "hidden_size": 64,
            "intermediate_size": 160,
            "num_hidden_layers": layers,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 512,
            "tie_word_embeddings": tied,
            # Large enough that attention and MLP visibly change the logits.
            "initializer_range": 0.08,
            "bos_token_id": tiny_tokenizer.bos_token_id,
            "eos_token_id": tiny_tokenizer.eos_token_id,
            "pad_token_id": tiny_tokenizer.pad_token_id,
            **config,
        }
        folder = tmp_path_factory.mktemp("tiny-llama")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = LlamaForCausalLM(LlamaConfig(**options))
        model.save_pretrained(folder)
        tiny_tokenizer.save_pretrained(folder)
        return folder

    return make


def _postgres_programs() -> Path | None:
    found = shutil.which("initdb")
    if found:
        return Path(found).resolve().parent
    return next(iter(sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)), None)


@pytest.fixture(scope="session")
def postgres():
    """The address of a PostgreSQL server that runs for these tests only."""
    programs = _postgres_programs()
    if programs is None:
        pytest.skip("PostgreSQL is not installed")
    # Not below pytest's folder, which later sessions clear while this one may still run.
    folder = Path(tempfile.mkdtemp(prefix="etude-postgres-"))
    user = {}
    if os.geteuid() == 0:  # it refuses to run as root
        shutil.chown(folder, "nobody")
        user = {"user": "nobody"}
    data = folder / "data"
    run = {"check": True, "capture_output": True, "cwd": folder, **user}
    subprocess.run(
        [programs / "initdb", "-D", data, "-U", "etude", "-A", "trust", "-E", "UTF8", "--no-sync"],
        **run,
    )
    options = f"-c listen_addresses='' -c unix_socket_directories={folder} -c fsync=off"
    subprocess.run(
        [programs / "pg_ctl", "-D", data, "-w", "-l", folder / "log", "-o", options, "start"], **run
    )
    yield f"postgresql+psycopg://etude@/postgres?host={folder}"
    subprocess.run([programs / "pg_ctl", "-D", data, "-m", "immediate", "stop"], **run)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(params=["sqlite", "postgresql"])
def address(request, tmp_path):
    """An empty database of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'etude.sqlite3'}"
    server = request.getfixturevalue("postgres")
    import psycopg

    name = f"test{time.time_ns()}"
    with psycopg.connect(server.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return server.replace("/postgres?", f"/{name}?")


@pytest.fixture
def engine(address):
    from etude.store.engine import open_store

    engine = open_store(address)
    yield engine
    engine.dispose()


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Headless Chromium, Debian's or the one on the path; in CI it must be there."""
    from playwright.sync_api import sync_playwright

    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        reason = "no chromium: apt-get install chromium"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=found,
            args=[
                "--no-sandbox",
                "--disable-gpu",
                "--no-first-run",
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
            ],
        )
        yield chromium
        chromium.close()


class Disk:
    """A small file system."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self._filling = place / "filling"

    def fill(self, leaving: int = 0) -> None:
        """Fill the disk, but for about `leaving` bytes."""
        self.free()
        with self._filling.open("wb", buffering=0) as file:
            try:
                while file.write(bytes(4096)) == 4096:
                    pass
            except OSError:
                pass
            size = file.seek(0, 2)
            file.truncate(max(0, size - leaving))

    def free(self) -> None:
        self._filling.unlink(missing_ok=True)


@contextlib.contextmanager
def _mounted(place: Path, size: str) -> Iterator[Disk]:
    place.mkdir()
    options = ["-t", "tmpfs", "-o", f"size={size}", "none", str(place)]
    done = subprocess.run(["mount", *options], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no small disk can be mounted here: {done.stderr.strip()}")
    try:
        yield Disk(place)
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


@pytest.fixture
def disk(tmp_path) -> Iterator[Disk]:
    """A disk of two megabytes that can be filled, where one can be mounted."""
    with _mounted(tmp_path / "disk", "2m") as small:
        yield small
