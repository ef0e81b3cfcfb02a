"""Run all benchmarks, one after the other: ``python -m benchmarks [--full] [--folder F]``."""

from __future__ import annotations

import subprocess
import sys

NAMES = (
    "start",
    "decide",
    "preview",
    "graph",
    "stitching",
    "incumbents",
    "floor",
    "memory",
    "petabyte",
)


def main() -> None:
    """Run each in its own process; exit with an error if one fails."""
    failed = []
    for name in NAMES:
        sys.stdout.write(f"\n{name}\n{'-' * len(name)}\n")
        sys.stdout.flush()
        if subprocess.call([sys.executable, "-m", f"benchmarks.{name}", *sys.argv[1:]]):
            failed.append(name)
    if failed:
        sys.exit(f"Failed: {', '.join(failed)}.")


if __name__ == "__main__":
    main()
