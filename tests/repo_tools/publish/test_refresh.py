import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tuf.api.metadata import Metadata

from modelward.errors import ExitCode, Refused, UsageError
from modelward_repo.cli import options
from modelward_repo.publish import refresh as refreshing
from modelward_repo.publish.signing import online_signers
from modelward_repo.publish.staging import Online, Staging
from modelward_repo.storage.local import LocalStorage, StorageError
from tests.repo_tools.site import PlainTuf, Site

DAY = timedelta(days=1)


def versions(site: Site) -> dict[str, int]:
    return {
        role: site.metadata(role).signed.version
        for role in ("timestamp", "snapshot", "targets", "channels", "model-alpha")
    }


def online(site: Site) -> Online:
    staging = Staging.of(LocalStorage(site.directory), datetime.now(UTC))
    return online_signers(staging, site.keys, lambda _path: b"")


def test_the_timestamp_is_signed_anew(site: Site, plain_tuf: PlainTuf) -> None:
    before = versions(site)
    content = plain_tuf(site.directory)
    done = site.run("refresh", "--json")
    assert done.json == {"signed": ["timestamp"], "attention": []}
    assert versions(site) == {**before, "timestamp": 2}
    assert plain_tuf(site.directory) == content


def test_the_snapshot_is_signed_once_half_of_its_time_is_over(site: Site) -> None:
    storage = LocalStorage(site.directory)
    now = site.metadata("snapshot").signed.expires - 4 * DAY
    assert refreshing.refresh(storage, online(site), now) == ("timestamp",)
    assert refreshing.refresh(storage, online(site), now + DAY) == ("snapshot", "timestamp")
    assert site.metadata("snapshot").signed.expires == now + 8 * DAY
    assert site.metadata("timestamp").signed.expires == now + 2 * DAY


def test_a_timer_signs_only_what_is_due(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    before = versions(site)
    assert site.run("refresh", "--due").out == "Nothing is due: nothing was signed.\n"
    assert versions(site) == before
    later = datetime.now(UTC) + timedelta(hours=13)
    monkeypatch.setattr(options, "now", lambda: later)
    assert site.run("refresh", "--due", "channels").out == "Signed anew: timestamp.\n"
    monkeypatch.setattr(options, "now", lambda: later + 15 * DAY)
    assert site.run("refresh", "--due", "channels", "--dry-run", "--json").json["would_sign"] == [
        *("channels", "snapshot", "timestamp")
    ]
    assert versions(site) == {**before, "timestamp": 2}
    assert site.run("refresh", "--due", "channels").out == (
        "Signed anew: channels, snapshot, timestamp.\n"
    )


def test_a_dry_run_needs_no_key(site: Site) -> None:
    before = versions(site)
    shutil.rmtree(site.keys)
    assert site.run("refresh", "--dry-run").out == "Would be signed anew: timestamp.\n"
    assert versions(site) == before


def test_what_is_near_its_end_is_said_loudly(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    later = datetime.now(UTC) + 350 * DAY
    monkeypatch.setattr(options, "now", lambda: later)
    done = site.run("refresh")
    assert done.code == 0
    assert done.out == "Signed anew: snapshot, timestamp.\n"
    assert "ATTENTION: root: expires in 14 days: renew it in a ceremony" in done.err
    assert "ATTENTION: channels: expired: run `modelward-repo refresh channels`" in done.err
    assert "timestamp" not in done.err
    found = site.run("refresh", "--json")
    assert any(line.startswith("root: expires") for line in found.json["attention"])


@pytest.mark.parametrize(
    "args", [("--due", "--watch"), ("--watch", "--systemd", "-"), ("--watch", "--dry-run")]
)
def test_options_that_exclude_each_other(site: Site, args: tuple[str, ...]) -> None:
    done = site.run("refresh", *args)
    assert done.code == ExitCode.USAGE
    assert "exclude each other" in done.err


def test_a_locked_repository_is_waited_for_only_so_long(site: Site) -> None:
    storage = LocalStorage(site.directory)
    signers = online(site)
    with (
        storage.lock(),
        pytest.raises(StorageError, match=r"kept the repository locked for 0\.1 s"),
    ):
        refreshing.refresh(storage, signers, datetime.now(UTC), patience=0.1)


def test_other_roles_on_request(site: Site, plain_tuf: PlainTuf) -> None:
    before = versions(site)
    content = plain_tuf(site.directory)
    done = site.run("refresh", "channels", "model-alpha")
    assert done.out == "Signed anew: channels, model-alpha, snapshot, timestamp.\n"
    after = {role: before[role] + (role != "targets") for role in before}
    assert versions(site) == after
    assert plain_tuf(site.directory) == content


@pytest.mark.parametrize("role", ["root", "snapshot", "timestamp"])
def test_roles_that_are_not_to_be_named(site: Site, role: str) -> None:
    done = site.run("refresh", role)
    assert done.code == ExitCode.USAGE
    assert f"{role} is not to be named here" in done.err


def test_a_role_that_is_not_there(site: Site) -> None:
    assert "no role 'model-x'" in site.run("refresh", "model-x").err


def test_a_refresh_that_devices_would_refuse_is_not_published(
    site: Site, template: Site, tmp_path: Path
) -> None:
    """Signed with keys of another repository: noticed before anything is written."""
    from tests.repo_tools.site import MINIMAL, run  # noqa: PLC0415

    args = ("--policy", MINIMAL, "--plaintext-keys", "--keys", tmp_path / "other-keys")
    assert run("init", tmp_path / "other", *args).code == 0
    stranger = online(Site(tmp_path / "other", tmp_path / "other-keys"))
    storage = LocalStorage(site.directory)
    with pytest.raises(Refused, match="timestamp was signed by 0/1 keys"):
        refreshing.refresh(storage, stranger, datetime.now(UTC))
    assert site.metadata("timestamp").to_bytes() == template.metadata("timestamp").to_bytes()


def test_a_repository_whose_periods_are_unknown(site: Site) -> None:
    """Such as one that another tool made."""
    path = site.directory / "metadata/1.root.json"
    root = Metadata.from_file(str(path))
    root.signed.roles["timestamp"].unrecognized_fields.clear()
    path.write_bytes(root.to_bytes())
    with pytest.raises(UsageError, match="does not say how long the role 'timestamp' is valid"):
        refreshing.refresh(LocalStorage(site.directory), online(site), datetime.now(UTC))
