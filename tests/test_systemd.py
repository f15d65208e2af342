import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from modelward import cli, systemd
from modelward.errors import ExitCode, UsageError

ANALYZE = shutil.which("systemd-analyze")
needs_systemd = pytest.mark.skipif(not ANALYZE, reason="systemd-analyze is not installed")
MOST = "20"  # tenths: docs/device.md says how little is left exposed, and to what


def written(state: Path, to: Path) -> Path:
    state.mkdir()
    if os.geteuid() == 0:
        os.chown(state, 1, 1)  # it need not run as root
    unit = to / systemd.SERVICE
    unit.write_text(systemd.unit(state).replace("PrivateTmp=no", "PrivateTmp=yes"))
    return unit


def test_the_command_prints_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["systemd", "--state", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert printed == systemd.unit(tmp_path)
    assert not re.search(r"@[a-z_]+@", printed)
    assert f'"run" "--state" "{tmp_path}"\n' in printed
    assert f'ReadWritePaths="{tmp_path}"\n' in printed
    assert "PrivateTmp=no\n" in printed  # else it would not see what lies in /tmp
    assert cli.main(["systemd", "--state", str(tmp_path / "nowhere")]) == ExitCode.USAGE


def test_a_path_that_could_end_the_line(tmp_path: Path) -> None:
    odd = tmp_path / "two\nUser=root"
    odd.mkdir()
    with pytest.raises(UsageError, match="cannot stand in a unit file"):
        systemd.unit(odd)


@needs_systemd
@pytest.mark.parametrize("name", ["plain", 'od"d %n $HOME \\ name'])
def test_systemd_finds_nothing_wrong_with_it(tmp_path: Path, name: str) -> None:
    unit = written(tmp_path / name, tmp_path)
    verified = subprocess.run(
        [str(ANALYZE), "verify", "--man=no", str(unit)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (verified.returncode, verified.stdout, verified.stderr) == (0, "", "")


@needs_systemd
def test_it_is_hardened(tmp_path: Path) -> None:
    unit = written(tmp_path / "state", tmp_path)
    done = subprocess.run(
        [str(ANALYZE), "security", "--offline=yes", f"--threshold={MOST}", "--no-pager", str(unit)],
        capture_output=True,
        text=True,
        check=False,
    )
    if "offline" in done.stderr:
        pytest.skip("this systemd-analyze cannot judge units offline")
    assert done.returncode == 0, done.stdout
