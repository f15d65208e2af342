from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from modelward.errors import ExitCode
from modelward_repo.cli import options
from tests.repo_tools.site import Site, run


def test_roles_are_shown_with_who_signed_and_until_when(site: Site) -> None:
    done = site.run("status")
    assert done.code == 0
    lines = done.out.splitlines()
    assert lines[1].split()[:5] == ["root", "1", "3", "(2", "of"]
    assert any("layout of alpha" in line and "3 (2 of 3)" in line for line in lines)
    assert "hours)" in next(line for line in lines if line.startswith("timestamp"))


def test_json(site: Site) -> None:
    data = site.run("status", "--json").json
    assert data["ok"] is True
    timestamp = next(item for item in data["roles"] if item["name"] == "timestamp")
    assert (timestamp["version"], timestamp["threshold"], timestamp["problem"]) == (1, 1, None)
    assert 0 < timestamp["expires_in"] <= 86_400


@pytest.mark.parametrize(
    ("later", "expired"),
    [
        (timedelta(days=2), ["timestamp"]),
        (timedelta(days=8), ["snapshot", "timestamp"]),
        (timedelta(days=31), ["snapshot", "timestamp", "channels"]),
        (
            timedelta(days=400),
            [
                *("root", "targets", "snapshot", "timestamp", "channels"),
                *("model-alpha", "model-beta", "layout of alpha", "layout of beta"),
            ],
        ),
    ],
)
def test_what_has_expired_is_named_and_fails(
    site: Site, later: timedelta, expired: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(options, "now", lambda: datetime.now(UTC) + later)
    done = site.run("status", "--json")
    assert done.code == ExitCode.ERROR
    found = [item["name"] for item in done.json["roles"] if item["problem"] == "expired"]
    assert found == expired
    text = site.run("status")
    assert text.code == ExitCode.ERROR
    assert "EXPIRED" in text.out
    assert f"because of {', '.join(expired)}." in text.out


def test_where_there_is_no_repository(tmp_path: Path) -> None:
    done = run("status", "--repository", tmp_path)
    assert done.code == ExitCode.USAGE
    assert "there is no repository here" in done.err


def test_a_damaged_repository_is_said_to_be_damaged(site: Site) -> None:
    (site.directory / "metadata/timestamp.json").write_bytes(b"")
    done = site.run("status")
    assert done.code == ExitCode.ERROR
    assert "metadata/timestamp.json is not TUF metadata" in done.err
