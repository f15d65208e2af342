"""Whole ceremonies: people at machines that share nothing but a stick, each at a terminal.

Bad input of the issue, and which test shows what it does:

===========================  =====================================================================
wrong passphrase             here; repo_tools/cli/test_ceremony, repo_tools/cli/test_key
token absent                 here; repo_tools/roles/test_signers
wrong PIN                    here; repo_tools/roles/test_signers
PIN locked                   repo_tools/roles/test_signers (SoftHSM2 never locks: answers played)
another repository           here; repo_tools/roles/test_enact
stale                        here; repo_tools/roles/test_enact, repo_tools/cli/test_ceremony
tampered                     here; repo_tools/roles/test_request (every field), cli/test_ceremony
signed by a non-member       here; repo_tools/roles/test_request, cli/test_ceremony
signed twice                 here; repo_tools/roles/test_request
clock of the machine wrong   here, with the machine's clock set; cli/test_ceremony
power cut while publishing   here, a process killed; roles/test_enact, cli/test_ceremony: everywhere
stick full                   here, a full file system; repo_tools/roles/test_carry
===========================  =====================================================================

Each also shows that nothing was lost: the request's file is as it was, and the ceremony goes on.
"""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from modelward.errors import ExitCode
from tests.repo_tools.site import files_of
from tests.repo_tools.softhsm import SoftHsm, needs_softhsm, unload
from tests.repo_tools.terminal import Session, converse
from tests.runbooks.fleet import INIT, PIN, Fleet, answer
from tests.runbooks.warm import warm
from tests.simulator.server import Server
from tests.simulator.world import clean_environment

REQUEST = "stick/request.json"
PROPOSE = "modelward-repo ceremony propose"
ROOT_KEY = "keys/{0}/root.key"


@pytest.fixture
def fleet(template: Fleet, tmp_path: Path) -> Fleet:
    return template.copy(tmp_path / "fleet")


@pytest.fixture
def server(fleet: Fleet) -> Iterator[Server]:
    with Server(fleet.repository) as running:
        fleet.move_device(running.url)
        fleet.do("device", "modelward update")
        yield running


@pytest.fixture
def hsm(fleet: Fleet, tmp_path: Path) -> SoftHsm:
    made = SoftHsm.make(tmp_path / "hsm")
    made.token("bob", PIN)
    unload()
    return made


def sign(
    fleet: Fleet, name: str, file: str = REQUEST, key: str = ROOT_KEY, more: str = ""
) -> Session:
    return fleet.at(name, f"modelward-repo ceremony sign {file} --key {key.format(name)} {more}")


def propose(fleet: Fleet, what: str = "renew root", file: str = REQUEST) -> Path:
    fleet.do("repository", f"{PROPOSE} {what} -r my-repo -o {file}")
    return fleet.place / "repository" / file


def publish(fleet: Fleet, file: str = REQUEST) -> Session:
    return fleet.at("repository", f"modelward-repo ceremony publish {file} -r my-repo")


def words_of(fleet: Fleet, file: str = REQUEST) -> str:
    done = fleet.do("repository", f"modelward-repo ceremony status {file} --json")
    return str(json.loads(done.shown)["words"])


def finish(fleet: Fleet, server: Server, *, version: int = 2) -> None:
    """Go on with what was spoilt by nobody: the ceremony ends as ever, and the device follows."""
    for name in ("alice", "bob", "carol"):
        sign(fleet, name)
    assert publish(fleet).code == 0
    assert f"root {version}," in fleet.do("device", "modelward update").shown


