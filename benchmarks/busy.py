"""What is left of Etude's speed when another program keeps a core busy?

    python benchmarks/busy.py [--quick] [--spin COUNT ...] [--json FILE]

A program of its own, which computes without end and is bound to one core, is let run and halted in
turns (SIGCONT, SIGSTOP) while Etude works in a process of its own: it trains (QLoRA), evaluates,
generates answers in batches, and chats. Each finished piece of work (a step, a micro-batch, a batch
of answers, a token of chat) is a line with the time, and speeds are over whole pieces. So quiet and
busy speed come from the same process within seconds of each other. The sides take turns, those
whose turn it is not are halted, and the medians are compared:

- `etude`: as the command line sets it up;
- `runtime`: the same verb with OpenMP's own waiting (GOMP_SPINCOUNT as the runtime would choose),
  to see what Etude's choice gains when busy and costs when quiet;
- `peft`: training by transformers and PEFT, whose waiting is the runtime's.

Then two trainings at once: the sum of their speeds beside that of one.

Goals: 60 % of the quiet speed when one of two cores is busy; two at once 85 % of one; nothing lost
when quiet (98 % of the runtime's own waiting). `--spin` tries other spin counts instead.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
VERBS = ("train", "evaluate", "generate", "chat")
GOALS = {"busy": 0.60, "two at once": 0.85, "quiet beside the runtime's own waiting": 0.98}
RUNTIME = {"GOMP_SPINCOUNT": "300000"}
"""What libgomp chooses where nothing is set and no more threads run than cores."""
WORDS = ("the", "quick", "brown", "fox", "jumps", "over", "a", "lazy", "dog", "and", "runs", "far")

BUSY = "n = 0\nwhile True:\n    n = (n * 6364136223846793005 + 1442695040888963407) % 2**64\n"


# The worker: one verb, without end, a line for each piece of work


def say(amount: float) -> None:
    """Report a finished piece of work: its size, and the time."""
    print(json.dumps({"at": time.monotonic(), "amount": amount}), flush=True)


def rows(folder: Path) -> Path:
    """Write conversations of about 200 tokens."""
    file = folder / "rows.jsonl"
    lines = [
        {
            "prompt": " ".join(WORDS[(i * 7 + j * 3) % len(WORDS)] for j in range(90)),
            "completion": " ".join(WORDS[(i * 5 + j) % len(WORDS)] for j in range(80)),
        }
        for i in range(64)
    ]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    return file


def fields(folder: Path) -> dict[str, Any]:
    """Return the recipe that is trained: QLoRA of SmolLM2-135M, two samples a step."""
    return {
        "name": "busy",
        "model": {"id": "smollm2-135m"},
        "adapter": {"rank": 16, "alpha": 32},
        "data": {"train": str(rows(folder)), "eval_fraction": 0.1, "max_length": 256},
        "train": {"epochs": 10**4, "batch_samples": 2, "lr": 1e-5, "save_every": 10**6},
        "eval": {"generate": 0},
    }


def work(verb: str, folder: Path) -> None:
    """Do one verb until the process is killed."""
    from etude.core.progress import SilentProgress
    from etude.tuning.callbacks import Callback, StepRecord
    from etude.tuning.config.recipe import Recipe
    from etude.tuning.data.encode import Encoder
    from etude.tuning.data.samples import load_samples
    from etude.tuning.generation.greedy import generate
    from etude.tuning.models.load import load_model
    from etude.tuning.pipeline import tune
    from etude.tuning.placement import use_threads
    from etude.tuning.predictor import Predictor
    from etude.tuning.preparation import adapt
    from etude.tuning.training.evaluate import evaluation_loss

    recipe = Recipe.parse(fields(folder))
    if verb == "train":

        class Steps(Callback):
            tokens = 0

            def on_step_end(self, record: StepRecord) -> None:
                say(record.tokens - self.tokens)
                self.tokens = record.tokens

        tune(recipe, base=folder / "runs", callbacks=[Steps()], ignore_memory=True)
        return
    use_threads()
    loaded = load_model(recipe.model, recipe.quant)
    adapt(loaded, recipe)
    encoder = Encoder(loaded.tokenizer, recipe.data)
    split = load_samples(recipe.data, 0)
    if verb == "evaluate":
        samples = encoder.encode_all(split.train, SilentProgress()).samples

        class Pieces(SilentProgress):
            def advance(self, n: int = 1) -> None:
                say(n)

        while True:
            evaluation_loss(loaded.model, samples, 512, Pieces())
    loaded.model.eval()
    prompts = [encoder.prompt_ids(sample) for sample in split.train[:8]]
    if verb == "generate":
        while True:
            generate(loaded.model, prompts, [-1], max_new_tokens=12)
            say(8 * 12)
    predictor = Predictor(loaded, encoder, adapted=True, recipe=recipe)

    class Tokens:
        def put(self, _value: Any) -> None:
            say(1)

        def end(self) -> None:
            pass

    while True:
        predictor.reply(" ".join(WORDS[:12]), max_new_tokens=48, streamer=Tokens())


def peft(folder: Path) -> None:
    """Train by transformers and PEFT's own layers, the loop as short as can be."""
    import torch
    from peft import LoraConfig, get_peft_model

    from against_trl import DTYPE
    from etude.core.machine import this_machine
    from etude.tuning.config.sections.model import ModelSpec
    from etude.tuning.config.sections.quant import QuantSpec
    from etude.tuning.models.load import load_model

    torch.set_num_threads(this_machine().physical_cores)
    loaded = load_model(ModelSpec(id="smollm2-135m", dtype=DTYPE), QuantSpec(kind="none"))
    texts = [json.loads(line) for line in rows(folder).read_text("utf-8").splitlines()]
    ids = [
        loaded.tokenizer(f"{text['prompt']} {text['completion']}")["input_ids"] for text in texts
    ]
    config = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
    model: Any = get_peft_model(loaded.model, config)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-5)
    length = min(map(len, ids))
    step = 0
    while True:
        batch = torch.tensor([ids[(2 * step + i) % len(ids)][:length] for i in range(2)])
        model(input_ids=batch, labels=batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        step += 1
        say(batch.numel())


# The measurement

PATIENCE = 40.0
"""Seconds to wait for one piece of work; what takes longer counts as that."""


SETTLING = 3.0
"""Seconds until how threads wait has followed the machine: `CALM` looks of `core/waiting.py`."""


@dataclass
class Worker:
    """A process that does one verb, and the pieces that it has finished."""

    process: subprocess.Popen[bytes]
    output: Path

    def pieces(self) -> list[tuple[float, float]]:
        """Return (time of its end, amount) of each piece so far."""
        lines = self.output.read_bytes().split(b"\n")[:-1]
        records = [json.loads(line) for line in lines if line.startswith(b'{"at"')]
        return [(record["at"], record["amount"]) for record in records]

    def next_piece(self, limit: float = PATIENCE) -> None:
        """Wait until one more piece is finished, or `limit` seconds."""
        known, end = self.output.stat().st_size, time.monotonic() + limit
        while self.output.stat().st_size == known and time.monotonic() < end:
            if self.process.poll() is not None:
                log = self.output.with_suffix(".err").read_text("utf-8", "replace")
                sys.exit("a worker ended; the end of its log:\n" + log[-2000:])
            time.sleep(0.02)

    def speed(self, seconds: float) -> float:
        """Return amount a second over whole pieces that take about `seconds`, once it is steady."""
        time.sleep(SETTLING)
        self.next_piece()
        begin, known = time.monotonic(), len(self.pieces())
        time.sleep(seconds)
        self.next_piece()
        pieces = self.pieces()[known:]
        end = pieces[-1][0] if pieces else time.monotonic()
        return sum(amount for _, amount in pieces) / (end - begin)

    def go(self, running: bool) -> None:
        """Let the process run, or halt it."""
        self.process.send_signal(signal.SIGCONT if running else signal.SIGSTOP)


@contextmanager
def worker(what: str, environment: dict[str, str]) -> Iterator[Worker]:
    """Start a worker; it is killed at the end."""
    with tempfile.TemporaryDirectory(prefix="etude-busy-") as folder:
        output = Path(folder) / "out"
        clean = {k: v for k, v in os.environ.items() if k not in WAITING}
        with output.open("wb") as out, output.with_suffix(".err").open("wb") as err:
            process = subprocess.Popen(
                [sys.executable, str(Path(__file__).resolve()), "--work", what, folder],
                stdout=out,
                stderr=err,
                env={**clean, "HF_HUB_OFFLINE": "1", **environment},
            )
        try:
            yield Worker(process, output)
        finally:
            process.kill()
            process.wait()


WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "OMP_NUM_THREADS", "MKL_NUM_THREADS")


