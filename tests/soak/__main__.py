"""`make soak`: kill the daemon 1,000 times and print a table; fails if anything went wrong."""

import argparse
import secrets
import signal
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.soak.soak import Soak

SHOWN = 20


def main() -> int:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cycles", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1 << 32))
    options = parser.parse_args()

    def progress(done: int) -> None:
        if sys.stderr.isatty():
            print(f"\r  {done} of {options.cycles}", end="", file=sys.stderr, flush=True)

    print(f"{options.cycles} cycles, seed {options.seed}")
    with TemporaryDirectory(prefix="modelward-soak-") as place:
        result = Soak(Path(place), options.seed).run(options.cycles, progress)
    print("\n" * sys.stderr.isatty() + result.table())
    for failure in result.failures[:SHOWN]:
        print(f"  {failure}")
    return 1 if result.failures else 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: tidies up
    sys.exit(main())
