"""`python -m tests.differential --seeds N --from S`: many configurations, failures made small.

A failing configuration is shrunk and written to `cases/`, where `test_differential.py` finds it.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from comparison import failure_of, shrunk  # noqa: E402 - beside this file
from configurations import draw  # noqa: E402


def main() -> int:
    """Run; return 1 if anything failed."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--seeds", type=int, default=1000, help="how many")
    options.add_argument("--from", type=int, default=0, dest="first", help="the first of them")
    options.add_argument("--minutes", type=float, help="end after this long")
    options.add_argument("--keep", action="store_true", help="write failing cases, made small")
    given = options.parse_args()
    began, failed, done = time.monotonic(), 0, 0
    for seed in range(given.first, given.first + given.seeds):
        if given.minutes and time.monotonic() - began > 60 * given.minutes:
            break
        done += 1
        configuration = draw(seed)
        failure = failure_of(configuration)
        if failure is None:
            continue
        failed += 1
        print(f"seed {seed}: {failure}", flush=True)
        if given.keep:
            small = shrunk(configuration, failure.partition(":")[0])
            (HERE / "cases" / f"seed-{seed}.json").write_text(small.to_json() + "\n", "utf-8")
            configuration = small
        print("  " + configuration.to_json().replace("\n", ""), flush=True)
    print(f"{done} configurations, {failed} failed, {time.monotonic() - began:.0f} s")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
