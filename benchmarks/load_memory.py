"""How much memory does loading a model take, at its peak?

    python benchmarks/load_memory.py [MODEL] [--json FILE]

Each way of loading runs in a process of its own; its peak is the kernel's (`VmHWM`: the most
bytes of the process that ever stood in memory). The promise is that a load into NF4 peaks at no
more than the quantised model, one and a half times the largest tensor in float32, and the
interpreter with its imports. `naive` is what the promise is for: load everything in float32, then
quantise. Exit code 1 if the promise is broken.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, cast

MODES = {
    "imports": "imports alone",
    "nf4": "NF4",
    "native": "the file's own blocks",
    "bfloat16": "dense bfloat16",
    "float32": "dense float32",
    "naive": "naive: float32, then NF4",
}


def measure(mode: str, model: str) -> dict[str, Any]:
    """Run one way of loading in a fresh process.

    Returns:
        `mode`, `peak` (bytes), and except for `imports` `seconds`, `size` (bytes of the finished
        model's tensors) and `largest` (weights of the largest tensor).
    """
    command = [sys.executable, __file__, model, "--worker", mode]
    if mode == "imports":
        command += ["--names", *class_names(model)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout)


def bound(imports: dict[str, Any], quantized: dict[str, Any]) -> int:
    """Return the promised peak of the load that `quantized` measured, bytes."""
    return quantized["size"] + 6 * quantized["largest"] + imports["peak"]


def class_names(model: str) -> list[str]:
    """Return what loading `model` takes from transformers, which imports a class when named."""
    from etude.tuning.models.load import open_checkpoint
    from etude.tuning.models.sources import resolve

    classes = open_checkpoint(resolve(model)).config.architectures
    return ["AutoModelForCausalLM", "PreTrainedTokenizerFast", "GenerationConfig", *classes]


def import_only(names: list[str]) -> dict[str, Any]:
    """Import what a load imports, read nothing, and measure."""
    import importlib

    from etude.core.machine import peak_rss

    importlib.import_module("etude.tuning.models.load")
    transformers = importlib.import_module("transformers")
    for name in names:
        getattr(transformers, name)
    return {"mode": "imports", "peak": peak_rss()}


def load(mode: str, model: str) -> dict[str, Any]:
    """Load `model` one way, in this process, and measure."""
    import torch

    from etude.core.machine import peak_rss
    from etude.tuning.config.sections.model import ModelSpec
    from etude.tuning.config.sections.quant import QuantSpec
    from etude.tuning.models.load import load_model
    from etude.tuning.quant import build
    from etude.tuning.quant.linear import QuantLinear

    start = time.perf_counter()
    dtype: Any = "bfloat16" if mode in ("nf4", "native", "bfloat16") else "float32"
    quant = QuantSpec(kind=cast("Any", mode) if mode in ("nf4", "native") else "none")
    loaded = load_model(ModelSpec(id=model, dtype=dtype), quant).model
    if mode == "naive":
        head = loaded.get_output_embeddings()
        for name, module in list(loaded.named_modules()):
            if isinstance(module, torch.nn.Linear) and module is not head:
                layer = build.quantized(module.weight, QuantSpec(), torch.bfloat16, module.bias)
                loaded.set_submodule(name, layer)
        loaded.to(torch.bfloat16)
    seconds = time.perf_counter() - start
    tensors = [*loaded.parameters(), *loaded.buffers()]
    layers = [module for module in loaded.modules() if isinstance(module, QuantLinear)]
    weights = [parameter.numel() for parameter in loaded.parameters()]
    weights += [layer.in_features * layer.out_features for layer in layers]
    return {
        "mode": mode,
        "peak": peak_rss(),
        "seconds": seconds,
        "size": sum(tensor.numel() * tensor.element_size() for tensor in tensors),
        "largest": max(weights),
    }


def report(measured: list[dict[str, Any]], model: str) -> None:
    """Print the table and the verdict."""
    imports, quantized = measured[0], measured[1]
    print(f"Loading {model}, MB (10⁶ bytes)")
    print(f"{'':26}{'peak':>8}{'above imports':>15}{'finished model':>16}{'seconds':>9}")
    for row in measured:
        above = row["peak"] - imports["peak"]
        line = f"{MODES[row['mode']]:26}{row['peak'] / 1e6:8.0f}{above / 1e6:15.0f}"
        if row is not imports:
            line += f"{row['size'] / 1e6:16.0f}{row['seconds']:9.1f}"
        print(line)
    limit = bound(imports, quantized)
    print(
        f"Bound for NF4: {quantized['size'] / 1e6:.0f} (quantised) + 1.5 × "
        f"{4 * quantized['largest'] / 1e6:.0f} (largest tensor in float32) + "
        f"{imports['peak'] / 1e6:.0f} (imports) = {limit / 1e6:.0f}; "
        f"{'kept' if quantized['peak'] <= limit else 'BROKEN'} with {quantized['peak'] / 1e6:.0f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("model", nargs="?", default="smollm2-135m")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here, too")
    parser.add_argument("--worker", choices=MODES, help=argparse.SUPPRESS)
    parser.add_argument("--names", nargs="*", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        imports = options.worker == "imports"
        done = import_only(options.names) if imports else load(options.worker, options.model)
        print(json.dumps(done))
        return
    from etude.tuning.models.pull import pull
    from etude.tuning.models.sources import resolve
    from etude.tuning.runs.environment import environment

    if resolve(options.model).path is None:
        pull(options.model)
    measured = [measure(mode, options.model) for mode in MODES]
    report(measured, options.model)
    limit = bound(measured[0], measured[1])
    holds = measured[1]["peak"] <= limit
    if options.json:
        record = {
            "model": options.model,
            "measured": measured,
            "bound": limit,
            "holds": holds,
            "environment": environment(),
        }
        options.json.write_text(json.dumps(record, indent=2) + "\n", "utf-8")
    sys.exit(0 if holds else 1)


if __name__ == "__main__":
    main()
