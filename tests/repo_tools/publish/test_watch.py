import json
import os
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from modelward.errors import ExitCode, UsageError
from modelward_repo.publish import watch as watching
from modelward_repo.publish.refresh import refresh
from modelward_repo.publish.signing import online_signers, role_signers
from modelward_repo.publish.staging import Staging
from modelward_repo.publish.watch import Kind, Line, Watch
from modelward_repo.storage.local import LocalStorage, StorageError
from tests.repo_tools.site import Site

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


@dataclass
class World:
    """A watch whose time passes only while it sleeps, and what happens meanwhile."""

    site: Site
    until: timedelta
    roles: Sequence[str] = ()
    events: dict[timedelta, Callable[[], object]] = field(default_factory=dict)
    lines: list[Line] = field(default_factory=list)
    pauses: list[float] = field(default_factory=list)
    start: datetime = field(default_factory=lambda: datetime.now(UTC).replace(microsecond=0))
    passed: timedelta = timedelta()

    def now(self) -> datetime:
        return self.start + self.passed

    def sleep(self, seconds: float) -> bool:
        self.pauses.append(seconds)
        assert len(self.pauses) < 3000, "the watch spins"
        self.passed += timedelta(seconds=seconds)
        for when in sorted(self.events):
            if when <= self.passed:
                self.events.pop(when)()
        return self.passed >= self.until

    def sign(self, now: datetime, roles: Sequence[str]) -> Sequence[str]:
        storage = LocalStorage(self.site.directory)
        staging = Staging.of(storage, now)
        keys = self.site.keys
        named = {role: role_signers(staging, role, keys, lambda _: b"") for role in roles}
        return refresh(storage, online_signers(staging, keys, lambda _: b""), now, named, 0.0)

    def run(self) -> list[str]:
        storage = LocalStorage(self.site.directory)
        Watch(storage, self.sign, self.roles, self.now, self.sleep, self.lines.append).run()
        return [line.text for line in self.lines]

    def of(self, kind: Kind) -> list[str]:
        return [line.text for line in self.lines if line.kind is kind]


@pytest.fixture(autouse=True)
def rare_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "LOOK", 6 * 3600.0)
    # python-tuf judges by the real clock; what is signed in the future is fine by it.


def test_roles_are_signed_at_half_of_their_time(site: Site) -> None:
    world = World(site, 8 * DAY + HOUR)
    texts = world.run()
    assert texts[0].startswith("watching: snapshot, timestamp")
    assert texts[-1] == "told to stop: the watch has ended"
    signed = world.of(Kind.SIGNED)
    # Twice a day the timestamp, and after three and a half days, and again, the snapshot.
    assert len(signed) == 16
    assert sum("snapshot, timestamp;" in text for text in signed) == 2
    assert "signed anew: timestamp; next is timestamp at " in signed[0]
    assert len(world.lines) == len(signed) + 2
    timestamp = site.metadata("timestamp").signed
    assert timestamp.version == 17
    assert timestamp.expires - world.now() >= DAY / 2


def test_named_roles_too(site: Site) -> None:
    world = World(site, 16 * DAY, roles=["channels"])
    world.run()
    renewed = [text for text in world.of(Kind.SIGNED) if "channels," in text]
    assert len(renewed) == 1
    assert site.metadata("channels").signed.version == 2
    assert not world.of(Kind.ATTENTION)


def test_the_keys_may_be_away_for_a_while(site: Site) -> None:
    away = site.keys.with_name("away")
    world = World(site, DAY)
    world.events = {
        HOUR: lambda: site.keys.rename(away),
        15 * HOUR: lambda: away.rename(site.keys),
    }
    world.run()
    problems = world.of(Kind.PROBLEM)
    assert problems[0].startswith("try 1 failed: 1 of 1 keys must sign as 'snapshot'") or (
        "must sign as" in problems[0]
    )
    assert "next try in 15 seconds; devices refuse the repository from " in problems[0]
    assert "in 11 hours" in problems[0] or "in 12 hours" in problems[0]
    assert "next try in 10 minutes" in problems[-1]
    assert 15 <= len(problems) <= 40  # it backs off, and goes on
    assert f"all is well again after {len(problems)} failed tries" in world.of(Kind.NOTE)
    assert len(world.of(Kind.SIGNED)) == 1


def test_when_nobody_comes_it_says_so_to_the_end(site: Site) -> None:
    shutil.rmtree(site.keys)
    world = World(site, 2 * DAY)
    world.run()
    assert "that is NOW" in world.of(Kind.PROBLEM)[-1]
    assert max(world.pauses[-20:]) <= watching.LONGEST_PAUSE


