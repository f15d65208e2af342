"""`modelward-repo key`, and every command that takes a key, with keys in many places."""

import json
import shutil
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tuf.api.metadata import Metadata, Root

from modelward.errors import ExitCode
from modelward.formats.dsse import Envelope
from modelward_repo.publish.staging import Staging
from modelward_repo.roles import keys as key_module
from modelward_repo.roles import private
from modelward_repo.roles.keys import KeyFile
from modelward_repo.storage.local import LocalStorage
from tests.repo_tools.site import MINIMAL, PlainTuf, Site, make_folder, run
from tests.repo_tools.softhsm import MODULE, SoftHsm, needs_softhsm, unload
from tests.repo_tools.terminal import at_terminal

PIN = "314159"
PASSPHRASE = "correct horse battery staple"


@pytest.fixture(autouse=True)
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_module, "KDF_ROUNDS", 1)
    monkeypatch.setattr(private, "SCRYPT_COST", 2)


@pytest.fixture
def hsm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SoftHsm]:
    made = SoftHsm.make(tmp_path / "hsm")
    for name, value in made.env.items():
        monkeypatch.setenv(name, value)
    made.token("alice", PIN)
    yield made
    unload()


@pytest.fixture
def pin_file(tmp_path: Path) -> Path:
    path = tmp_path / "pin"
    path.write_text(f"{PIN}\n")
    return path


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    return tmp_path / "keys"


def test_the_list_says_where_each_key_is_and_what_it_may_sign(site: Site) -> None:
    (site.keys / "bob/root.key").unlink()
    (site.keys / "carol/root.key").rename(site.keys / "carol/elsewhere")
    (site.keys / "carol/root.ref").write_text("hv:root/3\n")
    KeyFile.of(site.keys, "dave", "spare").create(b"correct horse")
    done = site.run("key", "list")
    rows = {tuple(line.split()[:2]): line for line in done.out.splitlines()}
    assert rows["holder", "name"].split() == (
        ["holder", "name", "scheme", "key", "id", "private", "key", "may", "sign"]
    )
    assert rows["alice", "root"].endswith("here, NOT encrypted  root")
    assert rows["bob", "root"].split()[-3:] == ["not", "here", "root"]
    assert rows["carol", "root"].split()[-2:] == ["hv:root/3", "root"]
    assert rows["dave", "spare"].endswith("-")
    assert "here, encrypted" in rows["dave", "spare"]
    assert rows["release-ci", "model-alpha"].endswith("model-alpha")
    assert rows["lead-a", "layout"].endswith("layout of alpha, layout of beta")
    assert rows["packager", "functionary"].endswith("package of alpha, package of beta")
    listed = {key["name"]: key for key in site.run("key", "list", "--json").json["keys"]}
    assert listed["carol/root"]["reference"] == "hv:root/3"
    assert listed["alice/root"]["encrypted"] is False
    assert listed["dave/spare"]["encrypted"] is True
    assert listed["lead-a/layout"]["may_sign"] == ["layout of alpha", "layout of beta"]


def test_one_broken_reference_does_not_hide_the_other_keys(site: Site) -> None:
    (site.keys / "alice/root.ref").write_text("hv:root/3\n")
    done = site.run("key", "list")
    assert done.code == 0
    assert "both a .key and a .ref file" in done.out
    assert "bob" in done.out


def test_show_says_what_a_key_may_sign(site: Site) -> None:
    shown = site.run("key", "show", "alice/root").out
    assert "encrypted: NO" in shown
    assert "may sign: root" in shown
    assert run("key", "show", "alice/root", "--keys", site.keys).out.count("may sign") == 0


