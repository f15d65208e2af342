"""What every command's options have in common."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelward.settings import DEFAULT_STATE, state_directory

if TYPE_CHECKING:
    import argparse

    from modelward.config import Config
    from modelward.device import Device

EXIT_CODES = """\
exit codes:
  0  done, or nothing to do        3  refused: a security check said no
  1  any other error               4  unavailable: try again later
  2  wrong usage                   5  rolled back to the previous model
"""


def command(commands: Any, name: str, run: Any, summary: str, text: str) -> Any:
    """Add a command that works on a state directory, and return it for its own options."""
    import argparse  # noqa: PLC0415 - see modelward.cli.plain

    added = commands.add_parser(
        name,
        help=summary,
        description=text,
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    added.add_argument(
        "--state",
        metavar="DIR",
        help=f"state directory (default: $MODELWARD_STATE, then {DEFAULT_STATE})",
    )
    added.add_argument("--json", action="store_true", help="print JSON, for scripts")
    added.set_defaults(run=run)
    return added


def device_of(options: "argparse.Namespace") -> "Device":
    """Return the device whose state directory the options name."""
    from modelward.device import Device  # noqa: PLC0415

    return Device(config_of(options))


def config_of(options: "argparse.Namespace") -> "Config":
    """Return its configuration, with what the options override."""
    from modelward import config  # noqa: PLC0415 - parsing settings loads slowly

    return config.load(state_of(options), os.environ, overrides_of(options))


def state_of(options: "argparse.Namespace") -> Path:
    """Return the state directory."""
    return state_directory(options.state, os.environ)


def overrides_of(options: "argparse.Namespace") -> dict[str, str | None]:
    """Return the settings that a command's flags override; None where they do not."""
    return {name: getattr(options, name, None) for name in ("repository", "channel", "device_id")}
