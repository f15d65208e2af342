"""Ceremonies through the command line: three people in three folders, and what goes wrong there."""

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from modelward.errors import ExitCode
from modelward_repo.cli import options
from modelward_repo.roles import keys as key_module
from tests.repo_tools.ceremonies import Device
from tests.repo_tools.site import Site, files_of, run
from tests.repo_tools.softhsm import SoftHsm, needs_softhsm
from tests.repo_tools.terminal import Session, at_terminal
from tests.simulator.world import Done

PASSPHRASE = "correct horse battery staple"


@dataclass(frozen=True)
class Team:
    """A repository's host, and holders whose keys are in folders of their own.

    Attributes:
        site: The host's repository and online keys; no private key of root or targets is there.
        place: The folder of all folders.
    """

    site: Site
    place: Path

    def folder(self, name: str) -> Path:
        return self.place / name

    def key(self, name: str, role: str) -> Path:
        return self.folder(name) / f"{role}.key"

    def propose(self, *words: object, output: str = "request.json") -> Path:
        path = self.folder("host") / output
        done = self.site.run("ceremony", "propose", *words, "-o", path)
        assert done.code == 0, done
        return path

    def carry(self, request: Path, to: str) -> Path:
        """Bring a request to somebody by stick."""
        return Path(shutil.copy(request, self.folder(to)))

    def sign(self, request: Path, name: str, *options: object, roles: str = "root") -> Done:
        """Sign without a terminal, as scripts do."""
        keys = [part for role in roles.split() for part in ("--key", self.key(name, role))]
        return run("ceremony", "sign", request, *keys, *options)

    def merge(self, *requests: Path) -> Path:
        path = self.folder("host") / "merged.json"
        done = run("ceremony", "merge", *requests, "-o", path)
        assert done.code == 0, done
        return path

    def publish(self, request: Path, *options: object) -> Done:
        return self.site.run("ceremony", "publish", request, *options)


@pytest.fixture
def team(site: Site, tmp_path: Path) -> Team:
    found = Team(site, tmp_path / "team")
    for name in ("host", "alice", "bob", "carol"):
        found.folder(name).mkdir(parents=True)
    for name in ("alice", "bob", "carol"):
        for role in ("root", "targets"):
            for suffix in (".key", ".pub"):
                shutil.copy(site.keys / name / f"{role}{suffix}", found.folder(name))
            (site.keys / name / f"{role}.key").unlink()
    return found


@pytest.fixture
def dave(team: Team) -> Path:
    """A newcomer's public key, as it came by mail."""
    done = run("key", "create", "dave/root", "--plaintext", "-k", team.place / "dave-keys")
    assert done.code == 0
    path = team.folder("host") / "dave.pub"
    shutil.copy(team.place / "dave-keys/dave/root.pub", path)
    return path


def test_a_whole_ceremony_of_three_people(team: Team, dave: Path, tmp_path: Path) -> None:
    old = Device(team.site, tmp_path / "old")
    old.follow()
    request = team.propose(
        "replace-key", "root", "carol", dave, "--note", "Carol lost her key on a train"
    )
    words = run("ceremony", "show", request, "--json").json["words"]
    signed = [team.carry(request, name) for name in ("alice", "bob")]
    for path, name in zip(signed, ("alice", "bob"), strict=True):
        done = team.sign(path, name, "--confirm", "root", "--expect", words.upper())
        assert done.code == 0, done
        assert "KEY ADDED: dave" in done.out
        assert "Carol lost her key on a train" in done.out
    merged = team.merge(*signed[::-1])
    status = run("ceremony", "status", merged, "--json").json
    assert status["ready"]
    assert status["words"] == words
    done = team.publish(merged, "--expect", words)
    assert "In force: root 2, snapshot 2, timestamp 2." in done.out, done
    old.follow()
    assert old.version("root") == 2
    assert "nothing to do" in team.publish(merged).out


