"""Has Etude become slower than it was, beside the same peer?

    python benchmarks/regression.py [--found FILE] [--kept FILE]

Compares what `make bench` found (build/bench/cpu.json) with the figures that are kept in the
repository, row by row: results/cpu-bfloat16.json, or cpu-float32.json where that was computed in.
All are ratios, so that another machine, or the same on another day, may be compared. Exit code 1
if one is worse by more than 10 %, or is missing. Where nothing was ever kept of a dtype there is
nothing to lose, and it says so.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ALLOWED = 0.10


def losses(found: list[dict[str, Any]], kept: list[dict[str, Any]]) -> list[str]:
    """Return a line for each row of `kept` that is missing, or worse than allowed, in `found`."""
    values = {row["name"]: row["value"] for row in found}
    lines: list[str] = []
    for row in kept:
        value = values.get(row["name"])
        if value is None:
            lines.append(f"{row['name']}: not measured")
            continue
        gain = value / row["value"] if row["more"] else row["value"] / value
        if gain < 1 - ALLOWED:
            lines.append(f"{row['name']}: {value:.3f}, was {row['value']:.3f}")
    return lines


def figures(file: Path, parser: argparse.ArgumentParser) -> dict[str, Any]:
    """Read what cpu.py wrote; end in one line where that is not it."""
    try:
        content = json.loads(file.read_text("utf-8"))
    except OSError as error:
        parser.error(f"{file} cannot be read ({error.strerror}): run `make bench` first")
    except ValueError:
        content = None
    if not isinstance(content, dict) or "rows" not in content:
        parser.error(f"{file} is not what cpu.py writes")
    return content


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--found", type=Path, default=HERE.parent / "build" / "bench" / "cpu.json")
    parser.add_argument("--kept", type=Path, help="default: of results/, that of the same dtype")
    options = parser.parse_args()
    found = figures(options.found, parser)
    dtype = found.get("dtype")
    file = options.kept or HERE / "results" / f"cpu-{dtype}.json"
    if options.kept is None and not file.exists():
        print(f"no ratios of {dtype} were kept: {options.found} would be the first")
        return
    kept = figures(file, parser)["rows"]
    lines = losses(found["rows"], kept)
    print("\n".join(lines) or f"{len(kept)} ratios, none worse by more than {ALLOWED:.0%}")
    sys.exit(bool(lines))


if __name__ == "__main__":
    main()