@needs_softhsm
def test_three_people_a_token_a_file_and_a_post_quantum_key(
    fleet: Fleet, server: Server, hsm: SoftHsm
) -> None:
    """Bob moves to a token, Carol to ML-DSA; then all three sign, at once, with what they have."""
    fleet.env = hsm.env
    fleet.do("bob", "modelward-repo key create bob/root --keys token --on pkcs11:token=bob")
    fleet.do("carol", "modelward-repo key create carol/root --keys pq --scheme ml-dsa-65")
    for name, folder in (("bob", "token"), ("carol", "pq")):
        fleet.do(name, f"mkdir stick/{name} && cp {folder}/{name}/root.pub stick/{name}/")
    propose(
        fleet,
        "replace-key root bob stick/bob/root.pub "
        "--also 'replace-key root carol stick/carol/root.pub' --also 'set-threshold root 3'",
    )
    words = words_of(fleet)
    done = sign(fleet, "alice", more=f"--expect {words.lower()}")
    assert done.code == 0, done.shown
    assert "This is dangerous for root" in done.shown
    assert sign(fleet, "bob", more=f"--key token/bob/root.ref --expect {words}").code == 0
    early = publish(fleet)
    assert early.code == ExitCode.REFUSED
    assert "signatures are missing: root has 2 of the 3 that the new root demands" in early.shown
    assert sign(fleet, "carol", key="pq/carol/root.key").code == 0
    assert publish(fleet).code == 0
    assert "root 2," in fleet.do("device", "modelward update").shown

    # Next year, everybody has a copy of their own, and they come back in any order.
    propose(fleet, "renew root", "stick/next.json")
    keys = {"alice": ROOT_KEY, "bob": "token/bob/root.ref", "carol": "pq/carol/root.key"}
    for name, key in keys.items():
        fleet.do(name, f"cp stick/next.json stick/{name}.json")
        assert sign(fleet, name, f"stick/{name}.json", key).code == 0
    fleet.do(
        "repository",
        "modelward-repo ceremony merge stick/carol.json stick/alice.json -o stick/some.json\n"
        "modelward-repo ceremony merge stick/bob.json stick/some.json -o stick/all.json",
    )
    assert publish(fleet, "stick/all.json").code == 0
    assert "root 3," in fleet.do("device", "modelward update").shown
    log = fleet.do("repository", "modelward-repo log root -r my-repo").shown
    assert all(name in log for name in keys)


@needs_softhsm
def test_a_token_that_is_absent_and_a_wrong_pin(
    fleet: Fleet, server: Server, hsm: SoftHsm, tmp_path: Path
) -> None:
    fleet.env = hsm.env
    fleet.do("bob", "modelward-repo key create bob/root --keys token --on pkcs11:token=bob")
    fleet.do("bob", "cp token/bob/root.pub stick/bob.pub")
    request = propose(fleet, "add-key root stick/bob.pub --holder bob-2")
    assert sign(fleet, "alice").code == 0
    before = request.read_bytes()

    empty = tmp_path / "drawer"
    (empty / "tokens").mkdir(parents=True)
    (empty / "softhsm2.conf").write_text(f"directories.tokendir = {empty}/tokens\n")
    fleet.env = {**hsm.env, "SOFTHSM2_CONF": str(empty / "softhsm2.conf")}
    absent = sign(fleet, "bob", key="token/bob/root.ref")
    assert absent.code in (ExitCode.USAGE, ExitCode.UNAVAILABLE)
    assert "token" in absent.shown
    assert "Traceback" not in absent.shown

    fleet.env = hsm.env
    typed = {"PIN": "000000", "to go on": "root"}
    wrong = typing(fleet, "bob", "token/bob/root.ref", typed)
    assert wrong.code == ExitCode.USAGE, wrong.shown
    assert "PIN" in wrong.shown
    assert request.read_bytes() == before
    assert sign(fleet, "bob", key="token/bob/root.ref").code == 0
    finish(fleet, server)


def typing(fleet: Fleet, name: str, key: str, typed: dict[str, str]) -> Session:
    """Sign, answering prompts that have these words in them otherwise than one should."""

    def reply(shown: str) -> str | None:
        expected = answer(shown)
        prompt = shown.rstrip("\n").rpartition("\n")[2]
        other = next((text for words, text in typed.items() if words in prompt), None)
        return other if expected is not None and other is not None else expected

    env = clean_environment() | {
        "PATH": f"{fleet.commands}:{os.environ['PATH']}",
        "TERM": "dumb",
        **fleet.env,
    }
    command = ["modelward-repo", "ceremony", "sign", REQUEST, "--key", key.format(name)]
    return converse(
        [str(fleet.commands / command[0]), *command[1:]], reply, fleet.place / name, env
    )


def test_a_wrong_passphrase_and_second_thoughts(fleet: Fleet, server: Server) -> None:
    request = propose(fleet, "set-threshold root 1")
    before = request.read_bytes()
    for typed, said in (
        ({"Passphrase": "incorrect horse"}, "wrong passphrase"),
        ({"to go on": "yes"}, "nothing was signed"),
    ):
        done = typing(fleet, "alice", ROOT_KEY, typed)
        assert done.code == ExitCode.USAGE, done.shown
        assert said in done.shown
        assert "incorrect horse" not in done.shown
    assert request.read_bytes() == before
    finish(fleet, server)