def test_at_terminals_with_passphrases(
    team: Team, dave: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(key_module, "KDF_ROUNDS", 8)
    monkeypatch.setenv("COLUMNS", "120")
    for name in ("erin", "frank"):
        keys = team.place / f"{name}-keys"
        secret = team.folder("host") / "secret"
        secret.write_text(f"{PASSPHRASE} of {name}\n")
        args = ("-k", keys, "--passphrase-file", secret)
        assert run("key", "create", f"{name}/root", *args).code == 0
        secret.unlink()
    pubs = [team.place / f"{name}-keys/{name}/root.pub" for name in ("erin", "frank")]
    request = team.propose(
        *("replace-key", "root", "bob", pubs[0], "--also", f"replace-key root carol {pubs[1]}")
    )
    assert team.sign(request, "alice", "--confirm", "root").code == 0
    assert team.sign(request, "bob", "--confirm", "root").code == 0

    def by_hand(name: str, *answers: str) -> Session:
        key = team.place / f"{name}-keys/{name}/root.key"
        return at_terminal(("ceremony", "sign", request, "--key", key), answers)

    before = request.read_bytes()
    for answers in (("yes", "x"), ("", ""), ("targets",)):
        done = by_hand("erin", *answers)
        assert done.code == ExitCode.USAGE
        assert "nothing was signed" in done.shown
        assert request.read_bytes() == before
    done = by_hand("erin", "root", "wrong passphrase")
    assert done.code == ExitCode.USAGE, done
    assert "wrong passphrase" in done.shown
    assert request.read_bytes() == before
    done = by_hand("erin", "root", f"{PASSPHRASE} of erin")
    assert done.code == 0, done
    assert "This is dangerous for root" in done.shown
    assert "WHO WILL BE ABLE TO DO WHAT" in done.shown
    assert "You sign root as erin" in done.shown
    assert not any(PASSPHRASE.encode() in seen for seen in done.seen)
    assert team.publish(request).code == 0


def test_ordinary_changes_are_confirmed_at_a_terminal(team: Team) -> None:
    request = team.propose("renew", "root")
    key = team.key("alice", "root")
    before = request.read_bytes()
    done = at_terminal(("ceremony", "sign", request, "--key", key), ("n",))
    assert done.code == ExitCode.USAGE
    assert request.read_bytes() == before
    assert at_terminal(("ceremony", "sign", request, "--key", key), ("y",)).code == 0
    assert (
        at_terminal(("ceremony", "sign", request, "--yes", "--key", team.key("bob", "root"))).code
        == 0
    )
    assert team.publish(request).code == 0


@needs_softhsm
def test_mixed_thresholds_a_token_a_file_and_post_quantum(
    team: Team, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hsm = SoftHsm.make(tmp_path / "hsm")
    for name, value in hsm.env.items():
        monkeypatch.setenv(name, value)
    label = hsm.token("dave", "1234")
    pin = tmp_path / "pin"
    pin.write_text("1234\n")
    keys = team.place / "new-keys"
    uri = f"pkcs11:token={label}"
    made = run("key", "create", "dave/root", "--on", uri, "-k", keys, "--pin-file", pin)
    assert made.code == 0, made
    assert (
        run("key", "create", "erin/root", "--scheme", "ml-dsa-65", "--plaintext", "-k", keys).code
        == 0
    )
    request = team.propose(
        *("replace-key", "root", "bob", keys / "dave/root.pub"),
        *("--also", f"replace-key root carol {keys / 'erin/root.pub'}"),
        *("--also", "set-threshold root 3"),
    )
    for name in ("alice", "bob"):
        assert team.sign(request, name, "--confirm", "root").code == 0
    sign = ("ceremony", "sign", request, "--confirm", "root", "--key")
    wrong = tmp_path / "wrong"
    wrong.write_text("9999\n")
    before = request.read_bytes()
    done = run(*sign, keys / "dave/root.ref", "--pin-file", wrong)
    assert done.code == ExitCode.USAGE, done
    assert "PIN" in done.err
    assert request.read_bytes() == before
    done = run(*sign, keys / "dave/root.ref", "--pin-file", pin)
    assert done.code == 0, done
    assert run(*sign, keys / "erin/root.key").code == 0
    assert team.publish(request).code == 0
    device = Device(team.site, tmp_path / "device")
    device.follow()
    assert device.version("root") == 2


def test_signing_needs_neither_repository_nor_network(team: Team) -> None:
    request = team.carry(team.propose("renew", "root"), "alice")
    shutil.move(team.site.directory, team.place / "elsewhere")
    assert team.sign(request, "alice").code == 0


def test_danger_without_a_terminal_must_be_confirmed_by_name(team: Team, dave: Path) -> None:
    request = team.propose("add-key", "root", dave)
    before = request.read_bytes()
    for given in ((), ("--yes",), ("--confirm", "targets")):
        done = team.sign(request, "alice", *given)
        assert done.code == ExitCode.USAGE
        assert "say --confirm 'root'" in done.err
        assert request.read_bytes() == before
    assert team.sign(request, "alice", "--confirm", "targets,root").code == 0


def test_other_words_than_agreed_upon(team: Team) -> None:
    request = team.propose("renew", "root")
    before = request.read_bytes()
    done = team.sign(request, "alice", "--expect", "lusab-babad-gutih-tugad")
    assert done.code == ExitCode.REFUSED
    assert "not lusab-babad-gutih-tugad" in done.err
    assert "do not sign it" in done.err
    done = team.sign(request, "alice", "--expect", "lusab")
    assert done.code == ExitCode.USAGE
    assert request.read_bytes() == before


def test_a_root_that_the_signer_knows(team: Team, tmp_path: Path) -> None:
    request = team.propose("renew", "root")
    known = team.site.directory / "metadata/1.root.json"
    done = team.sign(request, "alice", "--known-root", known)
    assert "It builds upon root 1, which you know." in done.out
    other = tmp_path / "other.json"
    other.write_bytes(known.read_bytes().replace(b'"threshold":2', b'"threshold":1', 1))
    done = team.sign(request, "bob", "--known-root", other)
    assert done.code == ExitCode.REFUSED
    assert "another repository than the root you know" in done.err


def test_a_dry_run_signs_and_writes_nothing(team: Team, dave: Path) -> None:
    request = team.propose("add-key", "root", dave)
    before = request.read_bytes()
    done = team.sign(request, "alice", "--dry-run")
    assert done.code == 0, done
    assert "You sign root as alice" in done.out
    assert "Nothing was signed" in done.out
    assert request.read_bytes() == before
    assert team.sign(request, "alice", "--confirm", "root").code == 0
    output = team.folder("host") / "merged.json"
    assert run("ceremony", "merge", request, "-o", output, "--dry-run").code == 0
    assert not output.exists()
    repository = files_of(team.site.directory)
    assert team.sign(request, "bob", "--confirm", "root").code == 0
    assert "Would be in force: root 2" in team.publish(request, "--dry-run").out
    assert files_of(team.site.directory) == repository
    done = team.site.run("ceremony", "propose", "renew", "root", "--dry-run")
    assert done.code == 0
    assert "Written" not in done.out


def test_a_clock_that_is_wrong(team: Team, monkeypatch: pytest.MonkeyPatch) -> None:
    request = team.propose("renew", "root")
    before = request.read_bytes()
    done = team.sign(request, "alice", "--now", "2001-01-01T00:00:00Z")
    assert done.code == ExitCode.REFUSED
    assert "this machine's clock is wrong: it says 2001-01-01T00:00:00Z" in done.err
    done = team.sign(request, "alice", "--now", "2099-01-01T00:00:00Z")
    assert done.code == ExitCode.REFUSED
    assert "would have expired already" in done.err
    for words in ("noon", "2026-01-01T00:00:00"):
        assert team.sign(request, "alice", "--now", words).code == ExitCode.USAGE
    assert request.read_bytes() == before
    wrong = team.folder("host") / "wrong.json"
    for year in (2001, 2099):
        monkeypatch.setattr(options, "now", lambda year=year: datetime(year, 1, 1, tzinfo=UTC))
        done = team.site.run("ceremony", "propose", "renew", "root", "-o", wrong)
        assert done.code == ExitCode.REFUSED, done
        assert "clock" in done.err
        assert not wrong.exists()


def test_whoever_may_not_sign(team: Team) -> None:
    request = team.propose("renew", "root")
    done = team.sign(request, "alice", roles="targets")
    assert done.code == ExitCode.USAGE
    assert "may not sign this request" in done.err
    assert team.sign(request, "alice").code == 0
    before = request.read_bytes()
    done = team.sign(request, "alice")
    assert done.code == ExitCode.USAGE
    assert "has signed this request already; nothing was changed" in done.err
    assert request.read_bytes() == before
    assert "with which key?" in run("ceremony", "sign", request).err


def test_root_and_targets_are_signed_at_once(team: Team) -> None:
    request = team.propose("renew", "root", "targets")
    for name in ("alice", "bob"):
        assert team.sign(request, name, roles="root targets").code == 0
    done = team.publish(request, "--json")
    assert done.json["versions"] == {"root": 2, "targets": 2, "snapshot": 2, "timestamp": 2}


def test_a_tampered_request(team: Team) -> None:
    request = team.propose("renew", "root")
    assert team.sign(request, "alice").code == 0
    raw = json.loads(request.read_bytes())
    raw["proposed"]["root"] = raw["proposed"]["root"].replace('"threshold":2', '"threshold":1')
    request.write_text(json.dumps(raw))
    for words in (("show",), ("status",), ("sign", "--key", team.key("bob", "root"))):
        done = run("ceremony", words[0], request, *words[1:])
        assert done.code == ExitCode.REFUSED
        assert "the signature of alice" in done.err
        assert "is not valid" in done.err
        assert "ask whoever gave it to you for another copy" in done.err
    assert team.publish(request).code == ExitCode.REFUSED


def test_merged_with_another_proposal(team: Team, dave: Path) -> None:
    one = team.propose("renew", "root", output="one.json")
    other = team.propose("add-key", "root", dave, output="other.json")
    output = team.folder("host") / "merged.json"
    done = run("ceremony", "merge", one, other, "-o", output)
    assert done.code == ExitCode.REFUSED
    assert "another request" in done.err
    assert not output.exists()
    done = run("ceremony", "merge", one, "-o", other)
    assert done.code == ExitCode.USAGE
    assert "is not a copy of this request" in done.err


def test_too_few_signatures(team: Team) -> None:
    request = team.propose("renew", "root")
    assert team.sign(request, "alice").code == 0
    before = files_of(team.site.directory)
    done = team.publish(request)
    assert done.code == ExitCode.REFUSED
    assert "root has 1 of the 2 that the present root demands" in done.err
    assert "bob" in done.err
    assert files_of(team.site.directory) == before


def test_a_stale_request(team: Team) -> None:
    one = team.propose("renew", "root", output="one.json")
    other = team.propose("set-expiry", "root", "200d", output="other.json")
    for request in (one, other):
        for name in ("alice", "bob"):
            assert team.sign(request, name, "--confirm", "root").code == 0
    assert team.publish(other).code == 0
    done = team.publish(one)
    assert done.code == ExitCode.REFUSED
    assert "out of date: it builds upon root 1, but root 2 is in force" in done.err
    assert "propose it anew" in done.err


def test_output_files(team: Team) -> None:
    request = team.propose("renew", "root")
    done = team.site.run("ceremony", "propose", "renew", "root", "-o", request)
    assert "exists already" in done.err
    assert "say --output request.json" in team.site.run("ceremony", "propose", "renew", "root").err
    elsewhere = team.folder("alice") / "signed.json"
    before = request.read_bytes()
    assert team.sign(request, "alice", "-o", elsewhere).code == 0
    assert request.read_bytes() == before
    html = team.folder("host") / "page.html"
    assert run("ceremony", "show", elsewhere, "--html", html).code == 0
    assert "<svg" in html.read_text()


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("add-key", "rot", "dave/root"), "no role 'rot'"),
        (("add-key", "root", "nobody.pub"), "nobody.pub cannot be read"),
        (("remove-key", "root", "zoe"), "root has no key 'zoe'"),
        (("set-expiry", "root", "soon"), "'soon' is not a period"),
        (("renew", "channels"), "channels is signed online"),
        (("renew", "root", "--also", "frobnicate"), "'frobnicate' is not a change"),
        (("renew", "root", "--also", "'"), "is not a change"),
        (("remove-holder", "zoe"), "no key here is held by 'zoe'"),
        (("remove-model", "gamma"), "no role 'model-gamma'"),
        (("set-layout", "gamma", "no.json"), "no.json cannot be read"),
        (("set-log", "no.json"), "no.json cannot be read"),
        (("set-log", "none"), "the log policy is that already"),
        (("restore-targets", "9"), "no file metadata/9.targets.json"),
    ],
)
def test_what_cannot_be_proposed(
    team: Team, dave: Path, words: tuple[str, ...], problem: str
) -> None:
    done = team.site.run("ceremony", "propose", *words, "-o", team.folder("host") / "x.json")
    assert done.code in (ExitCode.USAGE, ExitCode.ERROR)
    assert problem in done.err
    assert not (team.folder("host") / "x.json").exists()


