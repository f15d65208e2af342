"""modelward-repo device: which devices may report."""

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from modelward.errors import UsageError
from modelward.formats import strict
from modelward.formats.report import check_device
from modelward.trust.report import device_key
from modelward_repo.cli import options
from modelward_repo.fleet.store import Device, Fleet

fleet_option = click.option(
    "--fleet",
    type=click.Path(path_type=Path, file_okay=False),
    callback=lambda ctx, _param, value: value or _beside(ctx.params.get("repository")),
    help="Private folder of the fleet. Default: <repository>-fleet beside it.",
)
_HEX = re.compile(r"[0-9a-f]{64}")


@click.group()
def device() -> None:
    """Say which devices may report.

    A device's key signs its reports and nothing else: no update depends on it.

    \b
        modelward-repo device add camera-12 4f3c...  --repository my-repo
        modelward-repo device list --repository my-repo
    """


@device.command()
@click.argument("device_id", metavar="ID")
@click.argument("key")
@options.repository_option
@fleet_option
@options.json_option
def add(device_id: str, key: str, repository: Path, fleet: Path) -> None:
    """Register the device ID with its public KEY, 64 hexadecimal digits.

    `modelward init` prints both, and `modelward status` again. With another key, or after a device
    was restored from a backup, run it again: its chain of reports begins anew.

    \b
        modelward-repo device add camera-12 4f3c... --repository my-repo
    """
    del repository
    try:
        check_device(device_id)
    except ValueError as error:
        raise UsageError(f"the id {error}") from error
    if not _HEX.fullmatch(key):
        raise UsageError("the key must be 64 hexadecimal digits, as the device prints it")
    store = Fleet(fleet)
    store.create()
    with store.write() as turn:
        turn.add_device(device_id, device_key(bytes.fromhex(key)), _now())
    options.say(f"{device_id} may report")
    options.result({"device": device_id, "key": key})


@device.command("list")
@options.repository_option
@fleet_option
@options.json_option
def list_(repository: Path, fleet: Path) -> None:
    """List the devices that may report, or might.

    \b
        modelward-repo device list --repository my-repo
    """
    del repository
    with open_fleet(fleet).read() as turn:
        devices = turn.devices()
    options.result({"devices": [_to_dict(each) for each in devices]})
    for each in devices:
        state = f"revoked {text_time(each.revoked)}" if each.revoked else f"{each.counter} reports"
        options.say(f"{each.device}: key {each.key.public[:16]}..., {state}")


@device.command()
@click.argument("device_id", metavar="ID")
@options.repository_option
@fleet_option
@options.json_option
def revoke(device_id: str, repository: Path, fleet: Path) -> None:
    """Believe the key of the device ID no more: it was lost, copied or thrown away.

    \b
        modelward-repo device revoke camera-12 --repository my-repo
    """
    del repository
    with open_fleet(fleet).write() as turn:
        if not turn.revoke(device_id, _now()):
            raise UsageError(f"no device {device_id!r} is registered")
    options.say(f"reports of {device_id} are refused from now on")
    options.result({"device": device_id, "revoked": True})


def open_fleet(folder: Path) -> Fleet:
    """Return the fleet in a folder.

    Raises:
        UsageError: There is none.
    """
    fleet = Fleet(folder)
    if not fleet.exists():
        raise UsageError(
            f"no device is registered in {folder}", "register one with `modelward-repo device add`"
        )
    return fleet


def text_time(time: int | None) -> str:
    """Return a time as RFC 3339; empty for None."""
    return "" if time is None else strict.rfc3339(datetime.fromtimestamp(time, UTC))


def _now() -> int:
    return int(options.now().timestamp())


def _to_dict(each: Device) -> dict[str, Any]:
    return {
        "device": each.device,
        "key": each.key.public,
        "added": text_time(each.added),
        "revoked": text_time(each.revoked) or None,
        "reports": each.counter,
    }


def _beside(repository: Path | None) -> Path | None:
    from modelward_repo.server.reports import fleet_folder  # noqa: PLC0415 - loads Flask

    return None if repository is None else fleet_folder(repository)