@pytest.mark.parametrize("scheme", ["ed25519", "ecdsa-sha2-nistp384", "ml-dsa-65"])
def test_files_are_created_and_tested(keys: Path, scheme: str, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text(PASSPHRASE)
    options = ("--keys", keys, "--passphrase-file", secret)
    assert run("key", "create", "alice/root", "--scheme", scheme, *options).code == 0
    assert PASSPHRASE not in (keys / "alice/root.key").read_text(errors="replace")
    for name in ("alice/root", keys / "alice/root.key"):
        done = run("key", "test", name, *options)
        assert done.code == 0, done
        assert "it signs, and the signature verifies with the key" in done.out
        assert "opened in" in done.out
    answer = run("key", "test", "alice/root", *options, "--json").json
    assert answer["scheme"].startswith(scheme)
    secret.write_text("wrong")
    done = run("key", "test", "alice/root", *options)
    assert done.code == ExitCode.USAGE
    assert "wrong passphrase" in done.err


def test_a_test_finds_a_pub_file_of_another_key(keys: Path) -> None:
    for name in ("alice", "bob"):
        run("key", "create", f"{name}/root", "--keys", keys, "--plaintext")
    shutil.copy(keys / "bob/root.pub", keys / "alice/root.pub")
    done = run("key", "test", "alice/root", "--keys", keys)
    assert done.code == ExitCode.USAGE
    assert "but its .pub file is not" in done.err


def test_a_test_does_not_touch_the_repository(site: Site) -> None:
    before = sorted((path, path.stat().st_mtime_ns) for path in site.directory.rglob("*"))
    assert site.run("key", "test", "alice/root").code == 0
    assert sorted((path, path.stat().st_mtime_ns) for path in site.directory.rglob("*")) == before


def test_which_key_is_to_be_tested(tmp_path: Path) -> None:
    done = run("key", "test", "alice/root")
    assert (done.code, "which keys?" in done.err) == (ExitCode.USAGE, True)
    done = run("key", "test", "hv:a/b/c")
    assert (done.code, "makes no sense" in done.err) == (ExitCode.USAGE, True)
    done = run("key", "test", tmp_path / "nothing.key")
    assert (done.code, "cannot be read" in done.err) == (ExitCode.USAGE, True)


@needs_softhsm
def test_a_key_is_made_on_a_token(hsm: SoftHsm, keys: Path, pin_file: Path) -> None:
    options = ("--keys", keys, "--pin-file", pin_file)
    done = run("key", "create", "alice/root", "--on", "pkcs11:token=alice", *options, "--json")
    assert done.code == 0, done
    assert done.json["reference"].startswith("pkcs11:token=alice;id=%01%")
    assert sorted(path.name for path in (keys / "alice").iterdir()) == ["root.pub", "root.ref"]
    assert run("key", "test", "alice/root", *options).code == 0
    assert run("key", "test", done.json["reference"], "--pin-file", pin_file).code == 0

    again = run("key", "create", "alice/root", "--on", "pkcs11:token=alice", *options)
    assert (again.code, "exists already" in again.err) == (ExitCode.USAGE, True)
    added = run("key", "add", "alice/targets", done.json["reference"], *options, "--json")
    assert added.json["keyid"] == done.json["keyid"]

    no_pin = run("key", "test", "alice/root", "--keys", keys)
    assert no_pin.code == ExitCode.USAGE
    assert "the PIN of the token 'alice' is needed, and there is no terminal" in no_pin.err
    assert "--pin-file" in no_pin.err


@pytest.mark.parametrize(
    ("uri", "scheme", "problem"),
    [
        ("hv:root", "ed25519", "on a PKCS#11 token only"),
        ("pkcs11:token=alice", "ed25519", "a token cannot make ed25519 keys"),
        ("pkcs11:token=alice", "ml-dsa-65", "a token cannot make ml-dsa-65 keys"),
    ],
)
def test_keys_that_cannot_be_made_elsewhere(
    keys: Path, uri: str, scheme: str, problem: str
) -> None:
    done = run("key", "create", "alice/root", "--on", uri, "--scheme", scheme, "--keys", keys)
    assert (done.code, problem in done.err) == (ExitCode.USAGE, True)
    assert not keys.exists()


@needs_softhsm
def test_one_pin_is_never_tried_on_two_tokens(hsm: SoftHsm, keys: Path, pin_file: Path) -> None:
    hsm.token("bob", "271828")
    options = ("--keys", keys, "--pin-file", pin_file)
    bobs = pin_file.with_name("bobs-pin")
    bobs.write_text("271828\n")
    on_bobs = f"pkcs11:token=bob;id=%02?pin-source=file:{bobs}"
    assert run("key", "create", "alice/root", "--on", "pkcs11:token=alice", *options).code == 0
    assert run("key", "create", "bob/root", "--on", on_bobs, *options).code == 0
    policy = pin_file.with_name("policy.toml")
    text = MINIMAL.read_text().replace('"../layouts', f'"{MINIMAL.parents[1]}/layouts')
    policy.write_text(text.replace('["alice", "bob", "carol"]', '["alice", "bob"]'))
    site = Site(pin_file.with_name("repo"), keys)
    made = ("init", site.directory, "--policy", policy, "--plaintext-keys", "--pin-file", pin_file)
    (keys / "bob/root.ref").write_text("pkcs11:token=bob;id=%02\n")
    done = site.run(*made)
    assert done.code == ExitCode.USAGE
    assert "holds one PIN, but more than one token is used" in done.err
    (keys / "bob/root.ref").write_text(f"{on_bobs}\n")
    done = site.run(*made)
    assert done.code == 0, done


@needs_softhsm
def test_a_root_of_a_token_a_file_and_a_post_quantum_key(
    hsm: SoftHsm, tmp_path: Path, pin_file: Path, plain_tuf: PlainTuf
) -> None:
    """Three must sign, three kinds of key: python-tuf's client and the device accept it."""
    site = Site(tmp_path / "repo", tmp_path / "keys")
    on = ("--on", "pkcs11:token=alice", "--pin-file", pin_file)
    assert site.run("key", "create", "alice/root", *on).code == 0
    plain = ("--plaintext", "--keys", site.keys)
    for name in ("carol/root", "lead-a/layout", "lead-b/layout"):
        assert run("key", "create", name, "--scheme", "ml-dsa-65", *plain).code == 0
    assert run("key", "create", "packager/functionary", *plain, "--scheme", "ml-dsa-65").code == 0
    # What the repository signs with every change may be on a token as well.
    assert site.run("key", "create", "repository/timestamp", *on).code == 0

    policy = tmp_path / "policy.toml"
    text = MINIMAL.read_text().replace('"../layouts', f'"{MINIMAL.parents[1]}/layouts')
    policy.write_text(text.replace("threshold = 2", "threshold = 3", 1))
    done = site.run(
        *("init", site.directory, "--policy", policy, "--model", "alpha"),
        *("--plaintext-keys", "--pin-file", pin_file),
    )
    assert done.code == 0, done

    root = Metadata[Root].from_file(str(site.directory / "metadata/1.root.json"))
    schemes = {root.signed.keys[keyid].scheme for keyid in root.signed.roles["root"].keyids}
    assert schemes == {"ecdsa-sha2-nistp256", "ed25519", "ml-dsa-65/1"}
    assert root.signed.roles["root"].threshold == len(root.signatures) == 3
    root.signed.verify_delegate("root", root.signed_bytes, root.signatures)

    with_pin = ("--pin-file", pin_file)
    folder = make_folder(tmp_path / "folder", b"weights")
    assert site.run("release", "alpha", "1.0.0", folder, *with_pin).code == 0
    assert site.run("channel", "set", "stable", "alpha", "1.0.0", *with_pin).code == 0
    found = plain_tuf(site.directory)
    assert "models/alpha/1.0.0/release.json" in found
    with Staging.of(LocalStorage(site.directory), datetime.now(UTC)).as_device() as device:
        state = next(role for role in device.cache.roles() if role.name == "root")
    assert set(state.signers) == set(root.signed.roles["root"].keyids)


@needs_softhsm
def test_layouts_and_models_are_signed_with_a_key_on_a_token(
    hsm: SoftHsm, site: Site, tmp_path: Path, pin_file: Path
) -> None:
    uri = f"pkcs11:token=alice;id=%02?module-path={MODULE}"
    with_pin = ("--pin-file", pin_file)
    assert site.run("key", "create", "lead-z/layout", "--on", uri, *with_pin).code == 0
    keyid = KeyFile.of(site.keys, "lead-z", "layout").public().keyid
    layout = tmp_path / "layout.json"
    source = MINIMAL.parents[1] / "layouts/minimal.toml"
    done = site.run("layout", "compile", source, "--owners", "lead-z", "--output", layout)
    assert done.code == 0, done
    done = site.run("layout", "sign", layout, "--key", uri, "--yes", *with_pin)
    assert done.code == 0, done
    assert set(Envelope.parse("layout", layout.read_bytes()).signatures) == {keyid}

    bundle = make_folder(tmp_path / "bundle", b"weights")
    done = site.run("sign-model", bundle, "--key", uri, *with_pin, "--json")
    assert done.code == 0, done
    assert done.json["keyid"] == keyid
    assert json.loads((bundle / "model.sig").read_bytes())["dsseEnvelope"]["signatures"]
    reference = site.keys / "lead-z/layout.ref"
    assert site.run("sign-model", bundle, "--key", reference, *with_pin).code == 0


@pytest.mark.parametrize(
    "command",
    [
        ("layout", "sign", "layout.json"),
        ("sign-model", "."),
        ("attest", "package", "--layout", "l", "--policy", "p", "--links", "links"),
    ],
)
def test_a_pin_on_the_command_line_is_refused_and_not_repeated(command: tuple[str, ...]) -> None:
    done = run(*command, "--key", f"pkcs11:id=%02?pin-value={PIN}")
    assert done.code == ExitCode.USAGE
    assert "pin-value in a pkcs11: URI is refused" in done.err
    assert PIN not in done.out + done.err


# --- at a terminal --------------------------------------------------------------------------------


@needs_softhsm
def test_a_pin_is_typed_unseen(hsm: SoftHsm, keys: Path) -> None:
    args = ["key", "create", "alice/root", "--on", "pkcs11:token=alice", "--keys", keys]
    made = at_terminal(args, [PIN], hsm.env)
    assert made.code == 0, made.shown
    tested = at_terminal(["key", "test", "alice/root", "--keys", keys], [PIN], hsm.env)
    assert tested.code == 0, tested.shown
    for session in (made, tested):
        assert session.shown.count("PIN of the token 'alice': ") == 1
        assert PIN not in session.shown
        assert session.seen
        assert not any(PIN.encode() in text for text in session.seen)
    refused = at_terminal(["key", "test", "alice/root", "--keys", keys], ["271828"], hsm.env)
    assert refused.code == ExitCode.USAGE
    assert "wrong PIN for the token 'alice'" in refused.shown
    assert "271828" not in refused.shown
    assert "Traceback" not in refused.shown


def test_a_passphrase_is_typed_unseen(keys: Path) -> None:
    args = ["key", "create", "carol/root", "--scheme", "ml-dsa-65", "--keys", keys]
    made = at_terminal(args, [PASSPHRASE, PASSPHRASE])
    assert made.code == 0, made.shown
    assert "(encrypted)" in made.shown
    tested = at_terminal(["key", "test", "carol/root", "--keys", keys], [PASSPHRASE])
    assert tested.code == 0, tested.shown
    refused = at_terminal(["key", "test", "carol/root", "--keys", keys], ["wrong horse"])
    assert refused.code == ExitCode.USAGE
    assert "wrong passphrase" in refused.shown
    for session in (made, tested, refused):
        for secret in (PASSPHRASE, "wrong horse"):
            assert secret not in session.shown
            assert not any(secret.encode() in text for text in session.seen)


def test_keys_elsewhere_cost_nothing_where_no_key_is_used() -> None:
    import subprocess  # noqa: PLC0415

    code = (
        "import sys; from modelward_repo.cli import run; run(['serve', '--help']); "
        "print([name for name in ('securesystemslib.signer', 'pkcs11') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
