import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from modelward.errors import ExitCode
from modelward_repo.cli import options
from modelward_repo.roles.history import Entry, history, role_of_file
from modelward_repo.storage.local import LocalStorage
from tests.repo_tools.site import Site, run

DAY = timedelta(days=1)


def entries(site: Site) -> dict[tuple[str, int], Entry]:
    storage = LocalStorage(site.directory)
    files = [(path, storage.read(path)) for path in storage.list("metadata")]
    return {(entry.role, entry.version): entry for entry in history(files)}


@pytest.fixture
def used(site: Site, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    """A repository with a past: released, and its channels renewed ten days later."""
    start = datetime.now(UTC).replace(microsecond=0)
    site.release("alpha", "1.0.0", folder)
    monkeypatch.setattr(options, "now", lambda: start + 10 * DAY)
    assert site.run("refresh", "channels").code == 0
    return site


def test_who_signed_what_and_about_when(used: Site) -> None:
    start = datetime.now(UTC)
    found = entries(used)
    root = found["root", 1]
    assert [key.name for key in root.signers] == ["alice", "bob", "carol"]
    assert root.about
    assert abs(root.about - start) < timedelta(hours=2)
    assert root.summary == "the oldest that is here"
    release = found["model-alpha", 2]
    assert "target models/alpha/1.0.0/release.json: added" in release.summary
    assert [key.name for key in release.signers] == ["release-ci"]
    renewed = found["channels", 3]
    assert renewed.summary == "renewed, with the same content"
    assert renewed.about
    assert timedelta(days=9, hours=23) < renewed.about - start < timedelta(days=10, hours=1)
    last = max(version for role, version in found if role == "snapshot")
    assert found["snapshot", last].summary == "channels: 2 -> 3"
    (timestamp,) = [entry for (role, _), entry in found.items() if role == "timestamp"]
    assert timestamp.summary == "the only one that is kept"
    assert all(entry.published for entry in found.values())


def test_the_order(used: Site) -> None:
    done = used.run("log", "--json")
    found = done.json["entries"]
    times = [entry["about"] for entry in found]
    assert times == sorted(times)
    for role in {entry["role"] for entry in found}:
        versions = [entry["version"] for entry in found if entry["role"] == role]
        assert versions == sorted(versions)
    assert used.run("log", "--json", "--reverse").json["entries"] == found[::-1]
    only = used.run("log", "root", "channels")
    lines = only.out.splitlines()
    assert len(lines) == 4
    assert lines[0].startswith("about 20")
    assert "  root 1  by alice " in lines[0]
    unknown = used.run("log", "model-x")
    assert unknown.code == ExitCode.USAGE
    assert "no role 'model-x'" in unknown.err


def test_names_from_the_folder_of_keys_are_not_needed(used: Site) -> None:
    shutil.rmtree(used.keys)
    assert "by alice " in used.run("log", "root").out


def test_forged_and_strange_signatures_do_not_show(used: Site) -> None:
    path = used.directory / "metadata/1.root.json"
    data = path.read_bytes().replace(b'"spec_version":"1.0', b'"spec_version":"1.1', 1)
    path.write_bytes(data)
    done = used.run("log", "root")
    assert "by NOBODY (no valid signature)" in done.out
    assert "alice" not in done.out


def test_what_a_killed_publisher_left(used: Site) -> None:
    metadata = used.directory / "metadata"
    shutil.copy(metadata / "3.channels.json", metadata / "9.channels.json")
    (metadata / "2.root.json").write_bytes(b'{"signed": 1, "signatures": []}')
    (metadata / "7.targets.json").write_bytes(b"[" * 10_000)
    (metadata / "notes.json").write_bytes(b"{}")
    (metadata / "0.targets.json").write_bytes(b"{}")
    found = entries(used)
    assert found["channels", 9].published is False
    assert "[not published]" in str(found["channels", 9])
    assert found["root", 2].summary == "this file is damaged: it is not TUF metadata"
    assert found["root", 2].about is None
    assert found["targets", 7].published is False
    assert used.run("log").code == 0


def test_a_wrong_clock_does_not_mix_up_the_versions(
    used: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(options, "now", lambda: datetime.now(UTC) + 5 * DAY)
    assert used.run("refresh", "channels").code == 0
    found = entries(used)
    newest = max(version for role, version in found if role == "channels")
    after, before = found["channels", newest], found["channels", newest - 1]
    assert after.about
    assert before.about
    assert after.about < before.about
    listed = [entry["version"] for entry in used.run("log", "channels", "--json").json["entries"]]
    assert listed == sorted(listed)


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("metadata/3.targets.json", ("targets", 3)),
        ("metadata/timestamp.json", ("timestamp", None)),
        ("metadata/12.model-a.b.json", ("model-a.b", 12)),
        ("metadata/x", None),
        ("targets/3.targets.json", None),
    ],
)
def test_names_of_files(path: str, found: object) -> None:
    assert role_of_file(path) == found


def test_where_there_is_no_repository(tmp_path: Path) -> None:
    done = run("log", "-r", tmp_path)
    assert done.code == ExitCode.USAGE
    assert "there is no repository here" in done.err
