"""Gate 12: does the new model work on this device?"""

from collections.abc import Mapping
from pathlib import Path

from modelward.config.health import HealthSettings
from modelward.errors import RolledBack
from modelward.formats.policy import ModelPolicy
from modelward.formats.release import Release
from modelward.install import process
from modelward.install.opened import open_file

READ = 1 << 20
_LOOK = "find out why on this device; the model that ran before is untouched"


def probe(release: Release, folder: Path, policy: ModelPolicy, settings: HealthSettings) -> str:
    """Try a staged release before it may run.

    Args:
        release: The release.
        folder: Its files, in the staged slot.
        policy: What the security team demands of the model.
        settings: What this device allows the trial.

    Returns:
        What was found, for people.

    Raises:
        RolledBack: The model does not work here.
    """
    del policy, settings
    for file in release.files:
        try:
            with open_file(folder, file.path) as opened:
                while opened.read(READ):
                    pass
        except OSError as error:
            raise RolledBack(f"{file.path} cannot be read: {error.strerror}") from error
    return f"{len(release.files)} files read"


def run_command(
    release: Release, folder: Path, settings: HealthSettings, environment: Mapping[str, str]
) -> str | None:
    """Run the operator's own check of a release that was just switched to.

    Args:
        release: The release.
        folder: Its files, as MODELWARD_PATH.
        settings: What names the command.
        environment: The updater's environment, which the command gets, too.

    Returns:
        What was found, for people; None if there is no command.

    Raises:
        RolledBack: The command says no, takes too long or cannot be run.
    """
    if not settings.command:
        return None
    name = f"{release.model} {release.version}: the command {settings.command[0]!r}"
    told = {
        "MODELWARD_MODEL": release.model,
        "MODELWARD_VERSION": release.version,
        "MODELWARD_PATH": str(folder),
    }
    try:
        ended = process.run(settings.command, {**environment, **told}, settings.timeout)
    except OSError as error:
        raise RolledBack(
            f"{name} cannot be run: {error.strerror}", "correct `command` in [health]"
        ) from error
    if not ended.in_time:
        raise RolledBack(f"{name} took longer than {settings.timeout:g} seconds", _LOOK)
    if ended.code:
        raise RolledBack(f"{name} says no: {ended.says()}", _LOOK)
    return f"{settings.command[0]} is content"
