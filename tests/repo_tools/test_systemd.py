import re
import shutil
import subprocess
from pathlib import Path

import pytest

from modelward.errors import ExitCode, UsageError
from modelward.systemd import command
from modelward_repo import systemd
from tests.repo_tools.site import Site

ANALYZE = shutil.which("systemd-analyze")
needs_systemd = pytest.mark.skipif(not ANALYZE, reason="systemd-analyze is not installed")


def test_units_are_written_or_printed(site: Site, tmp_path: Path) -> None:
    folder = tmp_path / "units"
    done = site.run("refresh", "channels", "--systemd", folder)
    assert done.code == 0
    assert "systemctl enable --now modelward-refresh.timer" in done.out
    assert sorted(path.name for path in folder.iterdir()) == [systemd.SERVICE, systemd.TIMER]
    service = (folder / systemd.SERVICE).read_text()
    assert f'"channels" "--repository" "{site.directory}" "--keys" "{site.keys}"' in service
    assert "LoadCredential" not in service
    assert not re.search(r"@[a-z_]+@", service)
    for args in (("--systemd", "-"), ("--systemd", tmp_path / "other", "--dry-run")):
        printed = site.run("refresh", "channels", *args)
        assert service in printed.out
    assert not (tmp_path / "other").exists()
    data = site.run("refresh", "channels", "--systemd", "-", "--json").json
    assert data["units"][systemd.SERVICE] == service
    assert data["written"] is None


def test_a_passphrase_is_handed_over_by_systemd(site: Site, tmp_path: Path) -> None:
    secret = tmp_path / "pass%word"
    secret.write_text("secret\n")
    done = site.run("refresh", "--systemd", "-", "--passphrase-file", secret)
    escaped = str(secret).replace("%", "%%")
    assert f"LoadCredential=passphrase:{escaped}\n" in done.out
    assert "--passphrase-file %d/passphrase\n" in done.out


@needs_systemd
@pytest.mark.parametrize("name", ["plain", 'od"d %n $HOME \\ name'])
def test_systemd_finds_nothing_wrong_with_them(site: Site, tmp_path: Path, name: str) -> None:
    place = tmp_path / name
    shutil.copytree(site.directory, place / "repo")
    secret = tmp_path / "secret"
    secret.write_text("secret\n")
    folder = tmp_path / "units"
    done = site.run(
        *("refresh", "-r", place / "repo", "--passphrase-file", secret, "--systemd", folder)
    )
    assert done.code == 0
    units = [str(folder / unit) for unit in (systemd.SERVICE, systemd.TIMER)]
    verified = subprocess.run(
        [str(ANALYZE), "verify", "--man=no", *units], capture_output=True, text=True, check=False
    )
    assert (verified.returncode, verified.stdout, verified.stderr) == (0, "", "")


@needs_systemd
def test_the_service_is_hardened(site: Site, tmp_path: Path) -> None:
    site.run("refresh", "--systemd", tmp_path)
    done = subprocess.run(
        [
            *(str(ANALYZE), "security", "--offline=yes", "--threshold=15", "--no-pager"),
            str(tmp_path / systemd.SERVICE),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    if "offline" in done.stderr:
        pytest.skip("this systemd-analyze cannot judge units offline")
    assert done.returncode == 0, done.stdout


def test_paths_that_cannot_stand_in_a_unit(site: Site, tmp_path: Path) -> None:
    odd = tmp_path / "two\nlines"
    odd.mkdir()
    done = site.run("refresh", "--systemd", "-", "-r", odd)
    assert done.code == ExitCode.USAGE
    assert "cannot stand in a unit file" in done.err


def test_units_are_made_where_they_will_run(site: Site) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        systemd.units(systemd.Place(site.directory, site.keys / "nowhere"))


def test_how_the_program_is_started(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    script = tmp_path / "modelward-repo"
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)
    monkeypatch.setattr("sys.argv", [str(script)])
    assert command("modelward-repo") == [str(script)]
    monkeypatch.setattr("sys.argv", ["__main__.py"])
    assert command("modelward-repo")[1:] == ["-m", "modelward_repo"]
