"""Run a command again and again, killed before the first, second ... change to the file system.

    python kill_everywhere.py TEMPLATE WORK COMMAND...

TEMPLATE is copied to WORK/1, WORK/2, ...; the last is the run that was not killed. Prints how many
there were. ``{}`` in COMMAND stands for the copy.
"""

import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from modelward_repo import cli

CHANGES = ("fsync", "rename", "mkdir", "open", "unlink", "link")


def killed_at(point: int, args: list[str]) -> bool:
    """Run a command in a fork, killed at its point-th change; tell whether it got that far."""
    child = os.fork()
    if not child:
        count = 0

        def counting(call: Callable[..., Any]) -> Callable[..., Any]:
            def counted(*args: Any, **options: Any) -> Any:
                nonlocal count
                if call.__name__ != "open" or args[1] & os.O_CREAT:
                    count += 1
                    if count == point:
                        os.kill(os.getpid(), signal.SIGKILL)
                return call(*args, **options)

            return counted

        for name in CHANGES:
            setattr(os, name, counting(getattr(os, name)))
        code = cli.run(args)
        sys.stdout.flush()
        os._exit(code)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return True
    if os.waitstatus_to_exitcode(status) != 0:
        raise SystemExit(f"at point {point}: exit {os.waitstatus_to_exitcode(status)}")
    return False


def main() -> None:
    template, work, *command = sys.argv[1:]
    # Imported once, before forking: otherwise every run would spend most of its time on it.
    from modelward_repo.cli import publish  # noqa: F401, PLC0415

    point = 0
    more = True
    while more:
        point += 1
        copy = Path(work, str(point))
        shutil.copytree(template, copy)
        more = killed_at(point, [arg.replace("{}", str(copy)) for arg in command])
    print(f"points: {point}", flush=True)


if __name__ == "__main__":
    main()
