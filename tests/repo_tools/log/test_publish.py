"""What is published is logged first; what cannot be witnessed waits; nothing is lost."""

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from modelward.errors import ExitCode
from modelward.formats.leaf import Leaf
from modelward.formats.log_state import LogState
from modelward.formats.note import SignatureType
from modelward_repo.log.audit import audit
from modelward_repo.log.reader import LogReader, read_repository
from modelward_repo.log.writer import last_entry, signed_tree
from modelward_repo.publish import ledger
from modelward_repo.publish.refresh import refresh
from modelward_repo.publish.signing import online_signers
from modelward_repo.publish.staging import Staging
from modelward_repo.publish.target import Source
from modelward_repo.storage.local import LocalStorage
from tests.repo_tools.ceremonies import change
from tests.repo_tools.log.site import Logged, cosigning_key, logging
from tests.repo_tools.site import ROOT, PlainTuf, make_folder, run

KILLED = Path(__file__).with_name("killed_publisher.py")


def look(logged: Logged, state: LogState | None = None) -> LogState:
    """Take the repository through gate 4 as a device does."""
    source = Source.stored(LocalStorage(logged.directory), None)
    with read_repository(source) as (_, shown):
        return shown.verify(LogReader(source), state).state


def sound(logged: Logged) -> None:
    found = audit(Source.stored(LocalStorage(logged.directory), None), datetime.now(UTC))
    assert found.faults == []


def leaf_waiting(logged: Logged) -> Leaf | None:
    storage = LocalStorage(logged.directory)
    published = Staging.published(storage, datetime.now(UTC))
    assert published.timestamp
    return ledger.waiting(storage, published.root.signed, published.timestamp.signed)


def test_a_new_repository_is_logged(logged: Logged, plain_tuf: PlainTuf) -> None:
    assert logged.size() == 1
    state = look(logged)
    assert len(state.signed.note.signatures) == 4  # the log's, and three witnesses'
    root = Staging.of(LocalStorage(logged.directory), datetime.now(UTC)).root.signed
    assert root.unrecognized_fields["x-log"]["vkey"] == str(logged.vkey)
    assert plain_tuf(logged.directory)  # TUF's own client does not mind


def test_every_change_is_one_leaf_that_devices_can_follow(logged: Logged, tmp_path: Path) -> None:
    state = look(logged)
    folder = make_folder(tmp_path / "folder", b"weights")
    logged.site.release("alpha", "1.0.0", folder)
    assert logged.size() == 3  # the release, and the channel
    state = look(logged, state)
    assert state.signed.checkpoint.size == 3
    assert logged.site.run("refresh", "channels").code == 0
    assert look(logged, state).signed.checkpoint.size == 4
    sound(logged)


def test_a_timestamp_alone_is_no_leaf_and_gets_fresh_cosignatures(logged: Logged) -> None:
    before = logged.proof()
    done = logged.site.run("refresh")
    assert done.code == 0
    assert logged.size() == 1
    assert logged.proof()["tail"] == before["tail"]
    logged.hosts.down |= {"w1", "w2", "w3"}
    kept = logged.proof()
    assert logged.site.run("refresh").code == 0
    assert logged.proof() == kept


def test_without_a_quorum_a_change_waits_and_the_old_stays_fresh(logged: Logged) -> None:
    state = look(logged)
    logged.hosts.down |= {"w2", "w3"}
    version = logged.site.metadata("timestamp").signed.version
    done = logged.site.run("refresh", "channels")
    assert done.code == 0  # the timestamp was signed anew
    assert "Signed anew: timestamp." in done.out
    assert logged.site.metadata("timestamp").signed.version == version + 1
    waiting = leaf_waiting(logged)
    assert waiting
    assert waiting.snapshot.version == 2
    assert look(logged, state).signed.checkpoint.size == 1

    done = logged.site.run("log", "publish")
    assert done.code == ExitCode.UNAVAILABLE
    assert "2 of {w1, w2, w3} must, w1 did" in done.err
    assert "w2: " in done.err
    assert "503" in done.err

    logged.hosts.down.clear()
    assert "enough witnesses" in logged.site.run("log", "publish").out
    assert leaf_waiting(logged) is None
    assert look(logged, state).signed.checkpoint.size == 2
    assert "Nothing waits" in logged.site.run("log", "publish").out
    sound(logged)


