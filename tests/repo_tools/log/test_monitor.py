"""A monitor says what is new once, raises the alarm, and keeps evidence that anybody can judge."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from werkzeug.wrappers import Request, Response

from modelward.errors import ExitCode, FormatError
from modelward.formats.log_evidence import LogEvidence
from modelward_repo.log.monitor import Memory
from modelward_repo.roles.changes import ReplaceKey
from tests.repo_tools.ceremonies import change, keyid, make_key
from tests.repo_tools.log.site import Logged
from tests.repo_tools.site import make_folder, run
from tests.simulator.listener import Listener
from tests.simulator.world import Done


def watch(logged: Logged, *options: object) -> Done:
    memory = logged.site.keys.parent / "monitor.json"
    return run("log", "monitor", logged.directory, "--once", "--memory", memory, *options)


def test_releases_are_news_and_told_once(logged: Logged, tmp_path: Path) -> None:
    first = watch(logged)
    assert first.code == 0, first
    assert "leaf 0: begins: root 1, snapshot 1" in first.out
    assert watch(logged).out == ""
    logged.site.release("alpha", "1.0.0", make_folder(tmp_path / "folder", b"weights"))
    done = watch(logged, "--json")
    assert done.code == 0
    events = [json.loads(line) for line in done.out.splitlines()]
    assert [event["event"] for event in events] == [
        "new release: alpha 1.0.0",
        "channels: channels/stable.json changed",
    ]
    assert logged.site.run("refresh", "channels").code == 0
    assert "leaf 3" in watch(logged).out


def test_a_new_key_and_a_new_root_raise_the_alarm(logged: Logged) -> None:
    assert watch(logged).code == 0
    new = make_key(logged.site, "operator-b", "channels")
    old = keyid(logged.site, "operator", "channels")
    change(logged.site, ReplaceKey("channels", old, new), roles="targets")
    done = watch(logged)
    assert done.code == ExitCode.REFUSED
    assert f"ALARM: leaf 1: unexpected key {new.key.keyid} signs as channels" in done.err
    assert f"key {old} no longer signs" in done.out
    assert watch(logged).code == 0  # it was told once

    from modelward_repo.roles.changes import SetExpiry  # noqa: PLC0415

    change(logged.site, SetExpiry("timestamp", timedelta(hours=20)))
    done = watch(logged)
    assert done.code == ExitCode.REFUSED
    assert "root changed, from version 1 to 2" in done.err


def test_a_fork_leaves_evidence(logged: Logged, tmp_path: Path) -> None:
    backup = logged.copy(tmp_path / "backup")
    assert watch(logged).code == 0
    assert logged.site.run("refresh", "channels").code == 0
    assert watch(logged).code == 0
    # The same key signs another second leaf, and witnesses that forgot everything go along.
    shutil.rmtree(logged.hosts.memory)
    assert backup.site.run("refresh", "channels", "model-alpha").code == 0
    shutil.rmtree(logged.directory)
    shutil.copytree(backup.directory, logged.directory)
    done = watch(logged)
    assert done.code == ExitCode.REFUSED, done
    assert "ALARM" in done.err
    kept = logged.site.keys.parent / "monitor.evidence.json"
    LogEvidence.parse(kept.read_bytes())
    verdict = run("log", "judge", kept, "--log", logged.vkey, "--json")
    assert verdict.code == ExitCode.REFUSED
    assert verdict.json["verdict"] == "split view"
    assert verdict.json["proven"] is True
    other = "log.example+33d7b496+AeHTu4Q3hEIMHNqc6fASMsq3rKNx280NI+oO5xCFkkSx"
    assert run("log", "judge", kept, "--log", other).code == ExitCode.USAGE
    # Nothing was forgotten: the alarm goes on until people have seen to it.
    assert watch(logged).code == ExitCode.REFUSED


def test_what_is_not_logged_raises_the_alarm(logged: Logged) -> None:
    assert watch(logged).code == 0
    old = (logged.directory / "metadata/timestamp.json").read_bytes()
    proof = logged.proof()
    assert logged.site.run("refresh", "channels").code == 0
    # A thief of the online keys publishes beside the log.
    from securesystemslib.signer import Signer  # noqa: F401, PLC0415
    from tuf.api.metadata import Metadata  # noqa: PLC0415

    from modelward_repo.roles import metadata as tuf  # noqa: PLC0415
    from modelward_repo.roles.keys import KeyFile  # noqa: PLC0415

    path = logged.directory / "metadata/timestamp.json"
    timestamp: Any = Metadata.from_bytes(path.read_bytes())
    timestamp.signed.unrecognized_fields["x-tlog"] = proof
    signer = KeyFile.of(logged.site.keys, "repository", "timestamp").signer(lambda _path: b"")
    signed = timestamp.signed
    path.write_bytes(tuf.sign(timestamp, signed.version + 1, signed.expires, [signer]))
    done = watch(logged)
    assert done.code == ExitCode.REFUSED
    assert "is not in the log" in done.err
    assert old


@contextmanager
def webhook(status: int = 200) -> Iterator[tuple[str, list[Any]]]:
    posted: list[Any] = []

    def answer(environ: Any, start_response: Any) -> Any:
        posted.append(json.loads(Request(environ).get_data()))
        return Response(status=status)(environ, start_response)

    listener = Listener(answer)
    listener.start()
    try:
        yield f"{listener.url}/hook?to=us", posted
    finally:
        listener.stop()


def test_news_is_posted_until_it_was_received(logged: Logged) -> None:
    with webhook(500) as (url, posted):
        assert watch(logged, "--webhook", url).code == ExitCode.UNAVAILABLE
    with webhook() as (url, posted):
        assert watch(logged, "--webhook", url).code == 0
        assert watch(logged, "--webhook", url).code == 0
    assert len(posted) == 1
    assert posted[0]["events"][0]["index"] == 0


@pytest.mark.parametrize("data", [b"", b"{}", b'{"schema":"modelward/log-monitor/1"}'])
def test_a_damaged_memory_is_told(logged: Logged, data: bytes) -> None:
    memory = logged.site.keys.parent / "monitor.json"
    memory.write_bytes(data)
    with pytest.raises(FormatError):
        Memory.parse(data)
    assert watch(logged).code == ExitCode.USAGE


def test_its_memory_is_small_and_survives_a_round_trip(logged: Logged) -> None:
    watch(logged)
    data = (logged.site.keys.parent / "monitor.json").read_bytes()
    assert Memory.parse(data).to_bytes() == data
    assert len(data) < 6000
