import os
import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tuf.api.metadata import Metadata, Root

from modelward.errors import ExitCode
from modelward.formats.policy import model_policy_path
from modelward_repo.cli import options
from modelward_repo.publish.staging import Staging
from modelward_repo.publish.status import standings
from modelward_repo.roles import metadata as tuf
from modelward_repo.roles.holders import folder_names
from modelward_repo.roles.keys import KeyFile
from modelward_repo.storage.local import LocalStorage
from tests.repo_tools.site import Site, run

SOON = 1
NOW = 3


def no_passphrase(_path: object) -> bytes:
    return b""


def rows(site: Site) -> dict[str, dict[str, object]]:
    return {row["name"]: row for row in site.run("status", "--json").json["roles"]}


def rewrite_root(site: Site, change: object) -> None:
    """Sign root 1 anew with a change, as only a test may."""
    path = site.directory / "metadata/1.root.json"
    root = Metadata.from_file(str(path))
    change(root.signed)  # type: ignore[operator]
    root.signatures.clear()
    for holder in ("alice", "bob"):
        root.sign(KeyFile.of(site.keys, holder, "root").signer(no_passphrase), append=True)
    path.write_bytes(root.to_bytes())


def test_roles_are_shown_with_who_signed_and_until_when(site: Site) -> None:
    done = site.run("status")
    assert done.code == 0
    lines = done.out.splitlines()
    assert lines[1].split()[:7] == ["24", "hours", "timestamp", "1", "1", "of", "1"] or (
        lines[1].split()[:3] == ["23", "hours", "timestamp"]
    )
    root = next(line for line in lines if " root " in line)
    assert "2 of 3" in root
    for holder in ("*alice ", "*bob ", "*carol "):
        assert holder in done.out
    assert any("layout of alpha" in line and "2 of 3" in line for line in lines)
    assert max(map(len, lines)) <= 160
    assert "\x1b" not in done.out


def test_json(site: Site) -> None:
    data = site.run("status", "--json").json
    assert (data["ok"], data["urgency"], data["exit_code"]) == (True, "fine", 0)
    assert len(data["repository_id"]) == 64
    assert [row["name"] for row in data["roles"]][:3] == ["timestamp", "snapshot", "channels"]
    timestamp, root = rows(site)["timestamp"], rows(site)["root"]
    assert (timestamp["version"], timestamp["threshold"], timestamp["problem"]) == (1, 1, None)
    assert 0 < timestamp["expires_in"] <= 86_400  # type: ignore[operator]
    assert root["offline"] is True
    assert root["signed"] == 3
    assert [key["holder"] for key in root["keys"]] == ["alice", "bob", "carol"]  # type: ignore[attr-defined]


def test_names_come_from_the_folder_of_keys_where_metadata_has_none(site: Site) -> None:
    def forget(root: Root) -> None:
        for key in root.keys.values():
            key.unrecognized_fields.clear()

    rewrite_root(site, forget)
    assert [key["holder"] for key in rows(site)["root"]["keys"]] == ["alice", "bob", "carol"]  # type: ignore[attr-defined]
    shutil.rmtree(site.keys)
    assert [key["holder"] for key in rows(site)["root"]["keys"]] == [None] * 3  # type: ignore[attr-defined]


def test_names_come_from_metadata(site: Site) -> None:
    shutil.rmtree(site.keys)
    found = rows(site)
    assert [key["holder"] for key in found["root"]["keys"]] == ["alice", "bob", "carol"]  # type: ignore[attr-defined]
    owners = found["layout of alpha"]["keys"]
    assert [key["holder"] for key in owners] == ["lead-a", "lead-b", "lead-c"]  # type: ignore[attr-defined]
    assert [key["signed"] for key in owners].count(True) >= 2  # type: ignore[attr-defined]


def test_a_damaged_public_key_costs_a_name_only(site: Site) -> None:
    (site.keys / "lead-a/layout.pub").write_text("not a key")
    owners = rows(site)["layout of alpha"]["keys"]
    assert len(owners) == 3  # type: ignore[arg-type]
    assert {"lead-b", "lead-c", "alice"} <= set(folder_names(site.keys).values())


@pytest.mark.parametrize(
    ("later", "code", "soon", "expired"),
    [
        (timedelta(hours=17), 0, [], []),
        (timedelta(hours=19), SOON, ["timestamp"], []),
        (timedelta(days=2), NOW, [], ["timestamp"]),
        (timedelta(days=8), NOW, [], ["timestamp", "snapshot"]),
        (timedelta(days=31), NOW, [], ["timestamp", "snapshot", "channels"]),
        (
            timedelta(days=280),
            NOW,
            ["root", "targets"],  # a quarter of their time before the end
            ["timestamp", "snapshot", "channels", "model-alpha", "model-beta"],
        ),
        (
            timedelta(days=340),
            NOW,
            ["layout of alpha", "layout of beta", "root", "targets"],
            ["timestamp", "snapshot", "channels", "model-alpha", "model-beta"],
        ),
    ],
)
def test_time_travel(
    site: Site,
    monkeypatch: pytest.MonkeyPatch,
    *,
    later: timedelta,
    code: int,
    soon: list[str],
    expired: list[str],
) -> None:
    monkeypatch.setattr(options, "now", lambda: datetime.now(UTC) + later)
    done = site.run("status", "--json")
    assert done.code == code == done.json["exit_code"]
    found = done.json["roles"]
    assert [row["name"] for row in found if row["problem"] == "expired"] == expired
    assert [row["name"] for row in found if row["urgency"] == "soon"] == soon
    text = site.run("status")
    assert text.code == code
    assert ("EXPIRED" in text.out) == bool(expired)
    if expired:
        assert f"because of {', '.join(expired)}." in text.out
    for name in soon:
        assert f"{name}: expires in " in text.out


