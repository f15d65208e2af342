"""The device's command line: parse, call, print. Everything is decided elsewhere.

One file a command, or a few that belong together. Only the file of the command that is asked for is
loaded, and that loads what it needs when it runs: a check that finds nothing new must not wait for
what it does not use.
"""

import importlib
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NoReturn

from modelward.cli.options import EXIT_CODES
from modelward.cli.plain import parse
from modelward.cli.terminal import let_go, open_what_is_closed, report_error
from modelward.errors import ExitCode, ModelwardError, UsageError

if TYPE_CHECKING:
    import argparse

_COMMANDS: Mapping[str, tuple[str, ...]] = {
    "init": ("init",),
    "update": ("update", "check"),
    "import_": ("import",),
    "run": ("run", "systemd"),
    "confirm": ("confirm",),
    "rollback": ("rollback",),
    "pin": ("pin", "unpin"),
    "gc": ("gc",),
    "status": ("status",),
    "explain": ("explain",),
    "verify": ("verify",),
    "log": ("evidence", "gossip", "verify-proof"),
    "report": ("report",),
    "serve": ("serve",),
    "completion": ("completion",),
}
"""Files of this folder and the commands that each adds, in the order of `--help`."""

_ABOUT = """\
Verified updates of AI models, on a device. Nothing is installed unless the security team's roles
(TUF), the chain of training steps (in-toto), the transparency log, where there is one, and the
fleet's policy all agree; that is decided before a single weight is fetched.
"""

_EXAMPLE = """\
example:
  modelward init --repository https://models.example.com --root root.json
  modelward update

"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    open_what_is_closed()
    words = sys.argv[1:] if arguments is None else arguments
    code, options = 0, None
    try:
        options = parse(words) or parser(*words[:1]).parse_args(words)
        code = int(options.run(options))
        if unsaid := getattr(options, "unsaid", None):
            raise unsaid
        sys.stdout.flush()
    except ModelwardError as error:
        report_error(error, as_json=getattr(options, "json", "--json" in words))
        return int(error.exit_code)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        let_go(sys.stdout)  # nobody reads on
        return code or int(ExitCode.ERROR)
    except OSError as error:
        failure = ModelwardError(str(error), "check permissions and free space")
        report_error(failure, as_json=getattr(options, "json", "--json" in words))
        return code or int(failure.exit_code)
    return code


def parser(command: str | None = None) -> "argparse.ArgumentParser":
    """Return a parser that knows a command, or all if there is none of that name."""
    import argparse  # noqa: PLC0415 - see modelward.cli.plain

    class Parser(argparse.ArgumentParser):
        """Tells of wrong usage as of any other error."""

        def error(self, message: str) -> NoReturn:
            self.print_usage(sys.stderr)
            raise UsageError(message, f"see `{self.prog} --help`")

    top = Parser(
        prog="modelward",
        description=_ABOUT,
        epilog=_EXAMPLE + EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    # Told its name, argparse need not format a usage line to find it out.
    commands = top.add_subparsers(title="commands", metavar="COMMAND", required=True, prog=top.prog)
    wanted = [file for file, names in _COMMANDS.items() if command in names] or _COMMANDS
    for file in wanted:
        importlib.import_module(f"{__name__}.{file}").add(commands)
    return top