def test_the_next_publisher_builds_upon_what_waits(logged: Logged, tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "folder", b"weights")
    logged.hosts.down |= {"w2", "w3"}
    done = logged.site.run("release", "alpha", "1.0.0", folder)
    assert done.code == ExitCode.UNAVAILABLE, done
    assert "it is signed and logged" in done.err
    assert "alpha 1.0.0" not in logged.site.run("channel", "show", "stable").out
    logged.hosts.down.clear()
    done = logged.site.run("release", "alpha", "1.0.0", folder)
    assert done.code == 0, done
    assert logged.site.metadata("snapshot").signed.version == 3
    assert "alpha 1.0.0" in done.out
    sound(logged)


def test_a_snapshot_that_waits_is_not_signed_again_and_again(logged: Logged) -> None:
    storage = LocalStorage(logged.directory)
    later = datetime.now(UTC).replace(microsecond=0) + timedelta(days=4)
    logged.hosts.down |= {"w1", "w2", "w3"}
    online = online_signers(Staging.of(storage, later), logged.site.keys, lambda _path: b"")
    for _ in range(3):
        assert refresh(storage, online, later) == ("timestamp",)
    signed = signed_tree(storage)
    assert signed
    assert signed.checkpoint.size == 2
    logged.hosts.down.clear()
    assert refresh(storage, online, later) == ("timestamp",)
    assert leaf_waiting(logged) is None
    assert logged.site.metadata("timestamp").signed.snapshot_meta.version == 2


def test_a_repository_that_is_made_without_witnesses_waits_for_them(unmade: Logged) -> None:
    unmade.hosts.down |= {"w1", "w2"}
    done = unmade.init()
    assert done.code == ExitCode.UNAVAILABLE
    assert "too few witnesses" in done.err
    assert "Next:" in done.out
    assert unmade.proof() is None
    unmade.hosts.down.clear()
    # It must not be made again, which would be a fork of its own log.
    assert unmade.init().code == ExitCode.USAGE
    assert unmade.site.run("log", "publish").code == 0
    assert look(unmade).signed.checkpoint.size == 1
    sound(unmade)


def test_a_root_waits_too_and_devices_do_not_see_it(logged: Logged) -> None:
    from modelward_repo.publish.ledger import Waiting  # noqa: PLC0415
    from modelward_repo.roles.changes import SetExpiry  # noqa: PLC0415

    state = look(logged)
    logged.hosts.down |= {"w1", "w2"}
    with pytest.raises(Waiting):
        change(logged.site, SetExpiry("timestamp", timedelta(hours=20)))
    assert not (logged.directory / "metadata/2.root.json").exists()
    assert logged.site.run("refresh").code == 0
    assert look(logged, state).signed.checkpoint.size == 1
    logged.hosts.down.clear()
    assert logged.site.run("log", "publish").code == 0
    assert (logged.directory / "metadata/2.root.json").exists()
    assert look(logged, state).signed.checkpoint.size == 2
    sound(logged)


def test_without_the_logs_key_nothing_is_written(logged: Logged, tmp_path: Path) -> None:
    files = sorted(path for path in logged.directory.rglob("*") if path.is_file())
    (logged.site.keys / "repository/log.key").rename(tmp_path / "log.key")
    done = logged.site.run("refresh", "channels")
    assert done.code == ExitCode.USAGE
    assert "'log'" in done.err
    after = sorted(path for path in logged.directory.rglob("*") if path.is_file())
    assert [path for path in after if path.name != ".lock"] == [
        path for path in files if path.name != ".lock"
    ]


