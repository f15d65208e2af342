"""The device's command line: parse, call, print. Everything is decided elsewhere.

One file a command, or a few that belong together. Each loads what it needs when it runs: a check
that finds nothing new must not wait for what it does not use.
"""

import argparse
import os
import sys
from collections.abc import Sequence

from modelward.cli import completion, explain, init, log, run, status, update, verify
from modelward.cli.options import EXIT_CODES
from modelward.cli.terminal import report_error
from modelward.errors import ExitCode, ModelwardError

_EXAMPLE = """\
example:
  modelward init --repository https://models.example.com --root root.json
  modelward update

"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    options = _parser().parse_args(arguments)
    try:
        code = int(options.run(options))
        sys.stdout.flush()
    except ModelwardError as error:
        report_error(error, as_json=getattr(options, "json", False))
        return int(error.exit_code)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Nobody reads on. Python flushes once more at exit: let that go nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return int(ExitCode.ERROR)
    except OSError as error:
        failure = ModelwardError(str(error), "check permissions and free space")
        report_error(failure, as_json=getattr(options, "json", False))
        return int(failure.exit_code)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="modelward",
        description="Verified updates of AI models, on a device. Nothing is installed unless "
        "the security team's roles (TUF), the chain of training steps (in-toto) and the fleet's "
        "policy all agree; that is decided before a single weight is fetched.",
        epilog=_EXAMPLE + EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    for module in (init, update, run, status, explain, verify, log):
        module.add(commands)
    completion.add(commands, parser)
    return parser
