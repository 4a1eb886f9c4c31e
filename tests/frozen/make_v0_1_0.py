"""Writes `v0_1_0/`: what Etude 0.1.0 leaves on disk, for later versions to be tested with.

It ran once, with the code of commit 9937008 (before modules, recipe keys, environment variables
and verbs were renamed), and it runs with that code only; no test runs it. It is kept as the record
of how each file came about:

    python tests/frozen/make_v0_1_0.py tests/frozen/v0_1_0

Everything is made in a temporary folder under relative names, so that no path of the machine is
in any file, and by the code that people use: `etude tune`, `etude papers`, the judge. Models are
random, papers are invented by the replay server. Of the judge's workers the host's name is taken
out. To keep this small, of the compiled library only the name is kept, of a finished run only its
last checkpoint, and after full fine-tuning none.

    base/           the model: a random Llama with a tokenizer of 320 tokens
    rows.jsonl      prompts and completions;  judged.jsonl  answers with a label
    trained/        runs: pissa, full and judged are finished, stopped had SIGTERM, killed SIGKILL
    curves/         metrics of the same runs as stopped and killed, undisturbed
    adapters/       a folder a kind of adapter, and the logits of base and adapter together
    home/           ETUDE_HOME: the database, tokens that were kept, the compiled library's name
    old_keys/       a person's recipes, each with one key that had this name in 0.1.0
    made.json       what the tests compare with
"""

# ruff: noqa: I001 - it imports modules of 0.1.0, some of which are no more.
from __future__ import annotations

import inspect
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import yaml

LEARNER, READER, BOTH = "grace", "ada", "linus"
"""ETUDE_LEARNER, ETUDE_READER, and somebody who practised and read under one name."""

BASE: dict[str, Any] = {
    "model": {"id": "base", "dtype": "float32"},
    "adapter": {"rank": 2, "alpha": 4},
    "quant": {"kind": "none"},
    "data": {"train": "rows.jsonl", "eval_fraction": 0.2, "max_length": 128},
    "train": {
        "epochs": 3,
        "batch_samples": 4,
        "micro_tokens": 128,
        "lr": 0.02,
        "save_every": 4,
        "threads": 1,
    },
    "eval": {"generate": 2, "max_new_tokens": 4},
}

# Every key that was renamed later, at a value that is not its default.
FINISHED: dict[str, dict[str, Any]] = {
    "pissa": {
        "adapter": {"start": "pissa"},
        "quant": {"kind": "nf4"},
        "train": {"clip": 0.5, "checkpointing": True, "lr_ratio_b": 4.0},
    },
    "full": {
        "adapter": {"kind": "none"},
        "objective": {"kind": "completion"},
        "train": {"lr": 0.002, "clip": 0.7, "optimizer": "adamw8bit", "save_every": 100},
    },
    "judged": {
        "data": {"train": "judged.jsonl", "format": "judged"},
        "objective": {"kind": "kto", "wanted_weight": 1.5, "unwanted_weight": 0.75},
        "train": {"clip": 0.5},
    },
}
CUT_SHORT: dict[str, dict[str, Any]] = {
    "stopped": {"train": {"epochs": 12, "clip": 0.5}, "quant": {"kind": "nf4"}},
    "killed": {
        "train": {"epochs": 12, "checkpointing": True, "lr_ratio_b": 2.0},
        "adapter": {"dropout": 0.1},
    },
}
ADAPTERS: dict[str, dict[str, Any]] = {
    "lora": {"adapter": {}},
    "qlora": {"adapter": {}, "quant": {"kind": "nf4"}},
    "dora": {"adapter": {"kind": "dora"}},
    "vera": {"adapter": {"kind": "vera", "rank": 8}, "train": {"lr": 0.2}},
    "adalora": {
        "adapter": {"kind": "adalora", "adalora": {"warmup": 0.1, "settle": 0.2}},
        "train": {"lr": 0.1},
    },
    "factors": {"adapter": {"factors": {"bits": 4, "when": "training"}}},
    "pissa": {"adapter": {"start": "pissa"}, "quant": {"kind": "nf4"}},
    "loftq": {"adapter": {"start": "loftq", "loftq_iterations": 2}, "quant": {"kind": "nf4"}},
    "modules": {"adapter": {"rslora": True, "modules_to_save": ["norm"]}},
}
OLD_KEYS: dict[str, Any] = {
    "adapter.start": "pissa",
    "adapter.kind": "none",
    "train.clip": 0.5,
    "train.checkpointing": True,
    "train.lr_ratio_b": 16.0,
    "objective.wanted_weight": 1.5,
    "objective.unwanted_weight": 0.75,
    "data.format": "judged",
    "objective.kind": "completion",
}
IDS = list(range(3, 9))


