"""`modelward-repo layout`, `ticket`, `manifest` and `attest`, as they are typed."""

import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from modelward.formats.dsse import Envelope
from modelward.formats.policy import ModelPolicy
from modelward.formats.ticket import Ticket
from modelward.trust import supply_chain
from modelward_repo.cli import run
from modelward_repo.roles.keys import KeyFile
from modelward_repo.supply_chain.attest import load_links
from tests.simulator.chain import LAYOUTS

HOLDERS = {"packager": "functionary", "approver": "functionary"}
OWNERS = {"lead-a": "layout", "lead-b": "layout", "lead-c": "layout"}
COMPILE = ("layout", "compile", str(LAYOUTS / "minimal.toml"), "--keys", "keys")


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """A directory with everybody's keys and the model's policy."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("modelward_repo.roles.keys.KDF_ROUNDS", 1)
    for holder, name in (HOLDERS | OWNERS).items():
        KeyFile.of(Path("keys"), holder, name).create(None)
    owners = [KeyFile.of(Path("keys"), owner, "layout").public() for owner in OWNERS]
    policy = ModelPolicy("my-model", {key.keyid: key for key in owners}, 2)
    Path("policy.json").write_bytes(policy.to_bytes())
    return tmp_path


def answer(capfd, *args: str) -> dict:
    """Run a command that must succeed and return what it says in JSON."""
    capfd.readouterr()
    code = run([*args[:1], *args[1:]] if "--json" in args else [*args, "--json"])
    out, err = capfd.readouterr()
    assert code == 0, out + err
    return json.loads(out)


def failure(capfd, *args: str) -> tuple[int, str]:
    capfd.readouterr()
    code = run(args)
    out, err = capfd.readouterr()
    assert code != 0, out
    return code, err


def compiled() -> None:
    assert run([*COMPILE, "--owners", "lead-a,lead-b, lead-c", "-o", "layout.json"]) == 0


def signed() -> None:
    compiled()
    for owner in ("lead-a", "lead-b"):
        assert run(["layout", "sign", "layout.json", "--key", f"keys/{owner}/layout.key"]) == 0


def attest(step: str, holder: str, *rest: str) -> list[str]:
    return [
        *("attest", step, "--layout", "layout.json", "--policy", "policy.json"),
        *("--links", "links", "--key", f"keys/{holder}/functionary.key", *rest),
    ]


PACK = (
    "import os, shutil; os.mkdir('bundle'); "
    "[shutil.copy(name, 'bundle') for name in ('m.onnx', 'ticket.json')]"
)


# --- layout


def test_layout_is_compiled_signed_and_shown(place, capfd):
    compiled()
    text = capfd.readouterr().out
    assert "nobody yet" in text
    assert "1 of packager" in text
    assert "MATCH bundle/* WITH PRODUCTS FROM package" in text

    said = answer(capfd, "layout", "sign", "layout.json", "--key", "keys/lead-b/layout.key")
    lead_b = KeyFile(Path("keys/lead-b/layout.key")).public().keyid
    assert said["keyid"] == lead_b
    assert said["signatures"] == [{"keyid": lead_b, "holder": None, "valid": None}]

    assert (
        run(["layout", "sign", "layout.json", "-k", "keys", "--key", "keys/lead-a/layout.key"]) == 0
    )
    text = capfd.readouterr().out
    assert text.index("REQUIRE bundle/ticket.json") < text.index("Signed with")

    said = answer(capfd, "layout", "show", "layout.json", "--keys", "keys")
    assert {s["holder"]: s["valid"] for s in said["signatures"]} == {"lead-a": True, "lead-b": True}
    assert [step["name"] for step in said["steps"]] == ["package", "approve"]
    assert said["steps"][0]["functionaries"][0]["holder"] == "packager"
    assert said["steps"][0]["products"][0] == "REQUIRE bundle/ticket.json"

    envelope = Envelope.parse("layout", Path("layout.json").read_bytes())
    policy = ModelPolicy.parse(Path("policy.json").read_bytes())
    assert len(supply_chain.verify_owners(envelope, policy)) == 2


def test_show_tells_bad_and_unknown_signatures(place, capfd):
    signed()
    envelope = Envelope.parse("layout", Path("layout.json").read_bytes())
    keyid = KeyFile(Path("keys/lead-a/layout.key")).public().keyid
    forged = {**envelope.signatures, keyid: b"x" * 64}
    Path("layout.json").write_bytes(Envelope(envelope.payload, envelope.content, forged).to_bytes())
    capfd.readouterr()
    assert run(["layout", "show", "layout.json", "--keys", "keys"]) == 0
    assert f"lead-a ({keyid[:8]}): NOT VALID" in capfd.readouterr().out
    assert run(["layout", "show", "layout.json"]) == 0
    assert "key unknown, not checked" in capfd.readouterr().out


def test_compile_prints_without_output(place, capfd):
    assert run([*COMPILE, "--owners", "lead-a"]) == 0
    envelope = Envelope.parse("layout", capfd.readouterr().out.encode())
    assert not envelope.signatures


def test_compile_never_overwrites_a_layout(place, capfd):
    signed()
    before = Path("layout.json").read_bytes()
    source = place / "other.toml"
    source.write_text((LAYOUTS / "minimal.toml").read_text().replace("365d", "30d"))
    command = ("layout", "compile", str(source), "--keys", "keys", "--owners", "lead-a")
    code, err = failure(capfd, *command, "-o", "layout.json")
    assert code == 2
    assert "exists already" in err
    assert Path("layout.json").read_bytes() == before


@pytest.mark.parametrize(
    ("args", "code", "reason"),
    [
        ((*COMPILE, "--owners", ","), 2, "without owners"),
        ((*COMPILE, "--owners", "lead-a,packager"), 2, "packager owns the layout"),
        ((*COMPILE, "--owners", "lead-a", "--keys", "empty"), 2, "no functionary key of packager"),
        (("layout", "compile", "none.toml", "-k", "keys", "--owners", "a"), 2, "none.toml"),
        (("layout", "show", "policy.json"), 3, "policy.json"),
        (("layout", "show", "none.json"), 2, "none.json cannot be read"),
        (("layout", "sign", "policy.json", "--key", "keys/lead-a/layout.key"), 3, "policy.json"),
        (("layout", "sign", "policy.json"), 2, "--key"),
    ],
)
def test_bad_requests_are_explained(place, capfd, args, code, reason):
    found, err = failure(capfd, *args)
    assert found == code
    assert reason in err


def test_functionary_cannot_sign_the_layout(place, capfd):
    compiled()
    before = Path("layout.json").read_bytes()
    code, err = failure(
        capfd, "layout", "sign", "layout.json", "--key", "keys/packager/functionary.key"
    )
    assert code == 2
    assert "must not also vouch" in err
    assert Path("layout.json").read_bytes() == before


def test_encrypted_key_needs_its_passphrase(place, capfd):
    compiled()
    KeyFile.of(Path("keys"), "lead-d", "layout").create(b"correct horse")
    sign = ("layout", "sign", "layout.json", "--key", "keys/lead-d/layout.key")
    assert failure(capfd, *sign)[0] == 2
    Path("wrong").write_text("battery staple\n")
    assert "wrong passphrase" in failure(capfd, *sign, "--passphrase-file", "wrong")[1]
    Path("right").write_text("correct horse\n")
    assert run([*sign, "--passphrase-file", "right"]) == 0


# --- ticket and manifest


def test_ticket_is_written_once_with_a_fresh_nonce(place, capfd):
    first = answer(capfd, "ticket", "my-model", "1.0.0", "--counter", "3", "--commit", "c0ffee")
    ticket = Ticket.parse(Path("ticket.json").read_bytes())
    assert ticket == Ticket("my-model", "1.0.0", 3, ticket.nonce, "c0ffee")
    assert first["sha256"] == ticket.sha256()
    assert failure(capfd, "ticket", "my-model", "1.0.0", "--counter", "3")[0] == 2
    second = answer(capfd, "ticket", "my-model", "1.0.0", "--counter", "3", "-o", "other.json")
    assert second["nonce"] != first["nonce"]


@pytest.mark.parametrize(
    "args", [("My Model", "1"), ("my-model", "../1"), ("m", "1", "--commit", "\x1b[2J")]
)
def test_ticket_that_a_device_would_refuse_is_refused(place, capfd, args):
    failure(capfd, "ticket", *args, "--counter", "1")
    assert not Path("ticket.json").exists()


def test_manifest_is_written_beside_its_directory(place, capfd):
    Path("data/train").mkdir(parents=True)
    Path("data/train/a").write_bytes(b"1")
    said = answer(capfd, "manifest", "data/train", "-o", "data/train.manifest")
    assert said["files"] == 1
    assert Path("data/train.manifest").read_text().endswith("  a\n")
    Path("data/train/b").write_bytes(b"2")
    assert answer(capfd, "manifest", "data/train", "-o", "data/train.manifest")["files"] == 2
    code, err = failure(capfd, "manifest", "data", "-o", "data/all.manifest")
    assert code == 2
    assert "cannot list itself" in err
    assert failure(capfd, "manifest", "nowhere", "-o", "m")[0] == 2


# --- attest


def test_five_commands_make_evidence_that_a_device_accepts(place, capfd):
    signed()
    assert run(["ticket", "my-model", "1.0.0", "--counter", "1"]) == 0
    Path("m.onnx").write_bytes(b"weights")
    command = attest("package", "packager", "-p", "bundle", "--", sys.executable, "-c", PACK)
    assert run(command) == 0
    assert "1 of the 1 needed have attested it" in capfd.readouterr().out
    said = answer(capfd, *attest("approve", "approver", "-m", "bundle", "-p", "bundle"))
    assert set(said["products"]) == {"bundle/m.onnx", "bundle/ticket.json"}
    assert (said["links"], said["threshold"]) == (1, 1)
    keyid = KeyFile(Path("keys/approver/functionary.key")).public().keyid
    assert Path(said["file"]) == Path(f"links/approve.{keyid[:8]}.link")
    chain = supply_chain.verify_chain(
        load_links(Path("links")),
        Envelope.parse("layout", Path("layout.json").read_bytes()),
        ModelPolicy.parse(Path("policy.json").read_bytes()),
        datetime.now(UTC),
    )
    assert [step.name for step in chain.steps] == ["package", "approve"]


def test_it_works_as_a_process_from_elsewhere(place, tmp_path_factory):
    """The real command: another directory, a command with options of its own, JSON to stdout."""
    signed()
    assert run(["ticket", "my-model", "1.0.0", "--counter", "1"]) == 0
    Path("m.onnx").write_bytes(b"weights")
    arguments = attest("package", "packager", "-p", "bundle", "--workspace", str(place), "--json")
    arguments = [
        str(place / a) if a.startswith(("layout.", "policy.", "keys/")) else a for a in arguments
    ]
    arguments[arguments.index("links")] = str(place / "links")
    noisy = f"{PACK}; print('--json noise')"
    done = subprocess.run(
        [sys.executable, "-m", "modelward_repo", *arguments, "--", sys.executable, "-c", noisy],
        cwd=tmp_path_factory.mktemp("elsewhere"),
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["step"] == "package"
    assert "--json noise" in done.stderr


def ready(*, with_bundle: bool = True) -> None:
    signed()
    assert run(["ticket", "my-model", "1.0.0", "--counter", "1"]) == 0
    if with_bundle:
        Path("bundle").mkdir()
        Path("bundle/ticket.json").write_bytes(Path("ticket.json").read_bytes())
        Path("bundle/m.onnx").write_bytes(b"weights")


@pytest.mark.parametrize(
    ("args", "code", "reason"),
    [
        (("-p", "bundle", "--", sys.executable, "-c", "exit(7)"), 1, "exit status 7"),
        (("-p", "bundle", "--", "no-such-command"), 1, "could not be run"),
        (("-p", "nowhere"), 2, "does not exist"),
        (("-p", "/etc/passwd"), 2, "not inside of the workspace"),
        (("-p", "bundle", "-p", "ticket.json"), 3, "ticket.json"),
        (("-m", "ticket.json", "-p", "bundle"), 3, "ticket.json"),
        (("-p", "bundle", "--manifest", "bundle"), 2, "is not like DIR=FILE"),
        (("-p", "bundle", "--manifest", "bundle=m"), 2, "neither a material nor a product"),
        (("-p", "bundle", "--layout", "policy.json"), 3, "policy.json"),
        (("-p", "bundle", "--policy", "layout.json"), 3, "model policy"),
        (("-p", "bundle", "--policy", "none"), 2, "none cannot be read"),
        (("-p", "bundle", "--key", "keys/approver/functionary.key"), 3, "may not do the step"),
        (("-p", "bundle", "--workspace", "none"), 2, "does not exist"),
    ],
)
def test_what_goes_wrong_is_explained_and_leaves_no_link(place, capfd, args, code, reason):
    ready()
    found, err = failure(capfd, *attest("package", "packager", *args))
    assert found == code, err
    assert reason in err
    assert not list(Path().glob("links/*"))


def test_refusal_in_json(place, capfd):
    ready()
    capfd.readouterr()
    assert run(attest("approve", "approver", "-m", "bundle", "-p", "bundle", "--json")) == 3
    said = json.loads(capfd.readouterr().out)
    assert said["outcome"] == "refused"
    assert said["gate"] == "supply chain"
    assert "'package'" in said["reason"]


def test_link_is_never_overwritten_but_the_same_may_be_made_again(place, capfd):
    ready()
    command = attest("package", "packager", "-p", "bundle")
    assert run(command) == 0
    assert run(command) == 0
    Path("bundle/m.onnx").write_bytes(b"other weights")
    code, err = failure(capfd, *command)
    assert code == 2
    assert "exists already" in err
    assert len(list(Path("links").iterdir())) == 1


def test_swapped_bundle_is_not_approved(place, capfd):
    ready()
    assert run(attest("package", "packager", "-p", "bundle")) == 0
    Path("bundle/m.onnx").write_bytes(b"poison")
    code, err = failure(capfd, *attest("approve", "approver", "-m", "bundle", "-p", "bundle"))
    assert code == 3
    assert "refused at gate 7 (supply chain)" in err
    assert "bundle/m.onnx" in err


def test_help_teaches(capfd):
    for command in (["layout"], ["layout", "compile"], ["attest"], ["ticket"], ["manifest"]):
        assert run([*command, "--help"]) == 0
        text = capfd.readouterr().out
        assert f"modelward-repo {command[0]}" in text.partition("Usage:")[2].partition("\n")[2]