@contextmanager
def busy_program() -> Iterator[subprocess.Popen[bytes]]:
    """Start the busy program, bound to the first core that may be used, and halted."""
    process = subprocess.Popen([sys.executable, "-c", BUSY])
    os.sched_setaffinity(process.pid, {min(os.sched_getaffinity(0))})
    process.send_signal(signal.SIGSTOP)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def alternate(sides: dict[str, tuple[str, dict[str, str]]], options: Any) -> dict[str, Any]:
    """Measure all sides in turns, each quiet and busy; those whose turn it is not are halted.

    Args:
        sides: by name: what a worker does, and its environment.
        options: of the command line.
    """
    speeds = {name: {"quiet": list[float](), "busy": list[float]()} for name in sides}
    with ExitStack() as stack:
        program = stack.enter_context(busy_program())
        workers = {
            name: stack.enter_context(worker(what, environment))
            for name, (what, environment) in sides.items()
        }
        for one in workers.values():
            for _ in range(WARMING):
                one.next_piece(240.0)
            one.go(False)
        for _ in range(options.repeats):
            for name, one in workers.items():
                one.go(True)
                speeds[name]["quiet"].append(one.speed(options.seconds))
                program.send_signal(signal.SIGCONT)
                speeds[name]["busy"].append(one.speed(options.seconds))
                program.send_signal(signal.SIGSTOP)
                one.go(False)
    return {name: {**summed(found), "spans": found} for name, found in speeds.items()}