@pytest.mark.skipif(not shutil.which("faketime"), reason="faketime is not installed")
def test_time_travel_of_the_real_command(site: Site) -> None:
    command = [sys.executable, "-m", "modelward_repo", "status"]
    done = subprocess.run(
        [str(shutil.which("faketime")), "+20 hours", *command],
        env={**os.environ, **site.env},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == SOON, done.stderr
    assert "hours SOON" in done.stdout
    assert "timestamp: expires in " in done.stdout


def test_too_few_signatures(site: Site) -> None:
    path = site.directory / "metadata/1.root.json"
    root = Metadata.from_file(str(path))
    for keyid in list(root.signatures)[1:]:
        root.signatures[keyid].signature = "00" * 64
    path.write_bytes(root.to_bytes())
    done = site.run("status")
    assert done.code == NOW
    assert "TOO FEW SIGNED" in done.out
    row = rows(site)["root"]
    assert (row["signed"], row["problem"]) == (1, "too few signatures")


def test_a_root_that_devices_cannot_follow(site: Site) -> None:
    """Root 2 satisfies itself, but those whom root 1 trusts have not signed it."""
    root = Metadata.from_file(str(site.directory / "metadata/1.root.json"))
    strangers = [KeyFile.of(site.keys, f"stranger-{n}", "root").generate(None) for n in (1, 2)]
    for keyid in list(root.signed.roles["root"].keyids):
        root.signed.revoke_key(keyid, "root")
    for signer in strangers:
        root.signed.add_key(signer.public_key, "root")
    tuf.sign(root, 2, root.signed.expires, strangers)
    (site.directory / "metadata/2.root.json").write_bytes(root.to_bytes())
    row = rows(site)["root"]
    assert row["signed"] == 2
    assert row["problem"] == "not signed by enough of those whom root 1 trusts"
    (site.directory / "metadata/1.root.json").rename(site.directory / "metadata/01.root.json")
    assert "no file metadata/1.root.json" in site.run("status").err


def test_what_is_broken_does_not_hide_the_rest(site: Site) -> None:
    staging = Staging.of(LocalStorage(site.directory), datetime.now(UTC))
    listed = staging.targets("targets").signed.targets[model_policy_path("alpha")]
    policy = site.directory / f"targets/policies/{listed.hashes['sha256']}.alpha.json"
    policy.write_bytes(b"{}")
    (site.directory / "metadata/1.model-beta.json").unlink()
    done = site.run("status", "--json")
    assert done.code == NOW
    found = {row["name"]: row["problem"] for row in done.json["roles"] if row["problem"]}
    assert set(found) == {"layout of alpha", "model-beta"}
    assert "schema: is missing" in found["layout of alpha"]
    assert "no file metadata/1.model-beta.json" in found["model-beta"]
    assert site.run("status").out.count("BROKEN") == 2


def test_a_repository_whose_periods_are_unknown(site: Site) -> None:
    rewrite_root(site, lambda root: root.roles["timestamp"].unrecognized_fields.clear())
    found = {
        it.name: it for it in standings(Staging.of(LocalStorage(site.directory), options.now()))
    }
    assert found["timestamp"].period is None
    assert site.run("status").code == SOON  # 30 days' notice for a day's time


def test_where_there_is_no_repository(tmp_path: Path) -> None:
    done = run("status", "--repository", tmp_path)
    assert done.code == ExitCode.USAGE
    assert "there is no repository here" in done.err


def test_a_damaged_repository_is_as_urgent_as_can_be(site: Site) -> None:
    (site.directory / "metadata/timestamp.json").write_bytes(b"")
    done = site.run("status")
    assert done.code == NOW
    assert "metadata/timestamp.json is not TUF metadata" in done.err
    assert site.run("status", "--json").json["outcome"] == "damaged"


def test_a_calendar_is_written_or_printed(site: Site, tmp_path: Path) -> None:
    path = tmp_path / "expiries.ics"
    done = site.run("status", "--ics", path)
    assert done.code == 0
    assert "timestamp" in done.out
    text = path.read_bytes().decode()
    assert text.startswith("BEGIN:VCALENDAR\r\n")
    printed = site.run("status", "--ics", "-")
    assert printed.out.startswith("BEGIN:VCALENDAR")
    assert printed.out.count("BEGIN:VEVENT") == text.count("BEGIN:VEVENT") == 7
    done = site.run("status", "--ics", tmp_path)
    assert done.code == ExitCode.USAGE
    assert "cannot be written" in done.err
