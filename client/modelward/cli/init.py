"""`modelward init`: set this device up."""

import argparse
import os
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from modelward import plain_file
from modelward.cli.files import CAP
from modelward.cli.options import command
from modelward.cli.terminal import say
from modelward.errors import ExitCode, UsageError
from modelward.settings import FILE, state_directory

_HELP = """\
Set this device up: a state directory, the root of trust, and modelward.toml.

Everything the device will ever trust follows from the root metadata file. Get it from the
security team over a way you trust (baked into the device's image, say), not from the repository.

example:
  modelward init --repository https://models.example.com --root root.json \\
      --state /var/lib/modelward --label site=plant-7
"""


def add(commands: Any) -> None:
    """Add the command."""
    init = command(commands, "init", _run, "set this device up", _HELP)
    init.add_argument("--repository", metavar="URL", required=True, help="the repository's address")
    init.add_argument(
        "--root",
        metavar="FILE",
        required=True,
        help="root metadata to trust, got from the security team over a way you trust",
    )
    init.add_argument("--device-id", metavar="ID", help="this device's id (default: a random one)")
    init.add_argument("--channel", default="stable", help="the channel to follow (default: stable)")
    init.add_argument(
        "--model", action="append", default=[], metavar="MODEL",
        help="a model this device wants; give it again for more (default: all on the channel)",
    )  # fmt: skip
    init.add_argument(
        "--label", action="append", default=[], metavar="NAME=VALUE",
        help="what this device is or where it stands, such as site=plant-7",
    )  # fmt: skip


def _run(options: argparse.Namespace) -> ExitCode:
    from modelward.config import from_settings  # noqa: PLC0415 - each command loads what it needs
    from modelward.install import device_key, fsops, owner  # noqa: PLC0415
    from modelward.trust import repository  # noqa: PLC0415

    state = state_directory(options.state, os.environ)
    if (state / FILE).exists():
        raise UsageError(f"{state} is set up already", "remove it to set the device up anew")
    try:
        root = plain_file.read(Path(options.root), CAP, piped=True)
    except OSError as error:
        raise UsageError(f"the root metadata {options.root} cannot be read: {error}") from error
    if state.exists():
        owner.check_owner(state)
    version = repository.check_root(root)
    settings = from_settings(
        state,
        {
            "repository": options.repository,
            "device_id": options.device_id or secrets.token_hex(16),
            "channel": options.channel,
            "models": options.model,
            "labels": _labels(options.label),
        },
    )
    fsops.make_directory(state)
    fsops.check_file_system(state)
    for folder in ("tuf", "store", "slots", "generations"):
        fsops.make_directory(state / folder)
    fsops.write_file(state / "root.json", root)
    key = device_key.load_or_make(state).public.public
    fsops.write_file(state / FILE, settings.to_toml().encode())
    say(
        options,
        {
            "outcome": "initialised",
            "state": str(state),
            "root_version": version,
            "device_id": settings.device_id,
            "device_key": key,
        },
        f"{state} is set up: root version {version}, channel {settings.channel}, device "
        f"{settings.device_id}\nnext: modelward update --state {state}\n"
        f"for reports, the operator runs: modelward-repo device add {settings.device_id} {key}",
    )
    return ExitCode.DONE


def _labels(pairs: Sequence[str]) -> dict[str, str]:
    labels = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name or not value:
            raise UsageError(f"{pair!r} is not a label", "labels are like site=plant-7")
        if name in labels:
            raise UsageError(f"the label {name!r} is given twice")
        labels[name] = value
    return labels