def recipe(name: str, sections: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a recipe: BASE with `sections` merged in."""
    merged = {key: {**BASE.get(key, {}), **sections.get(key, {})} for key in {**BASE, **sections}}
    return {"name": name, **merged}


def write_rows() -> None:
    words = ("add", "sub", "mul", "div", "read", "write", "open", "close", "sort", "find")
    rows, judged = [], []
    for i in range(24):
        prompt = f"def {words[i % 10]}_{words[i * 7 % 10]}({', '.join(words[: 1 + i % 5])}):"
        rows.append({"prompt": prompt, "completion": f"{words[i % 10].title()} number {i}."})
        judged.append({**rows[-1], "label": i % 2 == 0})
    for file, content in (("rows.jsonl", rows), ("judged.jsonl", judged)):
        Path(file).write_text("".join(json.dumps(row) + "\n" for row in content), "utf-8")


def write_base() -> None:
    import textwrap

    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    bpe.train_from_iterator(
        [inspect.getsource(textwrap)],
        trainers.BpeTrainer(
            vocab_size=320,
            special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        unk_token="<|endoftext|>",
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|im_end|>",
        chat_template=(
            "{% for message in messages %}"
            "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
            "{% endfor %}"
            "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
        ),
        model_max_length=256,
    )
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            max_position_embeddings=256,
            tie_word_embeddings=True,
            initializer_range=0.1,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    model.save_pretrained("base")
    tokenizer.save_pretrained("base")


def etude(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "etude", *arguments], check=False, capture_output=True, text=True
    )
    if done.returncode:
        raise SystemExit(f"etude {' '.join(arguments)}: {done.stderr}")
    return done.stdout


def tuned(name: str, sections: dict[str, Any], runs: str) -> Path:
    from etude.tuning.recipe import Recipe
    from etude.tuning.run import tune

    return tune(Recipe.parse(recipe(name, sections)), base=runs).folder


def cut_short(name: str, sections: dict[str, Any], how: signal.Signals) -> None:
    from etude.tuning.runfolder import RunFolder

    file = Path(f"{name}.yaml")
    file.write_text(yaml.safe_dump(recipe(name, sections), sort_keys=False), "utf-8")
    process = subprocess.Popen(
        [sys.executable, "-m", "etude", "tune", str(file), "--runs", "trained", "--quiet"]
    )
    while not any(
        metrics.read_bytes().count(b"\n") >= 14
        for metrics in Path("trained").glob(f"{name}-*/metrics.jsonl")
    ):
        assert process.poll() is None, f"it ended by itself, with {process.returncode}"
        time.sleep(0.001)
    process.send_signal(how)
    process.wait()
    file.unlink()
    (folder,) = Path("trained").glob(f"{name}-*")
    assert RunFolder.open(folder).state == name, RunFolder.open(folder).state


def write_runs() -> dict[str, Any]:
    """Make the runs; return what each of them is to give again."""
    from etude.tuning.evaluation import evaluate_run
    from etude.tuning.runfolder import RunFolder
    from etude.tuning.tuned import load

    made: dict[str, Any] = {}
    for name, how in (("stopped", signal.SIGTERM), ("killed", signal.SIGKILL)):
        cut_short(name, CUT_SHORT[name], how)
        whole = tuned(name, CUT_SHORT[name], "whole")
        Path("curves").mkdir(exist_ok=True)
        shutil.copy(whole / "metrics.jsonl", f"curves/{name}.jsonl")
        summary = RunFolder.open(whole).read_json("summary.json")
        made[name] = {key: summary[key] for key in ("eval_loss", "eval_loss_before")}
    shutil.rmtree("whole")
    for name, sections in FINISHED.items():
        folder = RunFolder.open(tuned(name, sections, "trained"))
        summary = folder.read_json("summary.json")
        prompt = json.loads(Path("rows.jsonl").read_text().splitlines()[3])["prompt"]
        for older in sorted(folder.checkpoints.iterdir())[:-1]:
            older.unlink()
        if name == "full":
            shutil.rmtree(folder.checkpoints)  # three times the model, which is there
        made[name] = {
            "eval_loss": summary["eval_loss"],
            "eval_loss_before": summary["eval_loss_before"],
            "evaluated": evaluate_run(folder)["tuned"],
            "prompt": prompt,
            "reply": load(folder).reply(prompt, max_new_tokens=8),
        }
    return made


def write_adapters() -> dict[str, Any]:
    """Train a few steps of each kind; keep the adapter, and logits that tell it from the base."""
    import numpy as np
    import torch

    from etude.tuning.adapters.files import load_adapter
    from etude.tuning.models.load import load_model
    from etude.tuning.models.original import OriginalWeights
    from etude.tuning.specs import ModelSpec, QuantSpec

    ids, quants = torch.tensor([IDS]), {}
    for name, sections in ADAPTERS.items():
        run = tuned(name, sections, "kinds")
        shutil.copytree(run / "adapter", f"adapters/{name}")
        quants[name] = sections.get("quant", {"kind": "none"})["kind"]
        loaded = load_model(ModelSpec(id="base", dtype="float32"), QuantSpec(kind=quants[name]))
        with torch.no_grad():
            base = loaded.model(input_ids=ids).logits
            with OriginalWeights(loaded.origin) as original:
                folder = Path("adapters") / name
                load_adapter(loaded.model, folder, origin=loaded.origin, original=original)
            adapted = loaded.model(input_ids=ids).logits
        np.savez_compressed(f"adapters/{name}.npz", ids=ids.numpy(), logits=adapted.numpy())
        # The tests tell base and adapter apart by it: a hundred times their tolerance and more.
        assert (adapted - base).abs().max() > 0.5, name
    shutil.rmtree("kinds")
    return quants


def write_database() -> dict[str, Any]:
    """Practise, and read papers, under two names; return what was done."""
    from etude.papers.library import Library
    from etude.papers.reader import Reader
    from etude.papers.replay import ReplayServer, generated
    from etude.practice.daily import problem_of_the_day
    from etude.practice.explanations import Explanations
    from etude.practice.problem import find_problem, load_shelf
    from etude.practice.progress import Progress
    from etude.practice.queue import Queue
    from etude.practice.session import learner_name, submit
    from etude.practice.tutor import Explanation
    from etude.store.engine import open_store

    with ReplayServer(generated(24, first=date.today() - timedelta(days=9), days=6)) as server:
        os.environ["ETUDE_ARXIV"] = server.address
        etude("papers", "sync")
        found = etude("papers", "search", "the OR with OR a", "--ids", "-n", "6").split()
    del os.environ["ETUDE_ARXIV"]
    engine = open_store()
    library = Library(engine)
    found = (found + [row["id"] for page in library.since(0) for row in page])[:6]
    etude("papers", "like", found[0])
    etude("papers", "like", found[1])
    etude("papers", "dislike", found[2])
    reader = Reader(engine, READER)
    assert reader.opinions(), "ETUDE_READER is not who reads"
    reader.tag(found[0], "to read")
    reader.tag(found[3], "to read")
    reader.tag(found[0], "detection")
    author = library.get(found[4])["authors"][0]
    reader.follow(author)
    reader.save_search("news", "cat:cs.CV")
    Reader(engine, BOTH).like(found[5])

    learner = learner_name()
    problem = find_problem("create-tensordataset")
    progress = Progress(engine, learner)
    progress.set_timezone("Europe/Berlin")
    progress.open(problem.slug)
    progress.take_hint(problem.slug, 1)
    choice = problem_of_the_day(engine, progress, load_shelf())
    wrong = (problem.folder / "wrong" / "count_only.py").read_text("utf-8")
    right = (problem.folder / "solution.py").read_text("utf-8")
    verdicts = [submit(engine, problem, source, learner)[1].kind for source in (wrong, right)]
    assert verdicts == ["wrong answer", "accepted"], verdicts
    submit(engine, problem, right, BOTH)
    told = Explanations(engine, learner)
    told.keep(problem.slug, Explanation("a-model", "It returns None.", ""))
    told.rate(True)
    told.keep(problem.slug, Explanation("a-model", "", "it held the answer"))
    queue = Queue(engine)
    queue.add(learner, problem.slug, "# begun by a judge that died\n")
    queue.claim("a judge that died")
    queue.add(learner, problem.slug, "# waits\n")

    at = time.time()
    stats = asdict(Progress(engine, learner, lambda: at).stats())
    stats["by_day"] = {str(day): count for day, count in stats["by_day"].items()}
    stats["concepts"] = [{**one, "due": str(one["due"])} for one in stats["concepts"]]
    made = {
        "learner": LEARNER,
        "reader": READER,
        "both": BOTH,
        "at": at,
        "stats": stats,
        "timezone": progress.timezone().key,
        "hints": progress.hints_taken(problem.slug),
        "daily": choice.problem.slug,
        "history": queue.history(learner),
        "both_history": queue.history(BOTH),
        "reader_export": reader.export(),
        "both_opinions": Reader(engine, BOTH).opinions(),
        "papers": library.count(),
        "last_day": library.last_day(),
        "titles": {row["id"]: row["title"] for page in library.since(0) for row in page},
        "day": [row["id"] for row in library.day(str(library.last_day()))],
    }
    with engine.connect() as connection:
        from sqlalchemy import inspect as look
        from sqlalchemy import text

        tables = {
            name: connection.execute(text(f'SELECT count(*) FROM "{name}"')).scalar()
            for name in look(connection).get_table_names()
        }
        assert all(tables.values()), tables
        connection.execute(
            text("UPDATE practice_submissions SET worker = replace(worker, :host, 'host')"),
            {"host": platform.node()},
        )
        connection.commit()
        connection.execute(text("PRAGMA wal_checkpoint(TRUNCATE)"))
    engine.dispose()
    return {**made, "tables": tables}


def write_old_keys() -> None:
    Path("old_keys").mkdir()
    for key, value in OLD_KEYS.items():
        section, name = key.split(".")
        mine: dict[str, Any] = {"model": "base", "data": {"train": "rows.jsonl"}}
        mine["quant"] = {"kind": "none"}
        mine.setdefault(section, {})[name] = value
        text = yaml.safe_dump(mine, sort_keys=False)
        Path(f"old_keys/{key}.yaml").write_text(text, "utf-8")


def main() -> None:
    """Make everything in a temporary folder, then put it in place of what is there."""
    target = Path(sys.argv[1]).resolve()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        # In the runs' environment there is to be no folder above this one that git knows.
        os.environ |= {
            "ETUDE_HOME": "home",
            "ETUDE_LEARNER": LEARNER,
            "ETUDE_READER": READER,
            "HF_HUB_OFFLINE": "1",
            "GIT_CEILING_DIRECTORIES": folder,
        }
        write_rows()
        write_base()
        write_old_keys()
        made = {"runs": write_runs(), "adapters": write_adapters(), "store": write_database()}
        Path("made.json").write_text(json.dumps(made, indent=2) + "\n", "utf-8")
        for library in Path("home/native").iterdir():
            library.write_bytes(b"a library compiled by Etude 0.1.0: only its name is kept\n")
        for other in Path("home").iterdir():
            if other.name not in ("native", "tokens", "etude.sqlite3"):
                print("left out: home /", other.name)
                shutil.rmtree(other) if other.is_dir() else other.unlink()
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(".", target, symlinks=True)


if __name__ == "__main__":
    main()