def test_a_request_for_another_repository(
    fleet: Fleet, server: Server, commands: Path, tmp_path: Path
) -> None:
    other = Fleet.machines(tmp_path / "other", commands)
    other.do("repository", INIT)
    other.hand_out()
    propose(other)
    for name in ("alice", "bob"):
        assert sign(other, name).code == 0
    shutil.copy(other.place / REQUEST, fleet.place / "stick/wrong.json")
    before = files_of(fleet.repository)
    done = publish(fleet, "stick/wrong.json")
    assert done.code == ExitCode.REFUSED
    assert "the request is for another repository than this one" in done.shown
    known = "--known-root root.json"
    shutil.copy(fleet.repository / "metadata/1.root.json", fleet.place / "alice/root.json")
    suspicious = sign(fleet, "alice", "stick/wrong.json", more=known)
    assert suspicious.code != 0
    assert files_of(fleet.repository) == before
    propose(fleet)
    finish(fleet, server)


def test_stale_tampered_by_a_stranger_and_twice(fleet: Fleet, server: Server) -> None:
    stale = propose(fleet, "set-expiry root 300d", "stick/stale.json")
    for name in ("alice", "bob"):
        assert sign(fleet, name, "stick/stale.json").code == 0

    request = propose(fleet)
    honest = request.read_bytes()
    request.write_bytes(re.sub(rb'(version\\*": *)2\b', rb"\g<1>9", honest))
    assert request.read_bytes() != honest
    tampered = sign(fleet, "alice")
    assert tampered.code == ExitCode.REFUSED, tampered.shown
    request.write_bytes(honest)

    stranger = sign(fleet, "lead-a", key="keys/lead-a/layout.key")
    assert stranger.code == ExitCode.USAGE
    assert "may not sign this request" in stranger.shown
    assert sign(fleet, "alice").code == 0
    signed = request.read_bytes()
    twice = sign(fleet, "alice")
    assert twice.code == ExitCode.USAGE
    assert "has signed this request already" in twice.shown
    assert request.read_bytes() == signed
    finish(fleet, server)

    late = publish(fleet, "stick/stale.json")
    assert stale.exists()
    assert late.code == ExitCode.REFUSED, late.shown
    assert "the request is out of date" in late.shown


@pytest.mark.skipif(not shutil.which("faketime"), reason="faketime is not installed")
@pytest.mark.parametrize("shift", ["-9000d", "+9000d"])
def test_a_machine_whose_clock_is_wrong(
    fleet: Fleet, server: Server, tmp_path: Path, shift: str
) -> None:
    request = propose(fleet)
    before = request.read_bytes()
    right = fleet.commands
    with warm(tmp_path / "w", "faketime", "-f", shift) as wrong:
        fleet.commands = wrong
        done = sign(fleet, "alice")
        assert done.code == ExitCode.REFUSED, done.shown
        assert "clock" in done.shown or "expired" in done.shown
        assert request.read_bytes() == before
        today = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        assert sign(fleet, "alice", more=f"--now {today}").code == 0
    fleet.commands = right
    finish(fleet, server)


def test_a_publisher_that_is_killed(fleet: Fleet, server: Server) -> None:
    """Real processes, killed ever later; publishing again always finishes, or had nothing to do."""
    propose(fleet)
    for name in ("alice", "bob"):
        assert sign(fleet, name).code == 0
    secret = fleet.place / "repository/passphrase"
    secret.write_text("correct horse battery staple\n")
    command = [sys.executable, "-m", "modelward_repo", "ceremony", "publish", REQUEST]
    command += ["-r", "my-repo", "--passphrase-file", "passphrase"]
    for patience in (0.4, 0.7):
        process = subprocess.Popen(
            command,
            cwd=fleet.place / "repository",
            env=clean_environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(patience)
        process.send_signal(signal.SIGKILL)
        process.wait()
        fleet.do("device", "modelward update")
    assert publish(fleet).code == 0
    fleet.do("device", "modelward update")
    root = json.loads((fleet.state / "tuf/root.json").read_bytes())
    assert root["signed"]["version"] == 2


def test_a_full_stick(fleet: Fleet, server: Server) -> None:
    """Alice's machine cannot write a byte more to the stick, for real: a limit on file sizes."""
    request = propose(fleet)
    before = request.read_bytes()
    # What a full file system answers is ENOSPC, a limit EFBIG; both are shown in test_carry.
    full = fleet.at(
        "alice",
        "trap '' XFSZ; ulimit -f 1\n"
        f"{sys.executable} -m modelward_repo ceremony sign {REQUEST} --yes "
        f"--key {ROOT_KEY.format('alice')}",
    )
    assert full.code == ExitCode.USAGE, full.shown
    assert "cannot be written" in full.shown
    assert "nothing was lost" in full.shown
    assert request.read_bytes() == before
    assert [path.name for path in (fleet.place / "stick").iterdir()] == ["request.json"]
    finish(fleet, server)
