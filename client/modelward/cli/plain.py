"""The plainest command lines, which timers call again and again, parsed without argparse.

Most of these calls find nothing new, and loading argparse takes longer than asking the server.
"""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from modelward.cli import update

_RUN = {"update": update.update, "check": update.check}


def parse(words: Sequence[str]) -> Any:
    """Return what the parser would make of a line; None if that takes the parser.

    Plain are `update` and `check` with nothing but `--state DIR` and `--json`.
    """
    if not words or words[0] not in _RUN:
        return None
    given: dict[str, Any] = {"state": None, "json": False}
    rest = iter(words[1:])
    for word in rest:
        if word == "--json":
            given["json"] = True
        elif word == "--state" and not (value := next(rest, "-")).startswith("-"):
            given["state"] = value
        else:
            return None
    return SimpleNamespace(
        **given,
        models=[],
        repository=None,
        channel=None,
        device_id=None,
        retry=False,
        events=None,
        run=_RUN[words[0]],
    )