def test_a_locked_repository(site: Site) -> None:
    storage = LocalStorage(site.directory)
    lock = storage.lock()
    world = World(site, DAY)
    world.events = {HOUR: lock.__enter__, 14 * HOUR: lambda: lock.__exit__(None, None, None)}
    world.run()
    assert "another publisher has kept the repository locked" in world.of(Kind.PROBLEM)[0]
    assert "see which modelward-repo is running there" in world.of(Kind.PROBLEM)[0]
    assert len(world.of(Kind.SIGNED)) == 1


def test_whatever_else_goes_wrong(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A damaged file, a bug, a disk: the watch outlives it."""
    timestamp = site.directory / "metadata/timestamp.json"
    good = timestamp.read_bytes()
    world = World(site, 20 * HOUR)
    world.events = {
        5 * HOUR: lambda: timestamp.write_bytes(b"{"),
        7 * HOUR: lambda: timestamp.write_bytes(good),
    }
    honest = world.sign
    failures: list[Exception] = [
        RuntimeError(), StorageError("disk full"), UsageError("no\nkey", "find\tit"),
    ]  # fmt: skip

    def sign(now: datetime, roles: Sequence[str]) -> Sequence[str]:
        if failures:
            raise failures.pop(0)
        return honest(now, roles)

    monkeypatch.setattr(world, "sign", sign)
    world.run()
    problems = world.of(Kind.PROBLEM)
    assert any("is not TUF metadata" in text for text in problems)
    assert any("failed: RuntimeError;" in text for text in problems)
    assert any("failed: disk full;" in text for text in problems)
    assert any("no\\nkey (find\\tit);" in text for text in problems)
    assert all("\n" not in text for text in problems)
    assert len(world.of(Kind.SIGNED)) == 1


def test_somebody_else_may_sign_meanwhile(site: Site) -> None:
    world = World(site, 18 * HOUR)
    world.events = {11 * HOUR: lambda: world.sign(world.now(), ())}
    world.run()
    assert not world.of(Kind.SIGNED)


def test_what_nears_its_end_is_said_once_a_day(site: Site) -> None:
    world = World(site, 280 * DAY, start=datetime.now(UTC).replace(microsecond=0))
    world.passed = 275 * DAY - 12 * HOUR  # root's last quarter begins a quarter of a day before
    world.run()
    said = [text for text in world.of(Kind.ATTENTION) if text.startswith("root: ")]
    assert 4 <= len(said) <= 6
    assert said[0].startswith("root: expires in 90 days: renew it in a ceremony")
    assert any(text.startswith("channels: expired") for text in world.of(Kind.ATTENTION))
    loud = next(line for line in world.lines if line.kind is Kind.ATTENTION)
    assert " ATTENTION: " in str(loud)


def start(site: Site, *args: str) -> "subprocess.Popen[str]":
    return site.start("refresh", "--watch", *args, stdin=subprocess.DEVNULL)


def first_line(process: "subprocess.Popen[str]", stream: str = "stdout") -> str:
    pipe = getattr(process, stream)
    assert select.select([pipe], [], [], 30)[0]
    return str(pipe.readline())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_real_command_ends_when_told(site: Site, number: signal.Signals) -> None:
    process = start(site)
    assert "watching: snapshot, timestamp" in first_line(process)
    process.send_signal(number)
    out, err = process.communicate(timeout=20)
    assert process.returncode == 0, err
    assert out.endswith("told to stop: the watch has ended\n")


def test_misspelt_names_are_not_tried_again(site: Site, tmp_path: Path) -> None:
    for args in (("model-x",), ("-r", tmp_path)):
        done = site.run("refresh", "--watch", *args)
        assert done.code == ExitCode.USAGE
        assert "there is no repository here" in done.err or "no role 'model-x'" in done.err


def test_a_damaged_repository_is_watched_until_it_is_mended(site: Site) -> None:
    (site.directory / "metadata/timestamp.json").write_bytes(b"{")
    process = start(site)
    assert "PROBLEM: try 1 failed: metadata/timestamp.json is" in first_line(process, "stderr")
    process.terminate()
    process.communicate(timeout=20)
    assert process.returncode == 0


@pytest.mark.skipif(not shutil.which("faketime"), reason="faketime is not installed")
def test_the_real_command_signs_and_speaks_json(site: Site, tmp_path: Path) -> None:
    process = subprocess.Popen(
        [
            *(str(shutil.which("faketime")), "-f", "+13h", sys.executable, "-m", "modelward_repo"),
            *("refresh", "--watch", "--json"),
        ],
        env={**os.environ, **site.env},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # faketime waits for a child, which is the one to be told
    )
    try:
        assert json.loads(first_line(process))["kind"] == "note"
        assert json.loads(first_line(process))["kind"] == "signed"
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.communicate(timeout=20)
    assert site.metadata("timestamp").signed.version == 2
