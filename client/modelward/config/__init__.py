"""A device's configuration: one TOML file, environment over it, flags over both.

| Setting     | In the file   | Environment            | Flag             |
|-------------|---------------|------------------------|------------------|
| state       | (its folder)  | MODELWARD_STATE        | --state          |
| repository  | repository    | MODELWARD_REPOSITORY   | --repository     |
| channel     | channel       | MODELWARD_CHANNEL      | --channel        |
| models      | models        | MODELWARD_MODELS       | MODEL ...        |
| device id   | device_id     | MODELWARD_DEVICE_ID    | --device-id      |
| labels      | [labels]      | -                      | -                |

Further tables, such as [transfer], have a module each beside this one.
"""

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from modelward.config.address import check_repository
from modelward.config.health import HealthSettings
from modelward.config.neighbours import NeighbourSettings
from modelward.config.reports import ReportSettings
from modelward.config.run import RunSettings
from modelward.config.transfer import TransferSettings
from modelward.errors import UsageError
from modelward.formats.names import check_name
from modelward.settings import FILE, fingerprint, read

FINGERPRINT = "fingerprint"  # what `merged` adds to the settings: no file can set it
_SETTINGS = frozenset(
    (
        *("repository", "channel", "models", "device_id", "labels"),
        RunSettings.NAME,
        TransferSettings.NAME,
        HealthSettings.NAME,
        ReportSettings.NAME,
        NeighbourSettings.NAME,
    )
)


@dataclass(frozen=True)
class Config:
    """What a device has to know about itself.

    Attributes:
        state: The state directory.
        repository: Address of the repository, without a final slash.
        channel: The channel it follows.
        models: The models it wants; empty for all that the channel offers.
        device_id: Its id, which places it in rollouts.
        labels: What it is and where it stands, for rollouts.
        transfer: Where bytes come from.
        run: When the daemon looks for updates.
        health: How a new model is tried before it may run.
        neighbours: Who is near.
        reports: What it tells of itself, and whom.
        fingerprint: Digest of what all this was read from (`modelward.settings.fingerprint`).
    """

    state: Path
    repository: str
    device_id: str
    channel: str = "stable"
    models: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    transfer: TransferSettings = field(default_factory=TransferSettings)
    run: RunSettings = field(default_factory=RunSettings)
    health: HealthSettings = field(default_factory=HealthSettings)
    reports: ReportSettings = field(default_factory=ReportSettings)
    neighbours: NeighbourSettings = field(default_factory=NeighbourSettings)
    fingerprint: str = field(default="", compare=False)

    def to_toml(self) -> str:
        """Return the configuration file's text."""
        lines = [
            "# Settings of this device; see `modelward --help`.",
            f"repository = {_quote(self.repository)}",
            f"device_id = {_quote(self.device_id)}",
            f"channel = {_quote(self.channel)}",
            "# The models this device wants; empty for all that the channel offers.",
            f"models = {json.dumps(list(self.models))}",
            "",
            "[labels]  # what this device is and where it stands, for rollouts",
            *(f"{_quote(name)} = {_quote(value)}" for name, value in self.labels.items()),
        ]
        return "\n".join(lines) + "\n"


def load(
    state: Path, environment: Mapping[str, str], overrides: Mapping[str, Any] | None = None
) -> Config:
    """Load a device's configuration; see `merged`."""
    return from_settings(state, merged(state, environment, overrides))


def merged(
    state: Path, environment: Mapping[str, str], overrides: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return a device's settings: the file, the environment over it, flags over both.

    Args:
        state: The state directory, which holds the file.
        environment: The process's environment.
        overrides: Settings from flags; a None does not override.

    Raises:
        UsageError: There is no configuration, or a setting makes no sense.
    """
    path = state / FILE
    try:
        data = read(state)
        settings = tomllib.loads(data.decode("utf-8"))
    except FileNotFoundError as error:
        raise UsageError(
            f"{state} is not set up",
            "run `modelward init --repository URL --root root.json --state DIR` first",
        ) from error
    except PermissionError as error:
        raise UsageError(
            f"{path} cannot be read: {error}", "run this as the user that the device belongs to"
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{path} cannot be read: {error}", "correct that file") from error
    unknown = sorted(set(settings) - _SETTINGS)
    if unknown:
        raise UsageError(
            f"{path}: {unknown[0]!r} is not a setting", f"settings: {', '.join(sorted(_SETTINGS))}"
        )
    settings |= _from_environment(environment)
    flags = overrides or {}
    settings |= {name: value for name, value in flags.items() if value is not None}
    return settings | {FINGERPRINT: fingerprint(data, environment, flags)}


def from_settings(state: Path, settings: Mapping[str, Any]) -> Config:
    """Return a device's configuration.

    Args:
        state: The state directory.
        settings: Settings by name, wherever they come from.

    Raises:
        UsageError: A setting is missing or makes no sense.
    """

    def text(name: str, default: str | None = None) -> str:
        value = settings.get(name, default)
        if not _is_text(value) or not value:
            raise UsageError(f"the setting {name!r} must be a text")
        return str(value)

    models = settings.get("models", [])
    labels = settings.get("labels", {})
    if not isinstance(models, list | tuple) or not all(map(_is_text, models)):
        raise UsageError("the setting 'models' must be a list of names")
    if not isinstance(labels, dict) or not all(map(_is_text, [*labels, *labels.values()])):
        raise UsageError("the setting 'labels' must be texts by name")
    try:
        for name in (*models, text("channel", "stable")):
            check_name(name)
    except ValueError as error:
        raise UsageError(str(error)) from error
    run = RunSettings.parse(settings.get(RunSettings.NAME, {}))
    health = HealthSettings.parse(settings.get(HealthSettings.NAME, {}))
    if run.stuck <= health.timeout:
        raise UsageError(
            f"`stuck` in [run] is {run.stuck:g} seconds: a check would be ended while it tries a "
            f"model, which may take {health.timeout:g} seconds (`timeout` in [health])",
            "set `stuck` above `timeout`",
        )
    return Config(
        state=state,
        repository=check_repository(text("repository")),
        device_id=text("device_id"),
        channel=text("channel", "stable"),
        models=tuple(models),
        labels=labels,
        transfer=TransferSettings.parse(settings.get(TransferSettings.NAME, {})),
        run=run,
        health=health,
        fingerprint=str(settings.get(FINGERPRINT, "")),
        reports=ReportSettings.parse(settings.get(ReportSettings.NAME, {})),
        neighbours=NeighbourSettings.parse(settings.get(NeighbourSettings.NAME, {})),
    )


def _from_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in ("repository", "channel", "device_id"):
        value = environment.get(f"MODELWARD_{name.upper()}")
        if value:
            found[name] = value
    models = environment.get("MODELWARD_MODELS")
    if models:
        found["models"] = models.replace(",", " ").split()
    return found


def _is_text(value: object) -> bool:
    return isinstance(value, str) and value.isprintable()


def _quote(text: str) -> str:
    # A JSON string is a TOML basic string, if no character is split into surrogates.
    return json.dumps(text, ensure_ascii=False)