def test_missing_words_show_how_a_change_is_said(team: Team) -> None:
    wish = ("renew", "root", "--also", "add-key root", "-o", team.folder("host") / "x.json")
    done = team.site.run("ceremony", "propose", *wish)
    assert done.code == ExitCode.USAGE
    assert "add-key" in done.err
    assert "Missing argument 'KEY'" in done.err


def test_a_model_is_added_and_a_layout_changes_hands(
    team: Team, folder: Path, tmp_path: Path
) -> None:
    """Every step through the command line, with what the people in it have."""
    site, host = team.site, team.folder("host")
    old = Device(site, tmp_path / "old")
    old.follow()
    for name in ("lead-d/layout", "ci/model-gamma"):
        assert site.run("key", "create", name, "--plaintext").code == 0
    layout = host / "layout.json"
    assert site.run("ceremony", "document", "layouts/alpha.json", "-o", layout).code == 0
    assert site.run("layout", "sign", layout, "--key", site.keys / "lead-d/layout.key").code == 0
    owners = ("set-layout-owners", "alpha", "lead-a", "lead-b", "lead-d/layout")
    model = "add-model gamma --key ci/model-gamma --layout {} --owner {} --owner {}".format(
        layout, site.keys / "lead-a/layout.pub", site.keys / "lead-d/layout.pub"
    )
    request = team.propose(*owners, "--also", f"set-layout alpha {layout}", "--also", model)
    for name in ("alice", "carol"):
        confirm = ("--confirm", "layout of alpha,layout of gamma")
        done = team.sign(request, name, *confirm, roles="targets")
        assert done.code == 0, done
    assert "OWNER ADDED: lead-d" in done.out
    assert "NEW ROLE: 1 of ci" in done.out
    assert team.publish(request).code == 0
    old.follow()
    site.release("gamma", "1.0.0", folder)
    old.follow()


