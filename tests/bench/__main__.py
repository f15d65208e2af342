"""`make bench`: run the benchmarks that are named, or all, one after the other.

    make bench                      all
    make bench ARGS=ledger          one of them
    make bench ARGS="ledger --help" what it can be told

Each is a module of this folder with a `main(arguments)`; it measures beside peers and limits in one
run, and writes its part of docs/benchmarks.md.
"""

import importlib
import signal
import sys

BENCHMARKS = (
    "ledger",
    "audit",
    "deltas",
    "delta_stages",
    "delta_update",
    "publish",
    "daemon",
    "check",
    "load",
    "transfer",
    "transfer_tls",
    "switch",
)


def main(arguments: list[str]) -> int:
    """Run benchmarks."""
    named = [word for word in arguments if word in BENCHMARKS]
    options = [word for word in arguments if word not in BENCHMARKS]
    if options and (len(named) != 1 or not options[0].startswith("-")):
        print(f"usage: make bench ARGS='[{'|'.join(BENCHMARKS)}] [OPTIONS of that one]'")
        return 2
    for name in named or BENCHMARKS:
        print(f"== {name}", flush=True)
        importlib.import_module(f"tests.bench.{name}").main(options)
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: tidies up
    sys.exit(main(sys.argv[1:]))
