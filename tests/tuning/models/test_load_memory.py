from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

BENCHMARK = Path(__file__).parents[3] / "benchmarks" / "load_memory.py"


def load_benchmark() -> Any:
    spec = importlib.util.spec_from_file_location("load_memory", BENCHMARK)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.weights
def test_a_load_into_nf4_peaks_below_its_bound(smollm2: Path) -> None:
    benchmark = load_benchmark()
    imports = benchmark.measure("imports", str(smollm2))
    quantized = benchmark.measure("nf4", str(smollm2))

    # The embedding, in float32, is the largest tensor; every Linear is in 4.127 bits a weight.
    assert quantized["largest"] == 49152 * 576
    assert quantized["size"] < 49152 * 576 * 2 + 106_168_320 * 4.2 / 8 + 100_000
    assert quantized["peak"] <= benchmark.bound(imports, quantized)


@pytest.mark.weights
def test_a_load_of_the_files_own_blocks_peaks_below_the_same_bound(smollm2: Path) -> None:
    benchmark = load_benchmark()
    imports = benchmark.measure("imports", str(smollm2))
    native = benchmark.measure("native", str(smollm2))

    # Q4_1 is five bits a weight, and nothing beside.
    assert native["size"] < 49152 * 576 * 2 + 106_168_320 * 5 / 8 + 100_000
    assert native["peak"] <= benchmark.bound(imports, native)