def test_words_and_keys_named_on_the_command_line(team: Team) -> None:
    """The online keys are elsewhere, each named by file."""
    request = team.propose("renew", "root")
    for name in ("alice", "bob"):
        assert team.sign(request, name).code == 0
    online = team.folder("host") / "online"
    shutil.move(team.site.keys / "repository", online)
    assert team.publish(request).code == ExitCode.USAGE
    named = [
        part for role in ("snapshot", "timestamp") for part in ("--key", online / f"{role}.key")
    ]
    assert team.publish(request, *named).code == 0


def test_numbers_that_nobody_signs_are_confirmed_when_published(team: Team) -> None:
    request = team.propose("renew", "root", "--also", "bump-version timestamp 500000")
    for name in ("alice", "bob"):
        assert team.sign(request, name, "--confirm", "timestamp").code == 0
    before = files_of(team.site.directory)
    done = team.publish(request)
    assert done.code == ExitCode.USAGE
    assert "say --confirm 'timestamp'" in done.err
    assert files_of(team.site.directory) == before
    assert team.publish(request, "--confirm", "timestamp").code == 0
    assert team.site.metadata("timestamp").signed.version == 500000


@pytest.mark.slow
def test_killed_before_every_single_change_to_the_file_system(team: Team, tmp_path: Path) -> None:
    """Really killed; devices follow what is left, and publishing again finishes it."""
    made = run("key", "create", "repository-2/timestamp", "--plaintext", "-k", team.site.keys)
    assert made.code == 0
    request = team.propose("replace-key", "timestamp", "repository", "repository-2/timestamp")
    for name in ("alice", "bob"):
        assert team.sign(request, name).code == 0
    shutil.copytree(team.site.directory, tmp_path / "template/repo")
    shutil.copytree(team.site.keys, tmp_path / "template/keys")
    (tmp_path / "work").mkdir()
    killer = Path(__file__).parents[1] / "publish/kill_everywhere.py"
    command = ("ceremony", "publish", request, "-r", "{}/repo", "-k", "{}/keys")
    subprocess.run(
        [sys.executable, killer, tmp_path / "template", tmp_path / "work", *command],
        check=True,
        timeout=110,
        capture_output=True,
    )
    copies = list((tmp_path / "work").iterdir())
    assert len(copies) > 20
    for copy in copies:
        site = Site(copy / "repo", copy / "keys")
        device = Device(site, copy / "device")
        device.follow()
        assert site.run("ceremony", "publish", request).code == 0
        device.follow()
        assert device.version("root") == 2
