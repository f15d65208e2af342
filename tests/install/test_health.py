"""Gate 12: what is tried before a model may run."""

from pathlib import Path

import pytest

from modelward.config.health import HealthSettings
from modelward.errors import ExitCode, Gate, RolledBack
from modelward.install import health
from tests.install.site import chain

FOLDER = Path("/slots/meter-reader/files")
ENVIRONMENT = {"PATH": "/usr/bin:/bin"}


def run_command(*command, **settings):
    settings = HealthSettings(command=command, **settings)
    return health.run_command(chain("1.0.0", 1).release, FOLDER, settings, ENVIRONMENT)


def test_no_command():
    assert run_command() is None


def test_a_command_is_told_what_it_judges():
    script = 'test "$MODELWARD_MODEL $MODELWARD_VERSION $MODELWARD_PATH" = "$0"'
    told = f"meter-reader 1.0.0 {FOLDER}"
    assert run_command("sh", "-c", script, told) == "sh is content"


def test_a_command_says_no():
    with pytest.raises(RolledBack, match=r"says no: exit status 3: reads 7 as 1\n") as refusal:
        run_command("sh", "-c", "echo reads 7 as 1 >&2; exit 3")
    assert (refusal.value.exit_code, refusal.value.gate) == (ExitCode.ROLLED_BACK, Gate.HEALTH)


def test_a_command_hangs():
    with pytest.raises(RolledBack, match="took longer than 1 seconds"):
        run_command("sleep", "600", timeout=1)


def test_a_command_that_is_not_there():
    with pytest.raises(RolledBack, match="cannot be run: No such file"):
        run_command("/no/such/command")