WARMING = 2
"""Pieces of work before the first that counts: kernels are compiled, buffers made."""


def summed(found: dict[str, list[float]]) -> dict[str, float]:
    """Return the medians, and how much of the quiet speed was kept."""
    quiet, busy = (statistics.median(found[kind]) for kind in ("quiet", "busy"))
    return {"quiet": quiet, "busy": busy, "kept": busy / quiet}


def together(options: Any) -> dict[str, Any]:
    """Measure one training alone and two at once, in turns."""
    alone: list[float] = []
    both: list[float] = []
    with worker("train", {}) as first, worker("train", {}) as second:
        for one in (first, second):
            for _ in range(WARMING):
                one.next_piece(240.0)
        for _ in range(options.repeats):
            second.go(False)
            alone.append(first.speed(options.seconds))
            second.go(True)
            with ThreadPoolExecutor(2) as pool:
                seconds = [options.seconds] * 2
                both.append(sum(pool.map(Worker.speed, (first, second), seconds)))
    ratio = statistics.median(both) / statistics.median(alone)
    return {"alone": alone, "both": both, "ratio": ratio}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    add("--quick", action="store_true", help="two short spans of each kind instead of five")
    add("--verbs", nargs="*", choices=VERBS, default=list(VERBS))
    add("--seconds", type=float, help="of a span (6; quick: 3)")
    add("--spin", nargs="+", help="try these GOMP_SPINCOUNT instead of the comparison")
    add("--together", action=argparse.BooleanOptionalAction, default=True, help="two trainings")
    add("--no-peer", action="store_true", help="leave out PEFT")
    add("--json", type=Path, metavar="FILE", help="write the figures here")
    add("--work", nargs=2, metavar=("VERB", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        verb, folder = options.work
        if verb == "peft":
            peft(Path(folder))
        else:
            work(verb, Path(folder))
        return
    options.repeats = 2 if options.quick else 5
    options.seconds = options.seconds or (3.0 if options.quick else 6.0)
    if (load := os.getloadavg()[0]) > 0.5:
        print(f"note: something else runs here (load {load:.1f}); figures will be off")
    if len(os.sched_getaffinity(0)) < 2:
        sys.exit("this needs two cores at least")
    found: dict[str, Any] = {"cores": len(os.sched_getaffinity(0))}
    for verb in options.verbs:
        sides = {
            f"{verb}, {name}": (verb, environment)
            for name, environment in (
                {spin: {"GOMP_SPINCOUNT": spin} for spin in options.spin}
                if options.spin
                else {"etude": {}, "runtime": RUNTIME}
            ).items()
        }
        if verb == "train" and not options.spin and not options.no_peer:
            sides["train, peft"] = ("peft", {})
        figures = alternate(sides, options)
        show(found, figures)
        if not options.spin:
            ratio = figures[f"{verb}, etude"]["quiet"] / figures[f"{verb}, runtime"]["quiet"]
            found[f"{verb}, quiet beside runtime"] = ratio
            print(f"{'':<20}quiet, beside the runtime's own waiting: {ratio:.3f}", flush=True)
    if options.together:
        found["together"] = together(options)
        print(f"two trainings at once: {found['together']['ratio']:.2f} of one")
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n", "utf-8")


def show(found: dict[str, Any], figures: dict[str, Any]) -> None:
    """Keep and print the figures of all sides."""
    found |= figures
    for name, side in figures.items():
        print(
            f"{name:<20}quiet {side['quiet']:8.1f}  busy {side['busy']:8.1f}  "
            f"kept {side['kept']:.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