def test_a_log_restored_from_a_backup_is_told_so(logged: Logged, tmp_path: Path) -> None:
    old = logged.copy(tmp_path / "backup")
    assert logged.site.run("refresh", "channels").code == 0
    assert logged.site.run("refresh", "channels").code == 0
    # The backup's next leaf would be a fork: no witness signs it.
    done = old.site.run("refresh", "channels")
    assert "Signed anew: timestamp." in done.out
    done = old.site.run("log", "publish")
    assert done.code == ExitCode.UNAVAILABLE
    assert "restored from a backup" in done.err


def test_witnesses_are_found_where_they_moved_to(logged: Logged) -> None:
    shown = logged.site.run("log", "witnesses", "--json").json
    assert set(shown["urls"]) == {"w1", "w2", "w3"}
    moved = logged.hosts.url("w1", "7")
    assert logged.site.run("log", "witnesses", f"w1={moved}").code == 0
    assert logged.site.run("log", "witnesses", "--json").json["urls"]["w1"] == moved
    assert logged.site.run("log", "witnesses", "w9=https://w9").code == ExitCode.USAGE
    assert logged.site.run("log", "witnesses", "w1=gopher://w1").code == ExitCode.USAGE


def test_killed_anywhere_the_old_state_stays_and_the_next_publisher_goes_on(
    logged: Logged, tmp_path: Path
) -> None:
    """Killed before each change to the file system, with honest witnesses that remember."""
    done = subprocess.run(
        [
            *(sys.executable, str(KILLED), str(logged.directory), str(logged.site.keys)),
            *(str(logged.hosts.memory), str(tmp_path / "work"), logged.hosts.url("NAME", "PLACE")),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=115,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
    )
    assert done.returncode == 0, done
    assert done.stdout.startswith("points: ")
    assert int(done.stdout.split()[1]) > 40


def test_post_quantum_witnesses_fit_into_a_timestamp(tmp_path: Path) -> None:
    kind = SignatureType.COSIGNATURE_ML_DSA_44
    with logging(tmp_path / "pq") as made:
        text = made.policy.read_text()
        for name in ("w1", "w2", "w3"):
            text = text.replace(str(cosigning_key(name).vkey), str(cosigning_key(name, kind).vkey))
        made.policy.write_text(text)
        made.hosts.kind = kind
        assert made.init().code == 0
        for _ in range(3):
            assert made.site.run("refresh", "channels").code == 0
        assert len((made.directory / "metadata/timestamp.json").read_bytes()) < 16_384
        assert len(look(made).signed.note.signatures) >= 3
        assert run("log", "verify", made.directory).code == 0


def test_a_leaf_names_what_is_archived(logged: Logged) -> None:
    storage = LocalStorage(logged.directory)
    leaf = Leaf.parse(last_entry(storage, logged.size()) or b"")
    archived = storage.read(f"log/archive/{leaf.root.sha256[:2]}/{leaf.root.sha256}")
    assert archived == storage.read("metadata/1.root.json")


def test_status_and_the_watch_tell_of_what_waits(logged: Logged) -> None:
    from modelward_repo.publish.watch import Line, Watch  # noqa: PLC0415

    assert logged.site.run("status", "--json").json["waiting"] is False
    logged.hosts.down |= {"w1", "w2"}
    logged.site.run("refresh", "channels")
    assert logged.site.run("status", "--json").json["waiting"] is True
    assert "waits for witnesses" in logged.site.run("status").out
    storage = LocalStorage(logged.directory)
    online = online_signers(
        Staging.of(storage, datetime.now(UTC)), logged.site.keys, lambda _path: b""
    )
    told: list[Line] = []
    rounds = 0

    def sleep(_seconds: float) -> bool:
        nonlocal rounds
        rounds += 1
        if rounds == 1:
            assert any("waits for witnesses" in line.text for line in told)
            logged.hosts.down.clear()
        return rounds == 3

    Watch(
        storage=storage,
        sign=lambda now, _wanted: refresh(storage, online, now),
        roles=(),
        clock=lambda: datetime.now(UTC).replace(microsecond=0),
        sleep=sleep,
        tell=told.append,
    ).run()
    assert leaf_waiting(logged) is None
    # Once it is published, there is nothing more to sign for hours.
    assert len([line for line in told if line.kind == "signed"]) == 2
